"""From recordings in any form to samples: paths, file objects, and arrays with their sampling rate."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from ser_mtl.corpora.audio import to_mono_16k
from ser_mtl.corpora.level import at_full_scale
from ser_mtl.corpora.reading import check_rate, read_audio, seconds_over
from ser_mtl.errors import UserError

Recording = Any
"""A path, a binary file object, or `(samples, rate)`."""

LONGEST = 2 * 60
"""Seconds of the longest recording that counts as one utterance. Attention needs their square in memory."""
_LARGEST = 2**30  # bytes of a file object
_TOO_LONG = "{name}: {seconds} seconds long; the model takes single utterances, of {limit} seconds at most: cut it"


def samples_of(recording: Recording, name: str = "the recording") -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16.

    Args:
        recording: a path, a binary file object, or `(samples, rate)`. Samples are an array, a list or a tensor of shape
            (n,), (1, n), (n, 1), (n, channels) or (channels, n); integers by the range of their type, floats within
            -1..1; one in a thousand may be beyond and is clipped, with a warning.
        name: how messages call a recording that has no name of its own.

    Raises:
        UserError: it cannot be read, has another form, or is too long to be one utterance.
    """
    if isinstance(recording, str | Path):
        name = str(recording)
        samples, rate = read_audio(recording, LONGEST, _TOO_LONG)
    elif hasattr(recording, "read"):
        name = str(getattr(recording, "name", name))
        samples, rate = read_audio(_in_memory(recording, name), LONGEST, _TOO_LONG)
    elif isinstance(recording, tuple) and len(recording) == 2:
        try:
            samples, rate = _checked(*recording)
        except UserError as error:
            raise UserError(f"{name}: {error}") from error
        samples = at_full_scale(samples, name).astype(np.float32, copy=False)
    else:
        raise UserError(f"{name}: must be a path, a binary file or (samples, rate), not {type(recording).__name__}")
    if len(samples) > LONGEST * rate:
        raise UserError(_TOO_LONG.format(name=name, seconds=seconds_over(len(samples) / rate, LONGEST), limit=LONGEST))
    return to_mono_16k(samples, rate)


def _in_memory(file: BinaryIO, name: str) -> BytesIO:
    """The rest of a file: libsndfile needs to seek, which pipes and downloads cannot."""
    content: object
    try:
        content = file.read(_LARGEST + 1)
    except UnicodeDecodeError:
        content = None
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise UserError(f"{name}: cannot be read ({error})") from error
    if not isinstance(content, bytes):
        raise UserError(f"{name}: is open as text; open it in binary mode, 'rb'")
    if len(content) > _LARGEST:
        raise UserError(f"{name}: holds more than {_LARGEST} bytes, or never ends; cut it")
    memory = BytesIO(content)
    memory.name = name
    return memory


def _checked(samples: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Samples as finite floats, (samples, channels), and their rate as an integer."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not float(rate).is_integer():
        raise UserError(f"sampling rate {rate!r}: must be a whole number of hertz")
    check_rate(int(rate))
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
    return _as_floats(channels_last), int(rate)


def _as_floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) / 2
        scale = float(info.max) + 1 - middle
        return ((samples.astype(np.float64) - middle) / scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise UserError(f"samples of type {samples.dtype}: must be integers or floats")
    if not np.isfinite(samples).all():
        raise UserError("samples: hold values that are not numbers (NaN or infinite)")
    return samples
