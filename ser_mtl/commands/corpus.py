"""Show a corpus as training would read it: utterances by fold, label and speaker, and likely mistakes.

ser-mtl corpus my_recordings --fold 1
ser-mtl corpus RAVDESS --corpus ravdess
ser-mtl corpus IEMOCAP_full_release --corpus iemocap --write metadata.csv
"""

import os
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from ser_mtl.errors import UserError
from ser_mtl.parsing import add_corpus
from ser_mtl.safe_text import printable
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS

if TYPE_CHECKING:
    from datasets import Dataset


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument(
        "folders",
        nargs="*",
        metavar="DIR",
        help="Folder of the corpus; several are joined; user/dataset for --corpus hub.",
    )
    parser.add_argument(
        "--corpus",
        default="folder",
        help="Name of the corpus, or the path of a description; as for run_stage1.py. [folder]",
    )
    parser.add_argument(
        "--fold",
        type=fold,
        metavar="N|all",
        help="Also show the split that tests this fold; all: the split without a test.",
    )
    parser.add_argument(
        "--dev", default="dialog", help="Development set of the split: dialog, session or none. [dialog]"
    )
    add_corpus(parser)
    parser.add_argument(
        "--write", type=Path, help="Also write the corpus as a folder corpus: the path of its metadata.csv."
    )


def fold(word: str) -> int | str:
    """A fold as `split` takes it."""
    return word if word == "all" else int(word)


def main(args: Namespace) -> None:
    """Print the corpus; write it if asked to.

    Raises:
        UserError: the corpus cannot be read, split or written.
    """
    if args.corpus == "folder" and not args.folders:
        raise UserError("name the folder of the corpus; --help explains every flag")
    from ser_mtl.corpora.folder import write_metadata
    from ser_mtl.corpora.loading import not_in_table, read_corpus
    from ser_mtl.corpora.summary import corpus_tables

    try:
        corpus, left_out = read_corpus(
            args.corpus, args.folders, not args.no_check_counts, args.distinct_speakers, args.map
        )
    except UserError as error:  # folders have no flag here
        raise UserError(str(error).removeprefix("--data_dir: ")) from error
    if args.corpus == "folder":
        left_out += [line for folder in args.folders for line in not_in_table(Path(folder), corpus)]
    print(about(args.corpus) + corpus_tables(corpus, args.fold, args.dev, left_out))
    print(f"\nTrain on it\n-----------\n{_training(args, corpus)}")
    if args.write:
        path = place_to_write(args.write, args.folders, corpus["path"])
        write_metadata(corpus, path)
        print(f"\nwritten to {printable(str(path))}")


def about(name: str) -> str:
    """The facts in a corpus's description, for a terminal."""
    from ser_mtl.corpora.description import is_described, read_description

    if not is_described(name):
        return ""
    page = read_description(name)
    facts = {"language": page.language, "licence": page.licence, "from": page.address}
    lines = [
        page.title,
        *(f"{fact}: {text}" for fact, text in facts.items() if text),
        *(f"- {trap}" for trap in page.odd),
    ]
    return "\n".join(map(printable, lines)) + "\n\n"


def place_to_write(path: Path, folders: list[str], audio: list[str]) -> Path:
    """Where to write the table. A bare file name is in the corpus's folder, unless the audio is below this one."""
    here = all(Path(os.path.abspath(file)).is_relative_to(Path.cwd()) for file in audio)
    return path if here or path.name != str(path) or len(folders) != 1 else Path(folders[0]) / path


def _training(args: Namespace, corpus: "Dataset") -> str:
    """The command that trains on the corpus, or why there is none."""
    from ser_mtl.corpora.summary import training_flags
    from ser_mtl.corpora.targets import NEEDS_EMOTION, check_spellings, lack_of_emotion

    why, values = lack_of_emotion([corpus]) or (None, [])
    if why and not values:
        return f"Not as it is: {printable(why)}; {NEEDS_EMOTION}"
    try:
        for column in (TASKS[task].column for task in CLASSIFICATION_TASKS):
            check_spellings(corpus, column, sorted(set(corpus.unique(column)) - {None}))
    except UserError as error:
        return f"Not as it is: {error}"
    tasks = f" --tasks {' '.join(values)}" if values else ""
    return f"accelerate launch run_stage1.py {_flags(args)}{training_flags(corpus, args.fold, args.dev)}{tasks}"


def _flags(args: Namespace) -> str:
    words = ["--corpus", args.corpus] if args.corpus != "iemocap" else []
    words += ["--data_dir", *args.folders] if args.folders else []
    words += ["--map", *args.map] if args.map else []
    words += [f"--{name}" for name in ("no_check_counts", "distinct_speakers") if getattr(args, name)]
    return printable(shlex.join(words))
