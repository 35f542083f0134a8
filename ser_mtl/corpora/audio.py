"""Audio files to samples: mono, 16 kHz, 16 bit. A corpus is decoded once, into an Arrow file that later runs reopen."""

import sys
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
import soundfile
import torch
from datasets import Dataset, Features, List, Value
from torchaudio.functional import resample

from ser_mtl.corpora.cache import DECODERS, cached_map, files_identity, source_digest
from ser_mtl.errors import UserError

SAMPLING_RATE = 16_000


def read_audio(file: str | Path | BinaryIO) -> tuple[np.ndarray, int]:
    """Read an audio file at its own sampling rate.

    Args:
        file: a path or a binary file object.

    Returns:
        Samples from -1 to 1, (samples, channels) float32, and the sampling rate in hertz.

    Raises:
        UserError: the file is missing, unreadable or empty, or holds samples that are NaN or infinite.
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
    return samples, rate


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """Average the channels, resample to 16 kHz and quantise to 16 bits.

    Args:
        samples: from -1 to 1, (samples, channels) float32; larger values are clipped.
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

    The result is cached under a name made from the path, size and modification time of every file and from the versions
    of what decodes them, so a corpus is decoded again only after one of these has changed.

    Raises:
        UserError: a file is missing or cannot be decoded.
    """
    samples = cached_map(
        corpus.select_columns("path"),
        _decode_row,
        Features({"path": Value("string"), "samples": List(Value("int16")), "length": Value("int64")}),
        "samples",
        samples_identity(corpus),
        desc="Decoding audio",
        writer_batch_size=200,
    )
    return datasets.concatenate_datasets([corpus, samples.remove_columns("path")], axis=1)


def samples_identity(corpus: Dataset) -> tuple:
    """All that the samples of a corpus depend on: the files, the decoding libraries, and this file.

    Raises:
        UserError: a file is missing.
    """
    return files_identity(corpus), DECODERS, source_digest(sys.modules[__name__])


def _decode_row(row: dict) -> dict:
    samples = decode(row["path"])
    return {"samples": samples, "length": len(samples)}
