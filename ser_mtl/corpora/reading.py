"""Audio files to samples at their own rate; headers are not trusted."""

import re
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soundfile

import recordings_ser_mtl
from recordings_ser_mtl import OVERSHOOT
from ser_mtl.corpora import ffmpeg
from ser_mtl.corpora.headers import check_whole
from ser_mtl.corpora.level import at_full_scale, clipped
from ser_mtl.errors import UserError, user_errors

MAX_SECONDS = 60.0
"""Longest utterance of a corpus by default. Attention needs memory with the square of its length."""

SHORT = 0.1
"""Seconds below which a clip hardly holds a sound of speech."""

TOO_LONG = "{name}: lasts {seconds} seconds, longer than --max_seconds {limit:g}; cut it"

_LARGEST = 2**27  # numbers in a file: half a gigabyte, and copies of it
_LONGEST = 24 * 3600  # seconds of a recording that is read block by block
_BLOCK = 2**20  # numbers read at once
_SMALLEST_BLOCK = 2**14  # likewise, even if the header promises fewer
_LENGTH = 600  # seconds that ffmpeg decodes, at most, to find the length of a file
_CUT = 0.1  # seconds that may be missing at the end: some encoders round up
_STREAMED = 2**31 - 2**20  # bytes; programs that write a wav file to a pipe promise this or more
_NO_FRAME = 7  # libsndfile's code for a file without an MP3 frame; its text is "File does not exist"
_UNKNOWN = 2**62  # lengths above it are unknown, such as that of a FLAC that was written to a pipe


class _Sequential(soundfile.SoundFile):
    """A file that is read from start to end: seeking fails if its header has a wrong length or none."""

    def seekable(self) -> bool:
        return False


def read_audio(
    file: str | Path | BinaryIO, max_seconds: float | None = None, too_long: str = TOO_LONG
) -> tuple[np.ndarray, int]:
    """Read an audio file at its own sampling rate. Memory and time are bounded, whatever the header says.

    Args:
        file: a path or a binary file object.
        max_seconds: refuse longer audio; None for any length.
        too_long: the message for longer audio, with the fields of `TOO_LONG`.

    Returns:
        Samples from -1 to 1, (samples, channels) float32, and the sampling rate in hertz.

    Raises:
        UserError: the file is missing, unreadable, empty, too long or cut off, has a sampling rate outside `RATES`, or
            holds samples that are NaN, infinite or far beyond 1.
    """
    name = _name(file)
    with _opened(file, name, max_seconds) as sound:
        rate, promised = sound.samplerate, _promised(sound)
        check_rate(rate, f"{name}: ")
        room = _LARGEST // sound.channels
        most = room if max_seconds is None else min(room, int(max_seconds * rate))
        samples = np.concatenate([np.zeros((0, sound.channels), np.float32), *_blocks(sound, most)])
    if len(samples) == 0:
        raise UserError(f"{name}: holds no samples; replace or remove it")
    if len(samples) > most and most == room:
        raise UserError(f"{name}: holds more than {_LARGEST} numbers; cut it, or convert it to mono at 16 kHz")
    if max_seconds is not None and len(samples) > most:
        known = most < promised < _UNKNOWN
        lasts = seconds_over(promised / rate, max_seconds) if known else f"more than {max_seconds:g}"
        raise UserError(too_long.format(name=name, seconds=lasts, limit=max_seconds))
    _check_end(len(samples), promised, rate, name)
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: holds NaN or infinite samples; export it again")
    return at_full_scale(samples, name, OVERSHOOT), rate


def audio_blocks(file: str | Path | BinaryIO) -> Iterator[tuple[np.ndarray, int]]:
    """The samples that `read_audio` gives, block by block, each with the sampling rate; of a file of any length.

    Raises:
        UserError: as `read_audio`; or the audio lasts longer than a day.
    """
    name = _name(file)
    with ExitStack() as stack:
        source = stack.enter_context(_source(file, name))
        sound = _by_libsndfile(source, file, name)
        if sound is None:
            rate, blocks = stack.enter_context(ffmpeg.streamed(source, name))
            promised, channels = float(_UNKNOWN), 1
        else:
            stack.enter_context(sound)
            rate, blocks, promised, channels = sound.samplerate, _blocks(sound, None), _promised(sound), sound.channels
        check_rate(rate, f"{name}: ")
        held = 0
        for block in clipped(blocks, name, OVERSHOOT, promised * channels):
            held += len(block)
            if held > _LONGEST * rate:
                raise UserError(f"{name}: lasts longer than {_LONGEST // 3600} hours; cut it")
            yield block, rate
        _check_end(held, promised, rate, name)


def _name(file: str | Path | BinaryIO) -> str:
    return str(getattr(file, "name", "the audio") if hasattr(file, "read") else file)


def _check_end(held: int, promised: float, rate: int, name: str) -> None:
    if held + _CUT * rate < promised < _UNKNOWN:
        raise UserError(
            f"{name}: is cut off: {held / rate:.1f} of the {promised / rate:.1f} seconds in its header; replace or "
            "remove it"
        )


def seconds_over(seconds: float, limit: float) -> str:
    """The length with as many decimals as it takes to exceed the limit: not "60.0, longer than 60" for 60.004."""
    rounded = (f"{seconds:.{decimals}f}" for decimals in range(1, 17))
    return next((text for text in rounded if float(text) > limit), str(seconds))


@contextmanager
def _opened(file: str | Path | BinaryIO, name: str, max_seconds: float | None) -> Iterator[_Sequential]:
    """Open an audio file, through ffmpeg if libsndfile does not know its format.

    Raises:
        UserError: in the block too, if it cannot be read.
    """
    with _source(file, name) as source:
        sound = _by_libsndfile(source, file, name)
        if sound is None:
            seconds = _LARGEST if max_seconds is None else max_seconds + 1
            sound = _Sequential(ffmpeg.decoded(source, name, seconds, 4 * _LARGEST + _BLOCK))
        with sound:
            yield sound


@contextmanager
def _source(file: str | Path | BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Open a file, after checking that it is whole.

    Raises:
        UserError: in the block too, if it cannot be read.
    """
    try:
        with ExitStack() as stack:
            source: Any = file if not isinstance(file, str | Path) else stack.enter_context(_regular_file(file))
            if isinstance(source, BytesIO) and not source.getbuffer().nbytes:
                raise UserError(f"{name}: cannot be read as audio: it is empty; replace or remove it")
            check_whole(source, name)
            yield source
    except (soundfile.SoundFileError, OSError, TypeError) as error:  # TypeError: headerless audio (.raw)
        raise UserError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error


def _by_libsndfile(source: BinaryIO, file: str | Path | BinaryIO, name: str) -> _Sequential | None:
    """The file, open; None if ffmpeg has to read it.

    Raises:
        UserError: neither knows its format.
    """
    try:
        # For a path, the descriptor: libsndfile then reads it without calling Python.
        return _Sequential(source if source is file else source.fileno(), closefd=False)
    except soundfile.LibsndfileError as error:
        if not ffmpeg.installed():
            raise UserError(_not_read(name, error)) from error
        return None


def _regular_file(path: str | Path) -> FileIO:
    """Open a regular file with a name in UTF-8, unbuffered: its descriptor is at the position of the object.

    Raises:
        UserError: it is a folder, a pipe or a device, empty, or cannot be opened.
    """
    try:
        str(path).encode()
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):  # reading might never end
            why = "it is a folder" if stat.S_ISDIR(status.st_mode) else "it is a pipe or a device; save it as a file"
        elif status.st_size == 0:
            why = "it is empty; replace or remove it"
        else:
            return FileIO(path)
    except UnicodeEncodeError:  # answers and tables are UTF-8
        why = "its name is not UTF-8; rename it"
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a zero in the name
        why = getattr(error, "strerror", None) or str(error)
    raise UserError(f"{path}: cannot be read as audio: {why}")


def _not_read(name: str, error: soundfile.LibsndfileError) -> str:
    """Why a file is not read where ffmpeg is not installed."""
    if ffmpeg.reads(name):
        convert = ffmpeg.convert(name)
        return f"{name}: needs ffmpeg, which is not installed; install it, or convert the file where it is: {convert}"
    reason = "no MP3 frame" if error.code == _NO_FRAME else error.error_string.rstrip(".")
    return f"{name}: cannot be read as audio ({reason}); replace or remove it"


def _promised(sound: soundfile.SoundFile) -> float:
    """The number of samples that the header promises; `_UNKNOWN` if it does not hold the length.

    If a wav, aiff or au file is smaller than its header says, libsndfile takes the length from the file's size, and
    logs both. It only guesses the length of an MP3 file, see `ser_mtl.corpora.headers`.
    """
    if sound.format == "MP3":
        return _UNKNOWN
    note = re.search(r"(?:data|Data Size|SSND|BODY|riff|Riff size) *: (\d+) \(should be (\d+)\)", sound.extra_info)
    said, found = map(int, note.groups()) if note else (1, 1)
    return _UNKNOWN if said >= _STREAMED else sound.frames * said / max(1, found)


def _blocks(sound: soundfile.SoundFile, most: int | None) -> Iterator[np.ndarray]:
    """The samples of a file, block by block; at most one block more than `most`."""
    # For a short file, no more than its header promises: libsndfile would fill the rest with zeros.
    size, held = max(1, min(_BLOCK, max(_SMALLEST_BLOCK, sound.frames * sound.channels)) // sound.channels), 0
    if sound.format == "MP3":  # else it starts with other samples than `soundfile.read` gives
        sound.seek(0)  # which some codecs of telephony cannot
    while most is None or held <= most:
        block = sound.read(size, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        held += len(block)
        yield block


def check_rate(rate: int, name: str = "") -> None:
    """As in `recordings_ser_mtl`.

    Raises:
        UserError: it is outside `RATES`; the message begins with `name`.
    """
    with user_errors():
        recordings_ser_mtl.check_rate(rate, name)


def seconds_of(path: str | Path) -> float:
    """Length of an audio file in seconds, from its header if possible; NaN if the file cannot be used."""
    try:
        with _opened(path, str(path), _LENGTH) as sound:
            check_rate(sound.samplerate)
            frames = sound.frames if sound.frames < _UNKNOWN else sum(map(len, _blocks(sound, None)))
            return frames / sound.samplerate if frames else float("nan")
    except UserError:
        return float("nan")
