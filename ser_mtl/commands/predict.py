"""Answer recordings of any length: transcript, emotion, gender and speaking style, over time.

ser-mtl predict clip.wav another.flac folder/ --model me/xlsr-ser-stage1
ser-mtl predict folder/ --model runs/iemocap/stage2/fold1 --format csv --output answers.csv
ser-mtl predict talk.mp3 --format srt --output talk.srt --plot talk.png
ser-mtl predict --microphone --model me/xlsr-ser-stage1
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ser_mtl.errors import UserError, write_errors
from ser_mtl.parsing import add_loading, number
from ser_mtl.safe_text import printable

if TYPE_CHECKING:
    from ser_mtl.inference.recognizer import Recognizer

RUNS = Path("runs")
STDIN = Path("-")
LARGEST = 2**30  # bytes of standard input
DOCUMENTS = ("srt", "vtt", "textgrid")
FORMATS = ("text", "json", "jsonl", "csv", *DOCUMENTS)

Answered = tuple[int, Path, dict]
"""The index of a file, its name and its answer."""


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add(
        "paths", nargs="*", type=Path, help="Audio files, folders to search, patterns such as 'a/**/*.mp3'; - is stdin."
    )
    add("--model", help="Hub id or run folder. [the run in runs/ that finished last]")
    add("--format", default="text", choices=FORMATS, help="Format; srt, vtt and textgrid show the segments. [text]")
    add("--output", help="File for the answers, or a folder for one file per recording. [-, standard output]")
    add(
        "--segments",
        action="store_true",
        help="Text: also a line for each segment; csv: a row for each segment in place of each file.",
    )
    add(
        "--abstain", type=number(float, 0, 1), default=0.0, help='Say "unsure" below this probability, such as 0.6. [0]'
    )
    add("--embeddings", help="An .npz file for the embeddings of all segments.")
    add("--plot", help="A .png file for emotion over time, or a folder for one figure per recording.")
    add_loading(parser)
    add(
        "--raw",
        action="store_true",
        help="Emotion's probabilities as trained, without the temperature that calibrates them.",
    )
    add("--microphone", action="store_true", help="Listen to the microphone; a new line every half second.")
    add("--pcm", type=int, metavar="HERTZ", help="Listen to standard input: mono 16-bit samples at this rate.")


def main(args: Namespace) -> None:
    """Answer the recordings.

    Raises:
        UserError: nothing to answer, no model, or files without an answer; the others are answered.
    """
    if args.microphone or args.pcm is not None:
        return listen(args)
    if not args.paths:
        raise UserError("the following arguments are required: paths; --help explains every flag")
    from ser_mtl.inference.finding import find_audio

    args.output = None if args.output == "-" else args.output  # standard output
    files, left_out, faults = find_audio(args.paths)
    if not files:
        raise UserError("; ".join(faults))
    check_places(args, files)
    recognizer = model_of(args)
    for fault in faults:
        print(printable(fault), file=sys.stderr)
    unanswered: list[Path] = []
    write(args, files, recognizer, answers(args, files, recognizer, unanswered))
    if unanswered or faults:
        failed, total = len(unanswered) + left_out, len(files) + left_out
        raise UserError(
            f"no answer for {failed} of {total} files (see above)" if failed else "not all read (see above)"
        )


def check_places(args: Namespace, files: list[Path]) -> None:
    """Check, before minutes are spent, that all outputs can be written.

    Raises:
        UserError: one cannot.
    """
    from ser_mtl.inference import writing

    if args.output is None and args.format in DOCUMENTS and len(files) > 1:
        raise UserError(f"--format {args.format}: has a file for each recording; name a folder with --output")
    if files.count(STDIN) > 1:
        raise UserError("-: standard input can be read once")
    if args.embeddings and (args.embeddings.endswith("/") or Path(args.embeddings).is_dir()):
        raise UserError(f"--embeddings {args.embeddings}: is a folder; name a file, such as embeddings.npz")
    writing.check_targets(targets_of(args, files), [file for file in files if file != STDIN])
    for flag in ("embeddings", "plot"):
        if path := getattr(args, flag):
            with write_errors(f"--{flag} {path}"):
                (Path(path) if path.endswith("/") else Path(path).parent).mkdir(parents=True, exist_ok=True)


def targets_of(args: Namespace, files: list[Path]) -> dict[str, list[Path]]:
    """The files to write, by flag.

    Raises:
        UserError: one figure for several recordings.
    """
    from ser_mtl.inference import plot

    outputs = names_of(args, files) or ([Path(args.output)] if args.output else [])
    figures = plot.places(args.plot, files) if args.plot else []
    return {
        "--output": outputs,
        "--plot": figures,
        "--embeddings": [Path(args.embeddings)] if args.embeddings else [],
    }


def names_of(args: Namespace, files: list[Path]) -> list[Path]:
    """The file of each answer, if `--output` is a folder for them."""
    from ser_mtl.inference import writing

    if not args.output or not writing.is_folder(args.output, args.format in DOCUMENTS and len(files) > 1):
        return []
    return writing.names_in(Path(args.output), files, writing.suffix_of(args.format))


def model_of(args: Namespace) -> "Recognizer":
    """Load the model that the flags name.

    Raises:
        UserError: it cannot be loaded.
    """
    from ser_mtl.inference.recognizer import load_flagged

    options = {"dtype": args.dtype, "transcript": not args.no_transcript, "base": args.base}
    return load_flagged(args.model or last_run(), **options)


def last_run() -> str:
    """The folder in `runs/` whose run finished last. What `ser-mtl export` wrote into a run is none.

    Raises:
        UserError: there is none.
    """
    finished = sorted(RUNS.rglob("results.json"), key=lambda file: file.stat().st_mtime)
    folders = [file.parent for file in finished if (file.parent / "config.json").is_file()]  # an evaluation has none
    folders = [folder for folder in folders if not {*folders} & {*folder.parents}]
    if not folders:
        raise UserError("--model: no finished run in runs/; name a folder or Hub id")
    print(printable(f"model: {folders[-1]}"), file=sys.stderr)
    return str(folders[-1])


def listen(args: Namespace) -> None:
    """Answer live audio, until it ends or is stopped.

    Raises:
        UserError: a flag that is for recordings only, or no audio.
    """
    from ser_mtl.inference import live

    source = "--microphone" if args.microphone else "--pcm"
    others = [f"--{flag}" for flag in ("output", "embeddings", "plot") if getattr(args, flag) is not None]
    if args.paths or others:
        raise UserError(f"{source}: prints a line every half second; leave {' '.join(others) or args.paths[0]} out")
    with live.microphone() if args.microphone else live.standard_input(args.pcm) as (blocks, rate):
        live.show(model_of(args), blocks, rate, raw=args.raw, abstain=args.abstain)


def write(args: Namespace, files: list[Path], recognizer: "Recognizer", answered: Iterator[Answered]) -> None:
    """Write answers to where the flags say."""
    from ser_mtl.inference import writing

    labels = recognizer.labels
    if names := names_of(args, files):
        return writing.write_each(answered, args.format, labels, names, args.segments)
    pairs = ((file, answer) for _, file, answer in answered)
    with writing.line_writer(args.output and Path(args.output)) as write_line:
        for line in writing.lines_of(pairs, args.format, labels, args.segments):
            write_line(line)


def answers(args: Namespace, files: list[Path], recognizer: "Recognizer", unanswered: list[Path]) -> Iterator[Answered]:
    """The number of each file, its name and its answer. Also writes figures and embeddings.

    A file without an answer is reported on standard error and added to `unanswered`.
    """
    from tqdm import tqdm

    from ser_mtl.inference import plot, writing
    from ser_mtl.inference.progress import Progress

    sources = [_standard_input() if file == STDIN else file for file in files]
    figures = plot.places(args.plot, files) if args.plot else []
    embeddings = writing.Embeddings()
    options = {"raw": args.raw, "abstain": args.abstain, "embeddings": args.embeddings is not None}
    with Progress(files) as progress:
        for number, part in recognizer.stream(sources, **options):
            progress.show(number, part)
            if isinstance(part, ValueError):
                unanswered.append(files[number])
                tqdm.write(str(part), file=sys.stderr)
            elif "segments" in part:
                if args.embeddings:
                    embeddings.take(files[number], part)
                if figures:
                    plot.draw(sources[number], files[number], part, figures[number])
                yield number, files[number], part
    if args.embeddings:
        embeddings.write(Path(args.embeddings))


def _standard_input() -> BytesIO:
    """All of standard input, in memory: most formats need to seek.

    Raises:
        UserError: it is too long, or does not end.
    """
    content = BytesIO(sys.stdin.buffer.read(LARGEST + 1))
    if content.getbuffer().nbytes > LARGEST:
        raise UserError(f"-: holds more than {LARGEST >> 20} MiB; save it as a file")
    content.name = "standard input"
    return content
