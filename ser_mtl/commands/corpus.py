"""Show a corpus as training would read it: utterances by fold, label and speaker, and likely mistakes.

ser-mtl corpus my_recordings --fold 1
ser-mtl corpus IEMOCAP_full_release --corpus iemocap --write metadata.csv
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.safe_text import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("folders", nargs="*", type=Path, help="Where the corpus is; several folders are joined.")
    parser.add_argument("--corpus", default="folder", help="folder, iemocap or demo. [folder]")
    parser.add_argument("--fold", type=int, help="Also show the split with this fold as the test.")
    parser.add_argument(
        "--dev", default="dialog", help="Development set of the split: dialog, session or none. [dialog]"
    )
    parser.add_argument("--no_check_counts", action="store_true", help="Accept a part of IEMOCAP.")
    parser.add_argument(
        "--distinct_speakers", action="store_true", help="The same name in two joined folders means two people."
    )
    parser.add_argument("--write", type=Path, help="Write the corpus as a folder corpus: the path of a metadata.csv.")


def main(args: Namespace) -> None:
    """Print the corpus; write it if asked to.

    Raises:
        UserError: the corpus cannot be read, split or written.
    """
    if args.corpus == "folder" and not args.folders:
        raise UserError("name the folder of the corpus; --help explains every flag")
    from ser_mtl.corpora.folder import write_metadata
    from ser_mtl.corpora.loading import load_corpus
    from ser_mtl.corpora.summary import corpus_tables

    try:
        corpus = load_corpus(args.corpus, args.folders, not args.no_check_counts, args.distinct_speakers)
    except UserError as error:  # folders have no flag here
        raise UserError(str(error).removeprefix("--data_dir: ")) from error
    print(corpus_tables(corpus, args.fold, args.dev))
    if args.write:
        write_metadata(corpus, args.write)
        print(f"\nwritten to {printable(str(args.write))}")
