"""Transcript, emotion, gender and speaking style of recordings.

ser-mtl predict clip.wav another.flac folder/ --model me/xlsr-ser-stage2
ser-mtl predict folder/ --model runs/iemocap/stage2/fold1 --format csv --output answers.csv
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ser_mtl.errors import UserError
from ser_mtl.files import replacing
from ser_mtl.safe_text import printable

if TYPE_CHECKING:
    from ser_mtl.inference.recognizer import Recognizer

RUNS = Path("runs")


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("paths", nargs="+", type=Path, help="Audio files, and folders to search for them.")
    parser.add_argument("--model", help="Hub id or run folder. [the run in runs/ that finished last]")
    parser.add_argument(
        "--base", help="Hub id or folder of the base of adapters. [the one they name, or moved with them]"
    )
    parser.add_argument("--format", default="text", choices=["text", "json", "csv"], help="Format. [text]")
    parser.add_argument("--output", type=Path, help="File for the answers. [standard output]")
    parser.add_argument(
        "--no_transcript", action="store_true", help="Leave the transcript out, which is faster with adapters."
    )
    parser.add_argument(
        "--dtype",
        default="float32",
        choices=["float32", "bfloat16", "auto"],
        help="Numbers to compute with; auto is bfloat16 where the device has instructions for it. [float32]",
    )
    parser.add_argument("--raw", action="store_true", help="Probabilities of emotion without the temperature.")


def main(args: Namespace) -> None:
    """Answer the recordings.

    Raises:
        UserError: nothing to answer, no model, or files without an answer; the others are answered.
    """
    from transformers.utils import logging

    from ser_mtl.inference.finding import find_audio
    from ser_mtl.inference.formats import FORMATS
    from ser_mtl.inference.recognizer import load

    files, left_out, faults = find_audio(args.paths)
    if not files:
        raise UserError("; ".join(faults))
    logging.disable_progress_bar()  # transformers' own bars are for steps of milliseconds
    try:
        options = {"dtype": args.dtype, "transcript": not args.no_transcript, "base": args.base}
        recognizer = load(args.model or last_run(), **options)
    except UserError as error:
        line = str(error)
        raise UserError(f"--{line}" if line.startswith(("model ", "model:")) else line) from error  # it is a flag here
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    unanswered: list[Path] = []
    with writer(args.output) as write:
        for line in FORMATS[args.format](answers(files, recognizer, unanswered, args.raw), recognizer.labels):
            write(line)
    if unanswered or faults:
        failed, total = len(unanswered) + left_out, len(files) + left_out
        raise UserError(
            f"no answer for {failed} of {total} files (see above)" if failed else "not all read (see above)"
        )


def last_run() -> str:
    """The folder in `runs/` whose run finished last.

    Raises:
        UserError: there is none.
    """
    finished = sorted(RUNS.rglob("results.json"), key=lambda file: file.stat().st_mtime)
    finished = [file for file in finished if (file.parent / "config.json").is_file()]  # an evaluation has none
    if not finished:
        raise UserError("model: no finished run in runs/; name a folder or Hub id")
    print(printable(f"model: {finished[-1].parent}"), file=sys.stderr)
    return str(finished[-1].parent)


@contextmanager
def writer(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line to standard output, or to a file that appears once it is complete.

    Raises:
        UserError: the file cannot be written.
    """
    from tqdm import tqdm

    if output is None:
        yield tqdm.write
        return
    if output.is_dir():
        raise UserError(f"--output {output}: is a folder; name a file")
    try:
        with replacing(output) as partial, partial.open("w", encoding="utf-8") as file:
            yield lambda line: print(line, file=file)
    except OSError as error:
        raise UserError(f"--output {output}: cannot be written ({error.strerror})") from error


def answers(
    files: list[Path], recognizer: "Recognizer", unanswered: list[Path], raw: bool = False
) -> Iterator[tuple[Path, dict]]:
    """Each file and its answer. A file without one is reported on standard error and added to `unanswered`."""
    from tqdm import tqdm

    with tqdm(total=len(files), desc="predicting", unit=" files", disable=None) as bar:
        for file, answer in zip(files, recognizer.each(files, raw=raw), strict=True):
            bar.update()
            if isinstance(answer, UserError):
                unanswered.append(file)
                tqdm.write(str(answer), file=sys.stderr)
            else:
                yield file, answer
