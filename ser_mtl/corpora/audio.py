"""Audio files to samples: mono, 16 kHz, 16 bit. A corpus is decoded once, into an Arrow file that later runs reopen."""

import hashlib
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
import soundfile
import torch
from datasets import Dataset, Features, List, Value
from torchaudio.functional import resample

from ser_mtl.corpora.level import OVERSHOOT, at_full_scale, clipping_in_one_line
from ser_mtl.errors import UserError

SAMPLING_RATE = 16_000


def read_audio(file: str | Path | BinaryIO) -> tuple[np.ndarray, int]:
    """Read an audio file at its own sampling rate.

    Args:
        file: a path or a binary file object.

    Returns:
        Samples from -1 to 1, (samples, channels) float32, and the sampling rate in hertz.

    Raises:
        UserError: the file is missing, unreadable or empty, or holds samples that are NaN, infinite or far beyond 1.
    """
    name = getattr(file, "name", "the audio") if hasattr(file, "read") else file
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless audio (.raw)
        raise UserError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error
    if len(samples) == 0:
        raise UserError(f"{name}: holds no samples; replace or remove it")
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: holds NaN or infinite samples; export it again")
    return at_full_scale(samples, str(name), OVERSHOOT), rate


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """Average the channels, resample to 16 kHz and quantise to 16 bits.

    Args:
        samples: from -1 to 1, (samples, channels) float32; what mixing and resampling put beyond is clipped.
        rate: their sampling rate in hertz.

    Returns:
        (samples at 16 kHz,) int16.
    """
    mono = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = resample(torch.from_numpy(mono), rate, SAMPLING_RATE).numpy()
    return np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16)


def decode(file: str | Path | BinaryIO) -> np.ndarray:
    """Read an audio file as mono at 16 kHz: (samples,) int16.

    Raises:
        UserError: see `read_audio`.
    """
    return to_mono_16k(*read_audio(file))


def with_samples(corpus: Dataset) -> Dataset:
    """Add the columns `samples` (int16) and `length` (number of samples) to a corpus.

    The result is cached under a name made from the path, size and modification time of every file, so a corpus is
    decoded again only after a file has changed.

    Raises:
        UserError: a file is missing or cannot be decoded.
    """
    identity = files_identity(corpus)
    with clipping_in_one_line():
        samples = corpus.select_columns("path").map(
            _decode_row,
            desc="Decoding audio",
            features=Features({"path": Value("string"), "samples": List(Value("int16")), "length": Value("int64")}),
            cache_file_name=str(cache_file("samples", identity)),
            new_fingerprint=_digest("samples", identity),
            writer_batch_size=200,
        )
    return datasets.concatenate_datasets([corpus, samples.remove_columns("path")], axis=1)


def files_identity(corpus: Dataset) -> list[tuple[str, int, int]]:
    """Path, size in bytes and modification time of every audio file: the key of everything computed from the audio.

    Raises:
        UserError: a file is missing.
    """
    files = [Path(path) for path in corpus["path"]]
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such audio file ({len(missing)} missing in all)")
    stats = [path.stat() for path in files]
    return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in zip(files, stats, strict=True)]


def cache_file(kind: str, identity: object) -> Path:
    """The file that caches something computed from `identity`, which may be anything with a stable `repr`."""
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{kind}-{_digest(kind, identity)}.arrow"


def _digest(kind: str, identity: object) -> str:
    return hashlib.sha256(repr((kind, identity)).encode()).hexdigest()[:16]


def _decode_row(row: dict) -> dict:
    samples = decode(row["path"])
    return {"samples": samples, "length": len(samples)}
