"""Transcript, emotion, gender and speaking style of recordings.

ser-mtl predict clip.wav another.flac folder/ --model me/xlsr-ser-stage2
ser-mtl predict folder/ --model runs/iemocap/stage2/fold1 --format csv --output answers.csv
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ser_mtl.errors import UserError

if TYPE_CHECKING:
    import numpy as np

    from ser_mtl.inference.recognizer import Recognizer

RUNS = Path("runs")
AT_ONCE = 30 * 60 * 16_000
"""Samples in memory at once, half an hour of them: enough to find batches of similar length."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("paths", nargs="+", type=Path, help="Audio files, and folders to search for them.")
    parser.add_argument("--model", help="Hub id or run folder. [the run in runs/ that finished last]")
    parser.add_argument("--format", default="text", choices=["text", "json", "csv"], help="Form of the answers. [text]")
    parser.add_argument("--output", type=Path, help="File for the answers. [standard output]")


def main(args: Namespace) -> None:
    """Answer the recordings.

    Raises:
        UserError: nothing to answer, no model, or files without an answer; the others are answered.
    """
    from ser_mtl.inference.formats import FORMATS
    from ser_mtl.inference.recognizer import load
    from ser_mtl.inference.recordings import audio_files

    files = audio_files(args.paths)
    try:
        recognizer = load(args.model or last_run())
    except UserError as error:
        raise UserError(f"--{error}") from error  # "model x: ..." is a flag here
    unanswered: list[Path] = []
    lines = FORMATS[args.format](answers(files, recognizer, unanswered), recognizer.labels)
    write(lines, args.output)
    if unanswered:
        raise UserError(f"{len(unanswered)} of {len(files)} files have no answer; the others are above")


def last_run() -> str:
    """The folder in `runs/` whose run finished last.

    Raises:
        UserError: there is none.
    """
    finished = sorted(RUNS.rglob("results.json"), key=lambda file: file.stat().st_mtime)
    if not finished:
        raise UserError("model: no finished run in runs/; name a folder or Hub id")
    print(f"model: {finished[-1].parent}", file=sys.stderr)
    return str(finished[-1].parent)


def write(lines: Iterator[str], output: Path | None) -> None:
    """Write the lines to a file, whole or not at all, or print them as they come."""
    from tqdm import tqdm

    from ser_mtl.files import write_text

    if output is not None:
        return write_text(output, "".join(f"{line}\n" for line in lines))
    for line in lines:
        tqdm.write(line)


def answers(files: list[Path], recognizer: "Recognizer", unanswered: list[Path]) -> Iterator[tuple[Path, dict]]:
    """The answer to each file, in their order; files without one go into `unanswered`."""
    from tqdm import tqdm

    with tqdm(total=len(files), desc="predicting", unit=" files", disable=None) as bar:
        for chunk in decoded(files, unanswered):
            found = recognizer.answers([samples for _, samples in chunk])
            yield from ((file, answer) for (file, _), answer in zip(chunk, found, strict=True))
            bar.update(len(chunk))


def decoded(files: list[Path], unanswered: list[Path]) -> Iterator[list[tuple[Path, "np.ndarray"]]]:
    """The files and their samples, as many at a time as fit into `AT_ONCE`."""
    from tqdm import tqdm

    from ser_mtl.inference.recordings import samples_of

    chunk: list[tuple[Path, np.ndarray]] = []
    for file in files:
        try:
            chunk.append((file, samples_of(file)))
        except UserError as error:
            unanswered.append(file)
            tqdm.write(str(error), file=sys.stderr)
        if sum(len(samples) for _, samples in chunk) >= AT_ONCE:
            yield chunk
            chunk = []
    yield chunk
