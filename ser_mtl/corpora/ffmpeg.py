"""Formats that libsndfile does not read, such as m4a: decoded by the program ffmpeg, where it is installed."""

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO, FileIO
from itertools import chain
from pathlib import PurePath
from shlex import quote
from tempfile import TemporaryFile
from threading import Event, Timer
from typing import IO, BinaryIO, NamedTuple

import numpy as np

from ser_mtl.errors import UserError, some_of

_SUFFIXES = {
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".ac3", ".eac3", ".amr", ".ape", ".awb", ".mka",
    ".mkv", ".webm", ".weba", ".wma", ".wv",
}  # fmt: skip
# Neither playlists nor protocols: they would make ffmpeg read other files, or the network.
_SAFE = ("-protocol_whitelist", "file", "-format_whitelist",
         "aac,ac3,amr,amrnb,amrwb,ape,asf,eac3,matroska,mov,nistsphere,wv")  # fmt: skip
_SECONDS = 120  # limit for one file, or for a block of a streamed one

_BLOCK = 2**22  # bytes decoded at once
_PLACES = re.compile(r"^\[[^]]*\]\s*|(^| )file:/dev/fd/\d+(: )?")  # in ffmpeg's messages; they differ between calls
_LARGEST_CHUNK = 2**20  # bytes of a part of a header, and of ffmpeg's messages
_STREAMED = 2**31 - 2**20  # bytes; a wav file in a pipe promises this or more
_EXTENSIBLE = 0xFFFE  # form of a wav file whose samples are described further down
_TYPES = {(1, 16): "<i2", (3, 32): "<f4"}
_AS_WAV = ("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1")


def installed() -> bool:
    """Whether ffmpeg is installed."""
    return shutil.which("ffmpeg") is not None


def reads(name: str) -> bool:
    """Whether a file needs ffmpeg, by its name."""
    return PurePath(name).suffix.lower() in _SUFFIXES


def version() -> str:
    """The first line of `ffmpeg -version`; empty if it is not installed."""
    if not installed():
        return ""
    said = subprocess.run(["ffmpeg", "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
    return said.stdout.decode(errors="replace").partition("\n")[0]


def needed(names: list[str]) -> str:
    """A line on the files that need ffmpeg, for machines without it."""
    return (
        f"{len(names)} audio files need ffmpeg, which is not installed: {some_of(names)}; install it, or convert each "
        f"where it is: {convert(names[0])}"
    )


def convert(name: str) -> str:
    """A command that converts a file."""
    return f"ffmpeg -i {quote(name)} {quote(f'{name}.wav')}"


def decoded(file: BinaryIO, name: str, seconds: float, size: int) -> BytesIO:
    """The first audio stream of a file as a wav file of floats, at its own rate and channels.

    Args:
        file: open, of any format.
        name: what messages begin with.
        seconds: at most, of its audio.
        size: at most, of the result, in bytes.

    Raises:
        UserError: ffmpeg cannot decode it, or takes too long.
    """
    with _command(file, "-t", f"{seconds:.3f}", "-fs", str(size)) as (command, number):
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, pass_fds=[number]
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(_too_slow(name)) from error
    _check_ended(bool(ended.returncode) or not ended.stdout, ended.returncode, ended.stderr, name)
    return BytesIO(ended.stdout)


@contextmanager
def streamed(file: BinaryIO, name: str) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Decode the first audio stream of a file block by block: its rate in hertz, and its samples.

    A block is (n, channels) float32, and no more than one is in memory.

    Args:
        file: open, of any format.
        name: what messages begin with.

    Raises:
        UserError: in the block too: ffmpeg cannot decode it, or hangs.
    """
    with _command(file) as (command, number), TemporaryFile() as said:
        flags: dict = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": said, "pass_fds": [number]}
        with subprocess.Popen(command, **flags) as process:
            try:
                head = _head(process, name)
                if head is None:
                    return _check_end(process, said, name, nothing=True)  # which raises
                yield head.rate, chain(_blocks(process, name, head), _at_end(process, said, name))
            finally:
                process.kill()


class _Head(NamedTuple):
    rate: int
    channels: int
    dtype: str
    size: int  # of the data, in bytes


def _head(process: subprocess.Popen, name: str) -> _Head | None:
    """The header of the wav file on standard output, read up to its data; None if it is not a wav file."""
    head, form = None, _read(process, 12, name)
    while form[:4] == b"RIFF" and len(chunk := _read(process, 8, name)) == 8:
        size = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"data":
            return head and head._replace(size=size if size < _STREAMED else sys.maxsize)
        if size > _LARGEST_CHUNK:
            return None
        content = _read(process, size + size % 2, name)
        if chunk[:4] == b"fmt " and size >= 16:
            tag, channels, rate, _, _, bits = struct.unpack("<HHIIHH", content[:16])
            tag = int.from_bytes(content[24:26], "little") if tag == _EXTENSIBLE else tag
            if (tag, bits) in _TYPES and channels:
                head = _Head(rate, channels, _TYPES[tag, bits], 0)
    return None


def _blocks(process: subprocess.Popen, name: str, head: _Head) -> Iterator[np.ndarray]:
    left, frame = head.size, np.dtype(head.dtype).itemsize * head.channels
    while data := _read(process, min(left, max(1, _BLOCK // frame) * frame), name):
        left -= len(data)
        values = np.frombuffer(data[: len(data) // frame * frame], head.dtype).reshape(-1, head.channels)
        yield values.astype(np.float32) / (32768 if values.dtype.kind == "i" else 1)


def _read(process: subprocess.Popen, size: int, name: str) -> bytes:
    """Read `size` bytes of standard output, or fewer at its end.

    Raises:
        UserError: they do not come in time.
    """
    late = Event()

    def give_up() -> None:
        late.set()
        process.kill()

    timer = Timer(_SECONDS, give_up)
    timer.start()
    try:
        data = _output(process).read(size)
    finally:
        timer.cancel()
    if late.is_set():
        raise UserError(_too_slow(name))
    return data


def _at_end(process: subprocess.Popen, said: IO[bytes], name: str) -> Iterator[np.ndarray]:
    """Yield nothing, but check how the program ended."""
    _check_end(process, said, name)
    yield from ()


def _output(process: subprocess.Popen) -> IO[bytes]:
    assert process.stdout is not None  # it is a pipe
    return process.stdout


def _check_end(process: subprocess.Popen, said: IO[bytes], name: str, nothing: bool = False) -> None:
    _output(process).close()
    code = process.wait(_SECONDS)
    said.seek(0)
    _check_ended(bool(code) or nothing, code, said.read(_LARGEST_CHUNK), name)


def _too_slow(name: str) -> str:
    return f"{name}: ffmpeg has not decoded it within {_SECONDS} seconds; convert it"


def _check_ended(failed: bool, code: int, said: bytes, name: str) -> None:
    lines = said.decode(errors="replace").strip().splitlines()
    if failed:
        reason = _PLACES.sub("", lines[-1]) if lines else f"exit code {code}"
        raise UserError(f"{name}: cannot be read as audio (ffmpeg: {reason}); replace or remove it")
    if any("ended prematurely" in line for line in lines):
        raise UserError(f"{name}: is cut off; replace or remove it")


@contextmanager
def _command(file: BinaryIO, *limits: str) -> Iterator[tuple[list[str], int]]:
    """The command that writes a file as wav to standard output, and the descriptor that it needs."""
    file.seek(0)
    with ExitStack() as stack:
        source = file if isinstance(file, FileIO) else stack.enter_context(_on_disk(file))
        number = source.fileno()
        yield ["ffmpeg", "-nostdin", "-v", "error", *_SAFE, "-i", f"file:/dev/fd/{number}", *limits, *_AS_WAV], number


@contextmanager
def _on_disk(file: BinaryIO) -> Iterator[IO[bytes]]:
    """A copy without a name: some formats are read from their end."""
    with TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy
