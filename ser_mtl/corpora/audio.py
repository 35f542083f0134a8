"""From audio files to samples: decoded once, mono, 16 kHz, 16 bit, kept in an Arrow file that later runs open again."""

import hashlib
from pathlib import Path

import datasets
import numpy as np
import soundfile
import torch
from datasets import Dataset, Features, List, Value
from torchaudio.functional import resample

from ser_mtl.errors import UserError

SAMPLING_RATE = 16_000


def decode(path: str | Path) -> np.ndarray:
    """Read one audio file as int16 samples, (samples,), mono (the mean of the channels) at 16 kHz.

    Raises:
        UserError: the file is missing, unreadable, without samples, or holds values that are not numbers.
    """
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless audio (.raw)
        raise UserError(f"{path}: cannot be read as audio ({error}); replace the file or drop its row") from error
    if len(samples) == 0:
        raise UserError(f"{path}: holds no samples; replace the file or drop its row")
    if not np.isfinite(samples).all():
        raise UserError(f"{path}: holds samples that are not numbers (NaN or infinite); export it again")
    mono = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = resample(torch.from_numpy(mono), rate, SAMPLING_RATE).numpy()
    return np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16)


def with_samples(corpus: Dataset) -> Dataset:
    """Add the columns `samples` (int16) and `length` (number of samples) to a corpus.

    The result is kept in the cache folder of `datasets` under a name made of every file's path, size and time of
    change, so that a corpus seen before is opened and not decoded again.
    """
    identity = files_identity(corpus)
    samples = corpus.select_columns("path").map(
        _decode_row,
        desc="decoding audio",
        features=Features({"path": Value("string"), "samples": List(Value("int16")), "length": Value("int64")}),
        cache_file_name=str(cache_file("samples", identity)),
        new_fingerprint=_digest("samples", identity),
        writer_batch_size=200,
    )
    return datasets.concatenate_datasets([corpus, samples.remove_columns("path")], axis=1)


def files_identity(corpus: Dataset) -> list[tuple[str, int, int]]:
    """Path, size and time of change of every audio file: what computed data is kept under.

    Raises:
        UserError: a file is missing.
    """
    files = [Path(path) for path in corpus["path"]]
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such audio file ({len(missing)} missing in all)")
    stats = [path.stat() for path in files]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, stats, strict=True)]


def cache_file(kind: str, identity: object) -> Path:
    """Where something computed from `identity` (anything with a stable `repr`) is kept between runs."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}-{_digest(kind, identity)}.arrow"


def _digest(kind: str, identity: object) -> str:
    return hashlib.sha256(repr((kind, identity)).encode()).hexdigest()[:16]


def _decode_row(row: dict) -> dict:
    samples = decode(row["path"])
    return {"samples": samples, "length": len(samples)}
