"""The cache of samples and features: files with a checksum, whose names hash everything that the content depends on.

A corpus is cached in parts, a file each. A run that was killed goes on with the next part, and several processes, or
machines that share the file system, can each compute some: a file appears only when it is whole.
"""

import hashlib
import inspect
import os
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import NamedTuple

import datasets
import pyarrow as pa
import soundfile
from datasets import Dataset, Features, concatenate_datasets
from datasets.utils import tqdm

from ser_mtl.errors import UserError
from ser_mtl.files import writing
from ser_mtl.processes import cores, for_each

DECODERS = (soundfile.__libsndfile_version__, *(version(package) for package in ("soundfile", "torchaudio", "numpy")))
"""Versions of the libraries that turn a file into samples."""

_ROWS = 200  # of a part: few enough to lose to a kill, and enough to be worth a second process
_WRITTEN = 2**24  # numbers written at once, at least
_LEFT = 24 * 3600  # seconds after which a half-written file was left by a process that was killed


class Part(NamedTuple):
    """Rows of a corpus, and the cache file of the values computed from them."""

    rows: Dataset
    file: Path

    def is_whole(self) -> bool:
        """Whether the file is there and undamaged."""
        checksum = self.file.with_suffix(".crc32")
        return self.file.is_file() and checksum.is_file() and checksum.read_text() == _crc32(self.file)

    def write(self, rows: Iterable[dict], features: Features) -> None:
        """Write the file, unless another process has in the meantime: someone may have that one open."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with writing(self.file), TemporaryDirectory(prefix="partial-", dir=self.file.parent) as scratch:
            made = Path(scratch) / self.file.name
            with made.open("wb") as file, pa.ipc.new_stream(file, features.arrow_schema) as stream:
                for batch in _batches(rows):
                    stream.write_batch(pa.RecordBatch.from_pylist(batch, features.arrow_schema))
            if not self.is_whole():
                made.with_suffix(".crc32").write_text(_crc32(made))
                made.with_suffix(".crc32").replace(self.file.with_suffix(".crc32"))
                made.replace(self.file)


def parts_of(
    corpus: Dataset, kind: str, rows: Sequence, identity: object, sizes: Sequence[int], largest: int
) -> list[Part]:
    """Divide a corpus into parts, each with a cache file.

    Args:
        corpus: the input columns.
        kind: what is computed; the files' names begin with it.
        rows: everything that the result of each row depends on; anything with a stable `repr`.
        identity: everything else that the results depend on; likewise.
        sizes: of each row, in any unit.
        largest: the largest size of a part with more than one row.
    """
    starts: list[int] = []
    room = 0
    for row, size in enumerate(sizes):
        room -= size
        if not starts or room < 0 or row - starts[-1] == _ROWS:
            starts.append(row)
            room = largest - size
    parts = []
    for start, end in pairwise([*starts, len(corpus)]):
        digest = hashlib.sha256(repr((kind, identity, rows[start:end])).encode()).hexdigest()[:16]
        parts.append(Part(corpus.select(range(start, end)), cache_folder() / f"{kind}-{digest}.arrow"))
    return parts


def missing(parts: Sequence[Part]) -> list[Part]:
    """The parts that are not in the cache, or damaged there."""
    with ThreadPoolExecutor(cores()) as threads:
        whole = list(threads.map(Part.is_whole, parts))
    return [part for part, there in zip(parts, whole, strict=True) if not there]


def computed(
    parts: Sequence[Part], absent: Sequence[Part], compute: Callable[[Part], None], what: str, processes: int = 1
) -> Dataset:
    """The cached columns of a corpus, after the absent parts have been computed.

    Args:
        parts: of the corpus.
        absent: those that are `missing`.
        compute: writes the file of a part.
        what: title of the progress bar.
        processes: number of processes to compute in.
    """

    def complete(part: Part) -> int:
        if not part.is_whole():
            compute(part)
        return len(part.rows)

    _remove_left_behind()
    absent = random.sample(absent, len(absent))  # machines that share a cache begin with different parts
    with tqdm(total=sum(len(part.rows) for part in absent), desc=what, unit=" utterances", disable=not absent) as bar:
        for rows in for_each(absent, complete, processes):
            bar.update(rows)
    return concatenate_datasets([Dataset.from_file(str(part.file)) for part in parts])


def _batches(rows: Iterable[dict]) -> Iterator[list[dict]]:
    """Rows in groups that are written at once, some megabytes of numbers each."""
    batch, numbers = [], 0
    for row in rows:
        batch.append(row)
        numbers += sum(getattr(value, "size", 1) for value in row.values())
        if numbers > _WRITTEN:
            yield batch
            batch, numbers = [], 0
    if batch:
        yield batch


def _remove_left_behind() -> None:
    """Remove half-written files of processes that were killed."""
    for folder in cache_folder().glob("partial-*"):
        try:
            if time.time() - folder.stat().st_mtime > _LEFT:
                rmtree(folder, ignore_errors=True)
        except FileNotFoundError:  # its process has just finished
            continue


def source_digest(*modules: ModuleType) -> str:
    """SHA-256 over the source of the modules that compute a result."""
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()


def files_identity(corpus: Dataset) -> list[tuple[str, int, int]]:
    """Path, size in bytes and modification time of every audio file.

    Raises:
        UserError: a file is missing.
    """
    paths = list(corpus["path"][:])
    if missing := [path for path in paths if not os.path.isfile(path)]:
        raise UserError(f"{missing[0]}: no such audio file ({len(missing)} missing in all)")
    stats = map(os.stat, paths)
    return [(path, stat.st_size, stat.st_mtime_ns) for path, stat in zip(paths, stats, strict=True)]


def cache_folder() -> Path:
    """The folder of the cache."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"


def _crc32(file: Path) -> str:
    """The checksum of a file, computed at the speed of the disk."""
    checksum = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}\n"
