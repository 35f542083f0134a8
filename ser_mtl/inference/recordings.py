"""From recordings in any form to samples: paths, file objects, and arrays with their sampling rate."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from ser_mtl.corpora.audio import SAMPLING_RATE, decode, to_mono_16k
from ser_mtl.errors import UserError

Recording = Any
"""A path, a binary file object, or `(samples, rate)`."""

LONGEST = 2 * 60
"""Seconds of a recording that still passes for one utterance; attention takes the square of them in memory."""
_ROUNDING = 1e-3  # by which floats may exceed 1: resampling and lossy codecs overshoot
_RATES = (1_000, 768_000)  # hertz


def samples_of(recording: Recording) -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16.

    Args:
        recording: a path, a binary file object, or `(samples, rate)`. Samples are an array, a list or a tensor of shape
            (n,), (1, n), (n, 1), (n, channels) or (channels, n); integers by the range of their type, floats within
            -1..1.

    Raises:
        UserError: it cannot be read, has another form, or is too long to be one utterance.
    """
    if isinstance(recording, tuple):
        name, samples = "the samples", to_mono_16k(*_checked(*_pair(recording)))
    elif isinstance(recording, str | Path) or hasattr(recording, "read"):
        name = getattr(recording, "name", "the audio") if hasattr(recording, "read") else recording
        samples = decode(recording)
    else:
        raise UserError(f"a recording is a path, a file or (samples, rate), not {type(recording).__name__}")
    if len(samples) > LONGEST * SAMPLING_RATE:
        raise UserError(
            f"{name}: {len(samples) / SAMPLING_RATE:.1f} seconds long; the model takes single utterances, of "
            f"{LONGEST} seconds at most: cut it"
        )
    return samples


def _pair(recording: tuple) -> tuple[Any, Any]:
    if len(recording) != 2:
        raise UserError(f"a recording in memory is (samples, rate), not a tuple of {len(recording)}")
    return recording


def _checked(samples: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Samples as float32 from -1 to 1, (samples, channels), and their rate as an integer."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not float(rate).is_integer():
        raise UserError(f"sampling rate {rate!r}: must be a whole number of hertz")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(f"sampling rate {rate}: must be from {_RATES[0]} to {_RATES[1]} hertz")
    try:
        array = samples.detach().cpu().numpy() if isinstance(samples, torch.Tensor) else np.asarray(samples)
    except (TypeError, ValueError) as error:  # a ragged list; a tensor type that numpy does not have
        raise UserError(f"samples: cannot be read as an array ({' '.join(str(error).split())})") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise UserError(f"samples of shape {array.shape}: must be (n,), (n, channels) or (channels, n), and not empty")
    channels_last = array.reshape(len(array), -1)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        channels_last = array.T
    return _as_floats(channels_last), int(rate)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) / 2
        scale = float(info.max) + 1 - middle
        return ((samples.astype(np.float64) - middle) / scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise UserError(f"samples of type {samples.dtype}: must be integers or floats")
    floats = samples.astype(np.float32)
    if not np.isfinite(floats).all():
        raise UserError("samples: hold values that are not numbers (NaN or infinite)")
    if np.abs(floats).max() > 1 + _ROUNDING:
        raise UserError(f"samples up to {np.abs(floats).max():g}: floats must be within -1 and 1; divide them")
    return floats


def audio_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and all audio files below the folders among them, sorted.

    Raises:
        UserError: there is none.
    """
    suffixes = {f".{name.lower()}" for name in (*soundfile.available_formats(), "aif", "aifc", "opus", "oga")}
    files: list[Path] = []
    for path in paths:
        below = sorted(
            file for file in path.rglob("*") if file.suffix.lower() in suffixes - {".raw"} and file.is_file()
        )
        files += below if path.is_dir() else [path]
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no audio file there")
    return files
