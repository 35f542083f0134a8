"""Audio files to samples: mono, 16 kHz, 16 bit. A corpus is decoded once, into an Arrow file that later runs reopen."""

import hashlib
import sys
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
import torch
from datasets import Dataset, Features, List, Value
from scipy.signal import resample_poly
from torchaudio.functional import resample

from ser_mtl.corpora import ffmpeg, headers, level, reading
from ser_mtl.corpora.cache import DECODERS, cached_map, files_identity, source_digest
from ser_mtl.corpora.folder import place_of
from ser_mtl.corpora.kept import forget, keep, kept_samples
from ser_mtl.corpora.level import clipping_in_one_line
from ser_mtl.corpora.reading import TOO_LONG, check_rate, read_audio, seconds_over
from ser_mtl.errors import UserError

SAMPLING_RATE = 16_000

_EXAMPLES = 20  # files in one message


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """Average the channels, resample to 16 kHz and quantise to 16 bits.

    Args:
        samples: from -1 to 1, (samples, channels) float32; what mixing and resampling put beyond is clipped.
        rate: their sampling rate in hertz.

    Returns:
        (samples at 16 kHz,) int16.

    Raises:
        UserError: a rate outside `RATES`.
    """
    check_rate(rate)
    mono = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = _at_16k(mono, rate)
    return np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16)


def _at_16k(mono: np.ndarray, rate: int) -> np.ndarray:
    """Resample, in memory and time that do not grow with the terms of the ratio of the rates.

    The ratio is exact up to 100 kHz and for the usual rates above; else it is off by one part in 100,000 at most.
    """
    ratio = Fraction(SAMPLING_RATE, rate).limit_denominator(100_000)
    up, down = ratio.numerator, ratio.denominator
    if max(up, down) <= _LARGEST_TERM:
        return resample(torch.from_numpy(mono), down, up).numpy()
    return resample_poly(mono, up, down)


_LARGEST_TERM = 1000
"""torchaudio's filters take memory with the product of both terms: 11.025 kHz is 441 to 640, 44,101 Hz has none."""


def decode(file: str | Path | BinaryIO, max_seconds: float | None = None) -> np.ndarray:
    """Read an audio file as mono at 16 kHz: (samples,) int16.

    Raises:
        UserError: see `read_audio`.
    """
    return to_mono_16k(*read_audio(file, max_seconds))


def with_samples(corpus: Dataset, max_seconds: float | None = None) -> Dataset:
    """Add the columns `samples` (int16), `length` (samples), `peak` (int16's largest size) and `digest` to a corpus.

    The result is cached under a name made from the path, size and modification time of every file and from the versions
    of what decodes them, so a corpus is decoded again only after one of these has changed. If some files cannot be
    used, the others are decoded and kept.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        max_seconds: refuse longer utterances; None for any length.

    Raises:
        UserError: names all files that are missing, cannot be decoded or are too long.
    """
    with clipping_in_one_line():
        decoded = cached_map(
            corpus.select_columns("path"),
            partial(_decode_row, max_seconds=max_seconds),
            _DECODED,
            "decoded",
            samples_identity(corpus),
            desc="Decoding audio",
            writer_batch_size=200,
        )
    if any(decoded["fault"]):
        Path(decoded.cache_files[0]["filename"]).unlink()
    _check_faults(corpus, decoded, max_seconds)
    forget(decoded)
    return datasets.concatenate_datasets([corpus, decoded.remove_columns(["path", "fault"])], axis=1)


_DECODED = Features(
    {
        "path": Value("string"),
        "samples": List(Value("int16")),
        "length": Value("int64"),
        "peak": Value("int32"),
        "digest": Value("string"),  # of the samples
        "fault": Value("string"),  # why there are none; None for a good file
    }
)


def _decode_row(row: dict, max_seconds: float | None) -> dict:
    """Decode one file and keep it until its corpus is complete, or open what an earlier run has kept of it."""
    samples = kept_samples(row["path"])
    try:
        if samples is None:
            samples = decode(row["path"], max_seconds)
            keep(row["path"], samples)
    except UserError as error:
        return {"samples": np.zeros(0, np.int16), "length": 0, "peak": 0, "digest": "", "fault": str(error)}
    return {
        "samples": samples,
        "length": len(samples),
        "peak": int(np.abs(samples.astype(np.int32)).max()),
        "digest": hashlib.sha256(samples.tobytes()).hexdigest()[:16],
        "fault": None,
    }


def _check_faults(corpus: Dataset, decoded: Dataset, max_seconds: float | None) -> None:
    """Name the files that cannot be used together, each with its row of `metadata.csv`, if there is one.

    Raises:
        UserError: there are any.
    """
    faults = []
    columns = corpus["id"][:], corpus["path"][:], decoded["fault"][:], decoded["length"][:]
    for name, path, fault, length in zip(*columns, strict=True):
        seconds = length / SAMPLING_RATE
        if fault is None and max_seconds is not None and seconds > max_seconds:  # decoded for a run with a larger limit
            fault = TOO_LONG.format(name=path, seconds=seconds_over(seconds, max_seconds), limit=max_seconds)
        if fault is not None:
            faults.append((name, path, fault))
    if faults:
        many = f"{len(faults)} audio files cannot be used: " if len(faults) > 1 else ""
        named = ". ".join(place_of(name, path) + fault for name, path, fault in faults[:_EXAMPLES])
        more = f". {len(faults) - _EXAMPLES} more" if len(faults) > _EXAMPLES else ""
        raise UserError(f"{many}{named}{more}")


def samples_identity(corpus: Dataset) -> tuple:
    """All that the samples of a corpus depend on: the files, the decoding libraries, and this file.

    Raises:
        UserError: a file is missing.
    """
    programs = (*DECODERS, ffmpeg.version()) if any(map(ffmpeg.reads, corpus["path"][:])) else DECODERS
    return files_identity(corpus), programs, source_digest(sys.modules[__name__], reading, headers, ffmpeg, level)
