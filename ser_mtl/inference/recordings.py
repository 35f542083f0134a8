"""From recordings in any form to samples: paths, file objects, and arrays with their sampling rate."""

from collections.abc import Iterable, Sequence
from io import BytesIO
from math import ceil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile
import torch

from ser_mtl.corpora.audio import read_audio, to_mono_16k
from ser_mtl.corpora.level import at_full_scale
from ser_mtl.errors import UserError, notice

Recording = Any
"""A path, a binary file object, or `(samples, rate)`."""

LONGEST = 2 * 60
"""Seconds of the longest recording that counts as one utterance. Attention needs their square in memory."""
_RATES = (1_000, 768_000)  # hertz
_CHANNELS = 64


def samples_of(recording: Recording, name: str = "the recording", frame: int = 0) -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16. Silence, and less than a frame, get a notice.

    Args:
        recording: a path, a binary file object, or `(samples, rate)`. Samples are an array, a list or a tensor of shape
            (n,), (1, n), (n, 1), (n, channels) or (channels, n); integers by the range of their type, floats within
            -1..1; one in a thousand may be beyond and is clipped, with a warning. Integers of 64 bits, and small ones
            in 32 bits, have no range that is known, and are refused.
        name: how messages call a recording that has no name of its own.
        frame: samples at 16 kHz that a model hears at once.

    Raises:
        UserError: it cannot be read, has another form, or is too long to be one utterance.
    """
    if isinstance(recording, str | Path):
        name = str(recording)
        samples, rate = read_audio(recording)
    elif hasattr(recording, "read"):
        name = str(getattr(recording, "name", name))
        samples, rate = read_audio(_in_memory(recording, name))
    elif isinstance(recording, tuple) and len(recording) == 2:
        try:
            samples, rate = _checked(*recording)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        samples = at_full_scale(samples, name).astype(np.float32, copy=False)
    else:
        raise UserError(f"{name}: must be a path, a binary file or (samples, rate), not {type(recording).__name__}")
    if len(samples) > LONGEST * rate:
        seconds = ceil(10 * len(samples) / rate) / 10  # rounded, 120.01 would be at most 120
        raise UserError(
            f"{name}: {seconds} seconds long; the model takes single utterances, of {LONGEST} seconds at most: cut it"
        )
    mono = to_mono_16k(samples, rate)
    if not mono.any():
        notice(f"{name}: is silent throughout: its answer says nothing about a speaker")
    elif len(mono) < frame:
        notice(f"{name}: {len(mono)} samples at 16 kHz are less than one frame ({frame}): its answer says nothing")
    return mono


def _in_memory(file: BinaryIO, name: str) -> BytesIO:
    """The rest of a file: libsndfile needs to seek, which pipes and downloads cannot."""
    try:
        content = file.read()
    except UnicodeDecodeError:
        content = None
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise UserError(f"{name}: cannot be read ({error})") from error
    if not isinstance(content, bytes):
        raise UserError(f"{name}: is open as text; open it in binary mode, 'rb'")
    memory = BytesIO(content)
    memory.name = name
    return memory


def _checked(samples: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Samples as finite floats, (samples, channels), and their rate as an integer."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not float(rate).is_integer():
        raise UserError(f"sampling rate {rate!r}: must be a whole number of hertz")
    if not _RATES[0] <= rate <= _RATES[1]:
        raise UserError(f"sampling rate {rate}: must be from {_RATES[0]} to {_RATES[1]} hertz")
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples  # NumPy has no bfloat16
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError) as error:  # a ragged list; a tensor type that numpy does not have
        raise UserError(f"samples: cannot be read as an array ({' '.join(str(error).split())})") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise UserError(f"samples of shape {array.shape}: must be (n,), (n, channels) or (channels, n), and not empty")
    if isinstance(samples, Sequence) and array.dtype == np.int64:
        raise UserError("a list of integers has no range; give floats, or an array with a type such as int16")
    channels_last = array.reshape(len(array), -1)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        channels_last = array.T
    if channels_last.shape[1] > _CHANNELS:
        raise UserError(f"samples of shape {array.shape}: must be one recording, of at most {_CHANNELS} channels")
    return _as_floats(channels_last), int(rate)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        _check_range(samples, info.bits)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) / 2
        scale = float(info.max) + 1 - middle
        return ((samples.astype(np.float64) - middle) / scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise UserError(f"samples of type {samples.dtype}: must be integers or floats")
    if not np.isfinite(samples).all():
        raise UserError("samples: hold values that are not numbers (NaN or infinite)")
    return samples


def _check_range(samples: np.ndarray, bits: int) -> None:
    """Refuse integers that were cast to a wider type, whose range would make silence of them."""
    peak = max(abs(int(samples.min())), abs(int(samples.max())))
    if bits == 64 or (bits == 32 and 0 < peak <= (2**15 if samples.dtype.kind == "i" else 2**16)):
        raise UserError(
            f"samples of type {samples.dtype} up to {peak}: their range is not that of the type; cast them back to "
            "the type they were recorded in, such as int16, or give floats within -1..1"
        )


def audio_files(paths: Iterable[Path]) -> list[Path]:
    """The files among `paths`, and all audio files below the folders among them, sorted.

    Raises:
        UserError: there is none.
    """
    suffixes = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
    suffixes |= {".aif", ".aifc", ".opus", ".oga"}
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
        else:
            files.append(path)
    if not files:
        raise UserError(f"{', '.join(map(str, paths))}: no audio file there")
    return files
