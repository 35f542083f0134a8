"""Writing answers: to standard output, a file, or a folder with a file for each recording; and their embeddings."""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np

from ser_mtl.errors import UserError, write_errors
from ser_mtl.files import replacing, write_text
from ser_mtl.inference.documents import DOCUMENTS
from ser_mtl.inference.formats import FORMATS, Answers

_LONGEST_NAME = 255  # bytes
_SUFFIXES = {"text": ".txt", "textgrid": ".TextGrid"}


def suffix_of(form: str) -> str:
    """The suffix of files in a format."""
    return _SUFFIXES.get(form, f".{form}")


def is_folder(output: str, several: bool = False) -> bool:
    """Whether a path means a folder with a file for each recording: it is there, ends with /, or `several` need it."""
    return os.path.isdir(output) or output.endswith("/") or several


def names_in(folder: Path, files: list[Path], suffix: str) -> list[Path]:
    """A unique path in a folder for each recording, laid out as below the recordings' common folder.

    `a/x.wav` and `b/x.wav` are `a/x.srt` and `b/x.srt`; `x.wav` beside `x.mp3` are `x.srt` and `x-2.srt`.
    """
    absolute = [file.absolute() for file in files]
    root = Path(*_common([file.parent.parts for file in absolute]))
    taken: set[str] = set()
    names = []
    for file in absolute:
        below = file.relative_to(root)
        numbered = (_fitting(below.stem, suffix if n == 1 else f"-{n}{suffix}") for n in count(1))
        name = next(name for name in map(below.with_name, numbered) if str(name).lower() not in taken)
        taken.add(str(name).lower())  # some file systems ignore case
        names.append(folder / name)
    return names


def _fitting(stem: str, ending: str) -> str:
    """The name of a file, with its stem shortened if it would be too long."""
    while len(os.fsencode(stem + ending)) > _LONGEST_NAME:
        stem = stem[:-1]
    return stem + ending


def check_targets(targets: dict[str, list[Path]], recordings: list[Path]) -> None:
    """Check that no output would overwrite a recording or another output.

    Args:
        targets: output files by flag.
        recordings: input files.

    Raises:
        UserError: names the flag and the file.
    """
    taken = dict.fromkeys(map(os.path.realpath, recordings), "one of the recordings")
    for flag, paths in targets.items():
        for path in paths:
            real = os.path.realpath(path)
            if real in taken:
                raise UserError(f"{flag} {path}: is {taken[real]}, which it would replace; name another file")
            if os.path.isfile(real) or not os.path.exists(real):  # else a device, which may take both
                taken[real] = f"that of {flag}"


def _common(paths: list[tuple[str, ...]]) -> tuple[str, ...]:
    shared: tuple[str, ...] = paths[0]
    for parts in paths:
        same = [one == other for one, other in zip(shared, parts, strict=False)]
        shared = shared[: (*same, False).index(False)]
    return shared


def write_each(
    answers: Iterable[tuple[int, Path, dict]],
    form: str,
    labels: dict[str, list[str]],
    names: list[Path],
    segments: bool,
) -> None:
    """Write each answer to the file of its index, as soon as it comes."""
    for number, file, answer in answers:
        if form in DOCUMENTS:
            text = DOCUMENTS[form](answer)
        else:
            text = "".join(f"{line}\n" for line in FORMATS[form]([(file, answer)], labels, segments))
        with write_errors(f"--output {names[number]}"):
            write_text(names[number], text)


def lines_of(answers: Answers, form: str, labels: dict[str, list[str]], segments: bool) -> Iterator[str]:
    """The lines of all answers together; of a document, those of its one recording."""
    if form not in DOCUMENTS:
        yield from FORMATS[form](answers, labels, segments)
        return
    for _, answer in answers:
        yield DOCUMENTS[form](answer).rstrip("\n")


@contextmanager
def line_writer(output: Path | None) -> Iterator[Callable[[str], None]]:
    """Yield a function that writes a line to standard output, or to a file that appears once it is complete.

    Raises:
        UserError: the file cannot be written.
    """
    from tqdm import tqdm

    if output is None:
        yield tqdm.write
        return
    with write_errors(f"--output {output}"), replacing(output) as partial, partial.open("w", encoding="utf-8") as file:
        yield lambda line: print(line, file=file)


class Embeddings:
    """The embeddings of all segments, gathered from answers: rows of `recording`, `start`, `end` and of each task."""

    def __init__(self) -> None:
        self._files: list[str] = []
        self._times: list[tuple[float, float]] = []
        self._rows: dict[str, list[np.ndarray]] = {}

    def take(self, file: Path, answer: dict) -> None:
        """Move the embeddings out of an answer."""
        for segment in answer["segments"]:
            self._files.append(str(file))
            self._times.append((segment["start"], segment["end"]))
            for task, x in segment.pop("embeddings").items():
                self._rows.setdefault(task, []).append(x)

    def write(self, path: Path) -> None:
        """Write an .npz file; `recording`, `start` and `end` identify the segment of each row.

        Raises:
            UserError: the file cannot be written.
        """
        times = np.array(self._times, dtype=np.float64).reshape(-1, 2)
        columns = {"recording": np.array(self._files, dtype=np.str_), "start": times[:, 0], "end": times[:, 1]}
        with write_errors(f"--embeddings {path}"), replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, allow_pickle=False, **columns, **{task: np.stack(x) for task, x in self._rows.items()})
