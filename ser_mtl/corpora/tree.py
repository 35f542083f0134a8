"""The files of a corpus: audio and tables below a folder, and finding the file of a row."""

import os
from collections import defaultdict
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from ser_mtl.errors import UserError

AUDIO = (".wav", ".flac", ".aif", ".aiff", ".ogg", ".opus", ".oga", ".mp3", ".au", ".w64", ".caf")
"""Suffixes that are read as audio, by preference: of two copies, the one whose suffix comes first is taken."""

VIDEO = (".mp4", ".avi", ".webm", ".mkv", ".mov", ".m4a", ".flv")
"""Suffixes of files whose sound has to be extracted first."""

_POINTER = b"version https://git-lfs"
_LARGEST_POINTER = 1024  # bytes


def files_below(folder: Path) -> Iterator[str]:
    """Paths of all files relative to `folder`, with slashes, sorted; hidden ones (`._x.wav`, `.git`) are skipped."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:  # a link to a folder above
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        below = Path(parent).relative_to(folder)
        yield from ((below / name).as_posix() for name in sorted(names) if not name.startswith("."))


def suffix_of(path: str) -> str:
    """The suffix in lower case."""
    return PurePosixPath(path).suffix.lower()


def without_suffix(path: str) -> str:
    """A path without its suffix, if that is one of sound or video."""
    path = path.replace("\\", "/")
    return path[: -len(suffix_of(path))] if suffix_of(path) in (*AUDIO, *VIDEO) else path


def best_copy(paths: list[str]) -> str:
    """The copy to take of a file: by suffix, then the one in the fewest folders, then the first."""
    return min(paths, key=lambda path: (AUDIO.index(suffix_of(path)), path.count("/"), path))


class AudioIndex:
    """Audio files by the end of their path, ignoring suffix and case."""

    def __init__(self, paths: list[str]):
        self._by_name: dict[str, list[tuple[str, list[str]]]] = defaultdict(list)
        for path in paths:
            parts = without_suffix(path).casefold().split("/")
            self._by_name[parts[-1]].append((path, parts))

    def find(self, wanted: str) -> list[str]:
        """The files whose path ends like this one; its folders may hold `*`."""
        *folders, name = without_suffix(wanted.strip()).casefold().removeprefix("./").split("/")
        return [path for path, parts in self._by_name.get(name, []) if _end_like(parts[:-1], folders)]


def _end_like(parts: list[str], wanted: list[str]) -> bool:
    ends = parts[len(parts) - len(wanted) :] if wanted else []
    return len(parts) >= len(wanted) and all(map(fnmatchcase, ends, wanted))


def check_no_pointers(folder: Path, paths: list[str]) -> None:
    """Check that files are recordings, not the pointers that git LFS keeps in place of large files.

    Raises:
        UserError: some are pointers.
    """
    pointers = [path for path in paths if _is_pointer(folder / path)]
    if pointers:
        raise UserError(
            f"{folder / pointers[0]}: is a pointer of git LFS, not a recording ({len(pointers)} of {len(paths)} files);"
            " `git lfs pull` there, or download the files themselves"
        )


def _is_pointer(path: Path) -> bool:
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_POINTER:
            return False
        with path.open("rb") as file:
            return file.read(len(_POINTER)) == _POINTER
    except OSError:
        return False
