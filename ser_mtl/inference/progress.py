"""The progress bar of `ser-mtl predict`."""

import os
from pathlib import Path

import soundfile
from tqdm import tqdm


class Progress:
    """A bar with the time left: by the bytes of finished files and, within a file, by its seconds."""

    def __init__(self, files: list[Path]):
        self._files, self._sizes, self._before, self._number, self._seconds = files, list(map(_size, files)), 0, -1, 0.0

    def __enter__(self) -> "Progress":
        self._bar = tqdm(total=sum(self._sizes), desc="predicting", unit="B", unit_scale=True, disable=None)
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()

    def show(self, number: int, part: dict | ValueError) -> None:
        """Move the bar to where a segment ends, or a file."""
        if self._bar.disable:
            return
        if number != self._number:
            self._number, self._seconds = number, _seconds(self._files[number])
        inside = 1.0 if isinstance(part, ValueError) or "segments" in part else min(1.0, part["end"] / self._seconds)
        self._bar.update(max(0, self._before + int(inside * self._sizes[number]) - self._bar.n))
        self._before += self._sizes[number] if inside == 1.0 else 0


def _size(file: Path) -> int:
    try:
        return os.path.getsize(file)
    except (OSError, ValueError):
        return 0


def _seconds(file: Path) -> float:
    """The duration in a header; infinite if it has none."""
    try:
        return soundfile.info(str(file)).duration or float("inf")
    except (soundfile.SoundFileError, OSError, TypeError, ValueError):
        return float("inf")
