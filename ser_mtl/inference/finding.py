"""Finding the audio files among paths and below folders."""

import os
from collections.abc import Iterable, Iterator
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

import soundfile

from ser_mtl.corpora import ffmpeg

_READ = {f".{name.lower()}" for name in soundfile.available_formats()} - {".raw"}
_READ |= {".aif", ".aifc", ".mp2", ".oga", ".opus", ".snd", ".sph"}


class Found(NamedTuple):
    """The result of a search.

    Attributes:
        files: to be answered, those of each folder sorted.
        left_out: number of audio files that were found but are not in `files`.
        faults: a line each on folders and files that cannot be answered.
    """

    files: list[Path]
    left_out: int
    faults: list[str]


def find_audio(paths: Iterable[Path]) -> Found:
    """The files among `paths`, and all audio files below the folders among them.

    Of a folder, files that need ffmpeg are left out if it is not installed. Files are not opened.
    """
    files: list[Path] = []
    foreign: list[Path] = []
    faults: list[str] = []
    with_ffmpeg = ffmpeg.installed()
    for path in _expanded(paths, faults):
        if not os.path.isdir(path):
            files.append(path)
            continue
        unreadable: list[OSError] = []
        inside = _audio_below(path, unreadable)
        faults += [f"{error.filename}: cannot be looked through ({error.strerror})" for error in unreadable]
        if not inside and not unreadable:
            faults.append(f"{path}: no audio file there")
        for file in inside:
            (files if with_ffmpeg or not ffmpeg.reads(file.name) else foreign).append(file)
    if foreign:
        faults.append(ffmpeg.needed([str(file) for file in foreign]))
    return Found(files, len(foreign), faults)


def _expanded(paths: Iterable[Path], faults: list[str]) -> Iterator[Path]:
    """The paths, with patterns that no shell has expanded, such as a/**/*.mp3, replaced by the matches."""
    for path in paths:
        if not has_magic(str(path)) or os.path.lexists(path):
            yield path
            continue
        matches = sorted(glob(str(path), recursive=True))
        if not matches:
            faults.append(f"{path}: nothing matches this pattern")
        yield from map(Path, matches)


def _audio_below(folder: Path, unreadable: list[OSError]) -> list[Path]:
    """The audio files below a folder, without macOS's metadata files such as `._a.wav`."""
    names = (Path(place, name) for place, _, names in os.walk(folder, onerror=unreadable.append) for name in names)
    audio = (file for file in names if file.suffix.lower() in _READ or ffmpeg.reads(file.name))
    return sorted(file for file in audio if not file.name.startswith("._"))
