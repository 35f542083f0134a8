"""From recordings in any form to samples: mono, 16 kHz, 16 bit, as a whole or as a stream of blocks.

This file travels to the Hub beside the method and needs nothing else of this project. It needs numpy; soundfile to read
files; torchaudio or scipy to resample. Mistakes that a user can make are a ValueError of one line.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from io import BytesIO
from itertools import chain, count, takewhile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

SAMPLING_RATE = 16_000
RATES = (1_000, 768_000)
"""The lowest and highest sampling rates that are read, in hertz. Others are damaged headers, or not speech."""

OVERSHOOT = 1.5
"""Peak that lossy formats and loud mixes reach in a file, whose scale is known; an array's scale is not."""
_ROUNDING = 1e-3  # of scales such as 1 / 32767, and of filters
_FEW = 1e-3  # share of the samples
_CHANNELS = 64
_LARGEST_FILE = 2**30  # bytes of a file object
_BLOCK = 2**20  # numbers read at once
_SMALLEST_BLOCK = 2**14  # likewise, even if the header promises fewer
_RESAMPLED = 32  # seconds resampled at once
_LARGEST_TERM = 1000
"""Of a ratio of rates, for torchaudio: its filters take memory with the product of both terms. 11.025 kHz is 441 : 640
of 16 kHz; the ratio of 44,101 Hz cannot be reduced."""

Recording = Any
"""A path, a binary file object, `(samples, rate)`, or a dict of `array` or `raw` and `sampling_rate`."""
Reader = Callable[[str | Path | BinaryIO], Iterator[tuple[np.ndarray, int]]]
"""Reads a file, as `read_blocks` does."""


def samples_of(
    recording: Recording,
    name: str = "the recording",
    read: "Reader | None" = None,
    category: type[Warning] = UserWarning,
) -> np.ndarray:
    """Mono samples at 16 kHz, (samples,) int16: the blocks of `blocks_of`, joined."""
    return np.concatenate(list(blocks_of(recording, name, read, category)))


def blocks_of(
    recording: Recording,
    name: str = "the recording",
    read: "Reader | None" = None,
    category: type[Warning] = UserWarning,
) -> Iterator[np.ndarray]:
    """Mono samples at 16 kHz, (n,) int16 each. A file is read block by block.

    Args:
        recording: a path, a binary file object, or `(samples, rate)`. Samples are an array, a list or a tensor of shape
            (n,), (1, n), (n, 1), (n, channels) or (channels, n); integers by the range of their type, floats within
            -1..1; one in a thousand may be beyond and is clipped, with a warning.
        name: what messages call a recording without a name of its own.
        read: reads files; by default, `read_blocks`.
        category: of the warning.

    Raises:
        ValueError: it cannot be read, or has another form. Damage in a file may show only after its first blocks.
    """
    read = read or read_blocks
    if isinstance(recording, dict) and "sampling_rate" in recording and {"array", "raw"} & recording.keys():
        recording = (recording["array" if "array" in recording else "raw"], recording["sampling_rate"])
    if isinstance(recording, str | Path):
        blocks = read(recording)
    elif hasattr(recording, "read"):
        blocks = read(_in_memory(recording, str(getattr(recording, "name", name))))
    elif isinstance(recording, tuple) and len(recording) == 2:
        try:
            samples, rate = _checked(*recording)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        samples = at_full_scale(samples, name, category=category).astype(np.float32, copy=False)
        blocks = iter([(samples, rate)])
    else:
        raise ValueError(f"{name}: must be a path, a binary file or (samples, rate), not {type(recording).__name__}")
    first, rate = next(blocks)
    yield from mono_16k(chain([first], (block for block, _ in blocks)), rate)


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
    """As `mono_16k`, of a whole recording: (samples, channels) float32 -> (samples at 16 kHz,) int16."""
    return np.concatenate(list(mono_16k([samples], rate)))


def mono_16k(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Average the channels, resample to 16 kHz and quantise to 16 bits. Where blocks end changes no sample.

    Args:
        blocks: samples from -1 to 1, (n, channels) float32 each, in order; resampling may exceed that range, and is
            clipped.
        rate: their sampling rate in hertz.

    Yields:
        (n at 16 kHz,) int16.

    Raises:
        ValueError: a rate outside `RATES`, or nothing to resample with.
    """
    check_rate(rate)
    mono = (block.mean(axis=1) for block in blocks)
    for block in mono if rate == SAMPLING_RATE else _at_16k(mono, rate):
        yield np.rint(block * 32768).clip(-32768, 32767).astype(np.int16)


def _at_16k(blocks: Iterable[np.ndarray], rate: int) -> Iterator[np.ndarray]:
    """Resample half a minute at a time, each with as many samples before and after it as the filter spans.

    Memory and time do not grow with the terms of the ratio of the rates. It is exact up to 100 kHz and for the usual
    rates above; else it is off by one part in 100,000 at most.
    """
    ratio = Fraction(SAMPLING_RATE, rate).limit_denominator(100_000)
    up, down = ratio.numerator, ratio.denominator
    edge = down * -(-(10 * max(up, down) // up + 10) // down)  # each filter is shorter, and no sample is cut in two
    size = down * max(1, _RESAMPLED * rate // down)
    held, before, more = np.zeros(0, np.float32), 0, True
    stream = iter(blocks)
    while more:
        new: list[np.ndarray] = []
        while more and len(held) + sum(map(len, new)) <= before + size + edge:
            block = next(stream, None)
            more = block is not None
            new += [block] if block is not None else []
        held = np.concatenate([held, *new])
        while len(held) > before + size + edge:
            part = _resampled(held[: before + size + edge], up, down)
            yield part[before // down * up : (before + size) // down * up]
            held, before = held[before + size - edge :], edge
    yield _resampled(held, up, down)[before // down * up :]


def _resampled(mono: np.ndarray, up: int, down: int) -> np.ndarray:
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
        raise ValueError(
            f"sampling rate {SAMPLING_RATE * down // up}: resampling needs scipy; pip install scipy"
        ) from error
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
    """As `clipped`, of a whole recording: the samples, clipped if there are any beyond -1..1."""
    (block,) = clipped([samples], name, overshoot, category)
    return block


def clipped(
    blocks: Iterable[np.ndarray],
    name: str,
    overshoot: float = 1.0,
    category: type[Warning] = UserWarning,
    promised: float = 0,
) -> Iterator[np.ndarray]:
    """Clip samples beyond -1..1, with a warning at the end that counts them, unless they show another scale.

    Before anything is computed: a resampler would spread one wild sample over its neighbours.

    Args:
        blocks: finite floats, of any shape.
        name: what the message begins with.
        overshoot: the peak of any number of samples; one in a thousand may be anything.
        category: of the warning.
        promised: the number of samples to come, if it is known: a wrong scale then shows earlier.

    Raises:
        ValueError: more samples are beyond `overshoot`; names the peak. Their scale is another one, such as that of
            16-bit integers.
    """
    over = wild = seen = 0
    peak = 0.0
    for block in blocks:
        sizes = np.abs(block)
        beyond = int((sizes > 1 + _ROUNDING).sum())
        over, seen = over + beyond, seen + block.size
        if beyond:
            wild += int((sizes > overshoot + _ROUNDING).sum())
            peak = max(peak, float(sizes.max()))
            if promised and wild > _FEW * max(promised, seen):
                raise ValueError(_of_another_scale(name, peak))
        yield block.clip(-1, 1) if beyond else block
    if wild > _FEW * seen:
        raise ValueError(_of_another_scale(name, peak))
    if over:
        line = f"{name}: {over} of {seen} samples are beyond -1..1 (peak {peak:.2f}) and were clipped"
        warnings.warn(line, category, stacklevel=3)


def _of_another_scale(name: str, peak: float) -> str:
    return (
        f"{name}: samples up to {peak:g}; floats must be within -1 and 1; divide or clip them (the full scale of "
        "16-bit integers is 32768)"
    )


def read_blocks(file: str | Path | BinaryIO) -> Iterator[tuple[np.ndarray, int]]:
    """Samples of a file from -1 to 1, (n, channels) float32 each, and its sampling rate in hertz with each block.

    Raises:
        ValueError: it cannot be read, or soundfile is not installed.
    """
    name = str(getattr(file, "name", "the audio") if hasattr(file, "read") else file)
    try:
        import soundfile
    except (ImportError, OSError) as error:  # OSError: without its library
        raise ValueError(f"{name}: reading files needs soundfile; pip install soundfile") from error
    try:
        with soundfile.SoundFile(file) as sound:
            if sound.format == "MP3":  # else it starts with other samples than `soundfile.read` gives
                sound.seek(0)  # which some codecs of telephony cannot
            promised = sound.frames * sound.channels
            # For a short file, no more than its header promises: libsndfile would fill the rest with zeros.
            size = max(1, min(_BLOCK, max(_SMALLEST_BLOCK, promised)) // sound.channels)
            blocks = takewhile(len, (sound.read(size, dtype="float32", always_2d=True) for _ in count()))
            for block in clipped(finite(blocks, name), name, OVERSHOOT, promised=promised):
                yield block, sound.samplerate
    except (soundfile.SoundFileError, OSError, TypeError) as error:
        raise ValueError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error


def finite(blocks: Iterable[np.ndarray], name: str) -> Iterator[np.ndarray]:
    """Pass blocks on, and check them.

    Raises:
        ValueError: one holds NaN or infinite samples, or there are none.
    """
    empty = True
    for block in blocks:
        if not np.isfinite(block).all():
            raise ValueError(f"{name}: holds NaN or infinite samples; export it again")
        empty = False
        yield block
    if empty:
        raise ValueError(f"{name}: holds no samples; replace or remove it")


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
    """Refuse integers that were cast to a wider type: by its range they would be silence."""
    peak = max(abs(int(samples.min())), abs(int(samples.max())))
    if bits > 16 and 0 < peak <= 2 ** (bits // 2 - (samples.dtype.kind == "i")):
        raise ValueError(
            f"samples of type {samples.dtype} up to {peak}: their range is not that of the type; cast them back to "
            "the type they were recorded in, such as int16, or give floats within -1..1"
        )
