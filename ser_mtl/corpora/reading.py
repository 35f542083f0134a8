"""Audio files to samples at their own rate, whatever their headers say."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from ser_mtl.corpora.level import OVERSHOOT, at_full_scale
from ser_mtl.errors import UserError

RATES = (1_000, 768_000)
"""Hertz: the sampling rates that are read. Anything else is a damaged header, or no speech."""

MAX_SECONDS = 60.0
"""Longest utterance of a corpus by default. Attention needs memory with the square of its length."""

SHORT = 0.1
"""Seconds below which a clip holds hardly a sound of speech."""

_BLOCK = 2**20  # numbers read at once
_CUT = 0.1  # seconds that may be missing at the end: some encoders round up
_STREAMED = 2**31 - 2**20  # bytes; programs that write a wav file to a pipe promise this or more
_UNKNOWN = 2**62  # libsndfile's length of a FLAC that was written to a pipe is above it


class _Sequential(soundfile.SoundFile):
    """A file read from its start to its end. Seeking fails if its header is wrong about the length or does not say."""

    def seekable(self) -> bool:
        return False


def read_audio(file: str | Path | BinaryIO, max_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Read an audio file at its own sampling rate. Memory is bounded by `max_seconds`, whatever the header says.

    Args:
        file: a path or a binary file object.
        max_seconds: refuse longer audio; None for any length.

    Returns:
        Samples from -1 to 1, (samples, channels) float32, and the sampling rate in hertz.

    Raises:
        UserError: the file is missing, unreadable, empty, too long or cut off, has a sampling rate outside `RATES`, or
            holds samples that are NaN, infinite or far beyond 1.
    """
    name = getattr(file, "name", "the audio") if hasattr(file, "read") else file
    try:
        with _Sequential(file) as sound:
            rate, promised = sound.samplerate, _promised(sound)
            check_rate(rate, f"{name}: ")
            most = None if max_seconds is None else int(max_seconds * rate)
            samples = np.concatenate([np.zeros((0, sound.channels), np.float32), *_blocks(sound, most)])
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: headerless audio (.raw)
        if isinstance(file, str | Path) and not Path(file).exists():
            raise UserError(f"{name}: no such file") from error
        raise UserError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error
    if len(samples) == 0:
        raise UserError(f"{name}: holds no samples; replace or remove it")
    if most is not None and len(samples) > most:
        lasts = f"{promised / rate:.1f}" if most < promised < _UNKNOWN else f"more than {max_seconds:g}"
        raise UserError(f"{name}: lasts {lasts} seconds, longer than --max_seconds {max_seconds:g}; cut it")
    if len(samples) + _CUT * rate < promised < _UNKNOWN:
        held, said = len(samples) / rate, promised / rate
        raise UserError(f"{name}: is cut off: {held:.1f} of the {said:.1f} seconds in its header; replace or remove it")
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: holds NaN or infinite samples; export it again")
    return at_full_scale(samples, str(name), OVERSHOOT), rate


def _promised(sound: soundfile.SoundFile) -> float:
    """The samples that the header promises; `_UNKNOWN` if it does not hold the length.

    libsndfile takes the length of a wav or aiff file from its size if that is less, and notes both in its log.
    """
    if sound.format == "MP3":
        return _UNKNOWN
    note = re.search(r"(?:data|SSND) : (\d+) \(should be (\d+)\)", sound.extra_info)
    said, found = map(int, note.groups()) if note else (1, 1)
    return _UNKNOWN if said >= _STREAMED else sound.frames * said / max(1, found)


def _blocks(sound: soundfile.SoundFile, most: int | None) -> Iterator[np.ndarray]:
    """The samples of a file, block by block; at most one block more than `most`."""
    size, held = max(1, _BLOCK // sound.channels), 0
    sound.seek(0)  # an MP3 starts otherwise with a few other samples than `soundfile.read` gives
    while most is None or held <= most:
        block = sound.read(size, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        held += len(block)
        yield block


def check_rate(rate: int, name: str = "") -> None:
    """Check that a sampling rate in hertz is one of audio.

    Raises:
        UserError: it is outside `RATES`; the message begins with `name`.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{name}sampling rate {rate}: must be from {RATES[0]} to {RATES[1]} hertz; export it again")


def seconds_of(path: str | Path) -> float:
    """Length of an audio file in seconds, by its header if it says so; NaN if the file cannot be used."""
    try:
        with _Sequential(path) as sound:
            check_rate(sound.samplerate)
            frames = sound.frames if sound.frames < _UNKNOWN else sum(map(len, _blocks(sound, None)))
            return frames / sound.samplerate if frames else float("nan")
    except (soundfile.SoundFileError, OSError, TypeError, UserError):  # TypeError: headerless audio (.raw)
        return float("nan")
