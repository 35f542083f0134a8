"""From recordings in any form to samples: mono, 16 kHz, 16 bit; and long ones in windows.

This file travels to the Hub beside the method and needs nothing else of this project. It needs numpy; soundfile to read
files; torchaudio or scipy to resample. What a user can get wrong is a ValueError, in one line.
"""

import warnings
from collections.abc import Callable, Sequence
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SAMPLING_RATE = 16_000
RATES = (1_000, 768_000)
"""Hertz: the sampling rates that are read. Anything else is a damaged header, or no speech."""

LONGEST = 120 * SAMPLING_RATE
"""Samples of the longest recording that is one utterance. Attention needs their square in memory."""
WINDOW = 30 * SAMPLING_RATE
"""Samples of a window of a longer one, at most: about the longest utterance of the corpora that models learn from."""
_FRAME = SAMPLING_RATE // 50  # samples whose loudness is looked at together
_PAUSE = 10  # frames of a pause

OVERSHOOT = 1.5
"""What lossy formats and loud mixes reach in a file, whose scale is known. The scale of an array is not."""
_ROUNDING = 1e-3  # of scales such as 1 / 32767, and of filters
_FEW = 1e-3  # share of the samples
_CHANNELS = 64
_LARGEST_FILE = 2**30  # bytes of a file object
_LARGEST_TERM = 1000
"""torchaudio's filters take memory with the product of both terms: 11.025 kHz is 441 to 640, 44,101 Hz has none."""

Recording = Any
"""A path, a binary file object, `(samples, rate)`, or a dict of `array` or `raw` and `sampling_rate`."""


def samples_of(
    recording: Recording,
    name: str = "the recording",
    read: Callable | None = None,
    category: type[Warning] = UserWarning,
) -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16.

    Args:
        recording: a path, a binary file object, or `(samples, rate)`. Samples are an array, a list or a tensor of shape
            (n,), (1, n), (n, 1), (n, channels) or (channels, n); integers by the range of their type, floats within
            -1..1; one in a thousand may be beyond and is clipped, with a warning.
        name: how messages call a recording that has no name of its own.
        read: as `read_file`, which is the default.
        category: of the warning.

    Raises:
        ValueError: it cannot be read, or has another form.
    """
    read = read or read_file
    if isinstance(recording, dict) and "sampling_rate" in recording and {"array", "raw"} & recording.keys():
        recording = (recording["array" if "array" in recording else "raw"], recording["sampling_rate"])
    if isinstance(recording, str | Path):
        samples, rate = read(recording)
    elif hasattr(recording, "read"):
        samples, rate = read(_in_memory(recording, str(getattr(recording, "name", name))))
    elif isinstance(recording, tuple) and len(recording) == 2:
        try:
            samples, rate = _checked(*recording)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        samples = at_full_scale(samples, name, category=category).astype(np.float32, copy=False)
    else:
        raise ValueError(f"{name}: must be a path, a binary file or (samples, rate), not {type(recording).__name__}")
    return to_mono_16k(samples, rate)


def windows(samples: np.ndarray, longest: int | None = None) -> list[np.ndarray]:
    """Cut a recording that is no single utterance, (samples,), into windows of `WINDOW` at most, in pauses.

    Each cut is in the middle of the quietest fifth of a second in the second half of what a window may hold.

    Args:
        samples: at 16 kHz.
        longest: samples of the longest recording that is one utterance, if that is less than `LONGEST`.
    """
    cuts, longest = [0], min(LONGEST, longest or LONGEST)
    while len(samples) > longest and len(samples) - cuts[-1] > WINDOW:
        first = cuts[-1] + WINDOW // 2
        last = min(cuts[-1] + WINDOW, len(samples) - SAMPLING_RATE)  # what is left is no splinter
        part = samples[first : first + (last - first) // _FRAME * _FRAME].astype(np.float32)
        loudness = np.abs(part).reshape(-1, _FRAME).sum(axis=1)
        quietest = np.convolve(loudness, np.ones(_PAUSE), mode="valid").argmin()
        cuts.append(first + (int(quietest) + _PAUSE // 2) * _FRAME)
    return np.split(samples, cuts[1:])


def waveforms(utterances: list[np.ndarray], feature_extractor: Callable) -> dict:
    """Pad waveforms at 16 kHz, (samples,) each, to `input_values` and `attention_mask`, (batch, longest) each."""
    batch = feature_extractor(
        [as_floats(samples) for samples in utterances],
        sampling_rate=SAMPLING_RATE,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(batch)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Convert samples, int16 or floats from -1 to 1, to float32 from -1 to 1."""
    samples = np.asarray(samples)
    return samples.astype(np.float32) / (32768 if samples.dtype.kind == "i" else 1)


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """Average the channels, resample to 16 kHz and quantise to 16 bits.

    Args:
        samples: from -1 to 1, (samples, channels) float32; what mixing and resampling put beyond is clipped.
        rate: their sampling rate in hertz.

    Returns:
        (samples at 16 kHz,) int16.

    Raises:
        ValueError: a rate outside `RATES`, or nothing to resample with.
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
        try:
            import torch
            from torchaudio.functional import resample

            return resample(torch.from_numpy(mono), down, up).numpy()
        except (ImportError, OSError):  # OSError: a torchaudio that was built for another torch
            pass
    try:
        from scipy.signal import resample_poly
    except ImportError as error:
        raise ValueError(f"sampling rate {rate}: resampling needs scipy; pip install scipy") from error
    return resample_poly(mono, up, down)


def check_rate(rate: int, name: str = "") -> None:
    """Check that a sampling rate in hertz is one of audio.

    Raises:
        ValueError: it is outside `RATES`; the message begins with `name`.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise ValueError(f"{name}sampling rate {rate}: must be from {RATES[0]} to {RATES[1]} hertz; export it again")


def at_full_scale(
    samples: np.ndarray, name: str, overshoot: float = 1.0, category: type[Warning] = UserWarning
) -> np.ndarray:
    """Clip samples beyond -1..1, with a warning that counts them, unless they show another scale.

    Before anything is computed: a resampler would spread one wild sample over its neighbours.

    Args:
        samples: finite floats, of any shape.
        name: what the message begins with.
        overshoot: what any number of samples may reach; a few, one in a thousand, may reach anything.
        category: of the warning.

    Returns:
        The samples, clipped if there are any beyond.

    Raises:
        ValueError: names the peak, if more samples are beyond `overshoot`: their scale is another one, such as that of
            16-bit integers.
    """
    sizes = np.abs(samples)
    over = int((sizes > 1 + _ROUNDING).sum())
    if over == 0:
        return samples
    if (sizes > overshoot + _ROUNDING).mean() > _FEW:
        raise ValueError(
            f"{name}: samples up to {sizes.max():g}; floats must be within -1 and 1; divide or clip them (the full "
            "scale of 16-bit integers is 32768)"
        )
    line = f"{name}: {over} of {samples.size} samples are beyond -1..1 (peak {sizes.max():.2f}) and were clipped"
    warnings.warn(line, category, stacklevel=3)
    return samples.clip(-1, 1)


def read_file(file: str | Path | BinaryIO) -> tuple[np.ndarray, int]:
    """Samples of a file from -1 to 1, (samples, channels) float32, and its sampling rate in hertz.

    Raises:
        ValueError: it cannot be read, or soundfile is not installed.
    """
    name = getattr(file, "name", "the audio") if hasattr(file, "read") else file
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without its library
        raise ValueError(f"{name}: reading files needs soundfile; pip install soundfile") from error
    try:
        samples, rate = soundfile.read(file, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error
    if samples.size == 0 or not np.isfinite(samples).all():
        raise ValueError(f"{name}: holds no samples, or NaN or infinite ones; replace or remove it")
    return at_full_scale(samples, str(name), OVERSHOOT), rate


def _in_memory(file: BinaryIO, name: str) -> BytesIO:
    """The rest of a file: libsndfile needs to seek, which pipes and downloads cannot."""
    content: object
    try:
        content = file.read(_LARGEST_FILE + 1)
    except UnicodeDecodeError:
        content = None
    except (OSError, ValueError) as error:  # closed, or open for writing
        raise ValueError(f"{name}: cannot be read ({error})") from error
    if not isinstance(content, bytes):
        raise ValueError(f"{name}: is open as text; open it in binary mode, 'rb'")
    if len(content) > _LARGEST_FILE:
        raise ValueError(f"{name}: holds more than {_LARGEST_FILE} bytes, or never ends; cut it")
    memory = BytesIO(content)
    memory.name = name
    return memory


def _checked(samples: Any, rate: Any) -> tuple[np.ndarray, int]:
    """Samples as finite floats, (samples, channels), and their rate as an integer."""
    if isinstance(rate, bool) or not isinstance(rate, int | float | np.number) or not float(rate).is_integer():
        raise ValueError(f"sampling rate {rate!r}: must be a whole number of hertz")
    check_rate(int(rate))
    if hasattr(samples, "detach"):  # a tensor
        samples = samples.detach().cpu()
        samples = samples.float() if samples.is_floating_point() else samples  # NumPy has no bfloat16
    try:
        array = np.asarray(samples)
    except (TypeError, ValueError) as error:  # a ragged list; a tensor type that numpy does not have
        raise ValueError(f"samples: cannot be read as an array ({' '.join(str(error).split())})") from error
    if array.ndim not in (1, 2) or array.size == 0:
        raise ValueError(f"samples of shape {array.shape}: must be (n,), (n, channels) or (channels, n), and not empty")
    if isinstance(samples, Sequence) and array.dtype == np.int64:
        raise ValueError("a list of integers has no range; give floats, or an array with a type such as int16")
    channels_last = array.reshape(len(array), -1)
    if array.ndim == 2 and array.shape[0] < array.shape[1]:
        channels_last = array.T
    if channels_last.shape[1] > _CHANNELS:
        raise ValueError(f"samples of shape {array.shape}: must be one recording, of at most {_CHANNELS} channels")
    return _numbers_as_floats(channels_last), int(rate)


def _numbers_as_floats(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind in "iu":
        info = np.iinfo(samples.dtype)
        _check_range(samples, info.bits)
        middle = 0 if samples.dtype.kind == "i" else (info.max + 1) / 2
        scale = float(info.max) + 1 - middle
        return ((samples.astype(np.float64) - middle) / scale).astype(np.float32)
    if samples.dtype.kind != "f":
        raise ValueError(f"samples of type {samples.dtype}: must be integers or floats")
    if not np.isfinite(samples).all():
        raise ValueError("samples: hold values that are not numbers (NaN or infinite)")
    return samples


def _check_range(samples: np.ndarray, bits: int) -> None:
    """Refuse integers that were cast to a wider type, whose range would make silence of them."""
    peak = max(abs(int(samples.min())), abs(int(samples.max())))
    if bits > 16 and 0 < peak <= 2 ** (bits // 2 - (samples.dtype.kind == "i")):
        raise ValueError(
            f"samples of type {samples.dtype} up to {peak}: their range is not that of the type; cast them back to "
            "the type they were recorded in, such as int16, or give floats within -1..1"
        )
