"""Formats that libsndfile does not read, such as m4a: decoded by the program ffmpeg, where it is installed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO, FileIO
from pathlib import PurePath
from shlex import quote
from tempfile import TemporaryFile
from typing import IO, BinaryIO

from ser_mtl.errors import UserError

_SUFFIXES = {
    ".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".aac", ".ac3", ".eac3", ".amr", ".ape", ".awb", ".mka",
    ".mkv", ".webm", ".weba", ".wma", ".wv",
}  # fmt: skip
# No playlists and no names of protocols: they would make ffmpeg read other files, or the network.
_SAFE = ("-protocol_whitelist", "file", "-format_whitelist",
         "aac,ac3,amr,amrnb,amrwb,ape,asf,eac3,matroska,mov,nistsphere,wv")  # fmt: skip
_SECONDS = 120  # that it may take for one file
_EXAMPLES = 3  # names in one line
_AS_WAV = ("-map", "0:a:0", "-c:a", "pcm_f32le", "-f", "wav", "pipe:1")


def installed() -> bool:
    """Whether there is a program ffmpeg."""
    return shutil.which("ffmpeg") is not None


def reads(name: str) -> bool:
    """Whether a file has the name of one that needs ffmpeg."""
    return PurePath(name).suffix.lower() in _SUFFIXES


def version() -> str:
    """The first line that ffmpeg says of itself; nothing if it is not installed."""
    if not installed():
        return ""
    said = subprocess.run(["ffmpeg", "-version"], stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS)
    return said.stdout.decode(errors="replace").partition("\n")[0]


def needed(names: list[str]) -> str:
    """A line on files that need ffmpeg where it is not installed."""
    more = f" and {len(names) - _EXAMPLES} more" if len(names) > _EXAMPLES else ""
    return (
        f"{len(names)} audio files need ffmpeg, which is not installed: {', '.join(names[:_EXAMPLES])}{more}; install "
        f"it, or convert each where it is: {convert(names[0])}"
    )


def convert(name: str) -> str:
    """A command that converts a file."""
    return f"ffmpeg -i {quote(name)} {quote(f'{name}.wav')}"


def decoded(file: BinaryIO, name: str, seconds: float, size: int) -> BytesIO:
    """The first audio stream of a file as a wav file of floats, at its own rate and channels.

    Args:
        file: open, of any format.
        name: what messages begin with.
        seconds: the rest is left out.
        size: in bytes, likewise.

    Raises:
        UserError: ffmpeg cannot decode it, or takes too long.
    """
    file.seek(0)
    with ExitStack() as stack:
        source = file if isinstance(file, FileIO) else stack.enter_context(_on_disk(file))
        number = source.fileno()
        limits = ("-t", f"{seconds:.3f}", "-fs", str(size))
        command = ["ffmpeg", "-nostdin", "-v", "error", *_SAFE, "-i", f"file:/dev/fd/{number}", *limits, *_AS_WAV]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_SECONDS, pass_fds=[number]
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"{name}: ffmpeg has not decoded it within {_SECONDS} seconds; convert it") from error
    said = ended.stderr.decode(errors="replace").strip().splitlines()
    if ended.returncode or not ended.stdout:
        reason = re.sub(r"^\[[^]]*\]\s*", "", said[-1]) if said else f"exit code {ended.returncode}"
        raise UserError(f"{name}: cannot be read as audio (ffmpeg: {reason}); replace or remove it")
    if any("ended prematurely" in line for line in said):
        raise UserError(f"{name}: is cut off; replace or remove it")
    return BytesIO(ended.stdout)


@contextmanager
def _on_disk(file: BinaryIO) -> Iterator[IO[bytes]]:
    """A copy without a name: some formats are read from their end."""
    with TemporaryFile() as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        yield copy
