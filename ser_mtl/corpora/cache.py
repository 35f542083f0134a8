"""What is computed from audio, kept on disk for later runs: named after all it depends on, with a checksum."""

import hashlib
import inspect
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import datasets
import soundfile
from datasets import Dataset, Features

from ser_mtl.errors import UserError
from ser_mtl.files import write_text, writing

DECODERS = (soundfile.__libsndfile_version__, *(version(package) for package in ("soundfile", "torchaudio", "numpy")))
"""Versions of what turns a file into samples."""


def cached_map(
    corpus: Dataset, compute: Callable[[dict], dict], features: Features, kind: str, identity: object, **more
) -> Dataset:
    """`corpus.map(compute)`, or what an earlier run has kept of it, if that is still as it was written.

    Args:
        corpus: the input columns.
        compute: one row to its new columns.
        features: of the result.
        kind: begins the name of the file.
        identity: all that the result depends on; anything with a stable `repr`.
        **more: as for `Dataset.map`.

    Returns:
        The new columns; a file that is damaged is computed again.
    """
    digest = hashlib.sha256(repr((kind, identity)).encode()).hexdigest()[:16]
    file = cache_folder() / f"{kind}-{digest}.arrow"
    checksum = file.with_suffix(".crc32")
    if not (file.is_file() and checksum.is_file() and checksum.read_text() == _crc32(file)):
        with writing(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            with TemporaryDirectory(prefix="partial-", dir=file.parent) as part:  # an interrupted map leaves its file
                computed = str(Path(part) / file.name)
                corpus.map(compute, features=features, cache_file_name=computed, new_fingerprint=digest, **more)
                Path(computed).replace(file)
        write_text(checksum, _crc32(file))
    return Dataset.from_file(str(file))


def source_digest(*modules: ModuleType) -> str:
    """SHA-256 over the source of modules: what a result depends on if they compute it."""
    return hashlib.sha256("".join(map(inspect.getsource, modules)).encode()).hexdigest()


def files_identity(corpus: Dataset) -> list[tuple[str, int, int]]:
    """Path, size in bytes and modification time of every audio file.

    Raises:
        UserError: a file is missing.
    """
    files = [Path(path) for path in corpus["path"]]
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such audio file ({len(missing)} missing in all)")
    stats = [path.stat() for path in files]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, stats, strict=True)]


def cache_folder() -> Path:
    """Where it is kept."""
    return Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"


def _crc32(file: Path) -> str:
    """The checksum of a file; it finds damage, at the speed of the disk."""
    checksum = 0
    with file.open("rb") as opened:
        while block := opened.read(1 << 22):
            checksum = zlib.crc32(block, checksum)
    return f"{checksum:08x}\n"
