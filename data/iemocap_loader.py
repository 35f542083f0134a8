"""IEMOCAP for programs, `load_iemocap`, and a program that checks a copy of the corpus and prints what it holds.

python data/iemocap_loader.py IEMOCAP_full_release
python data/iemocap_loader.py IEMOCAP_full_release --write IEMOCAP_full_release/metadata.csv
"""

from argparse import RawDescriptionHelpFormatter
from pathlib import Path

import pandas as pd
from datasets import Dataset

from ser_mtl.cli import command_line
from ser_mtl.corpora.folder import write_metadata
from ser_mtl.corpora.iemocap import EXPECTED_COUNTS, check_full_release, load_iemocap, read_iemocap
from ser_mtl.corpora.summary import corpus_tables
from ser_mtl.parsing import OneLineParser

__all__ = ["load_iemocap"]


def main() -> None:
    """Read a copy of IEMOCAP; print, check and write its utterances."""
    parser = OneLineParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="the folder IEMOCAP_full_release, or the folder above it")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write it as a folder corpus: FILE is metadata.csv")
    parser.add_argument("--no_check_counts", action="store_true", help="accept other counts than the full release's")
    args = parser.parse_args()

    corpus = read_iemocap(args.data_dir, check_counts=False)
    title = "Utterances by session and emotion: here / in the full release"
    print(f"{title}\n{'-' * len(title)}\n{counts_table(corpus)}\n\n{corpus_tables(corpus)}")
    if not args.no_check_counts:
        check_full_release(corpus, args.data_dir)
    if args.write:
        write_metadata(corpus, args.write)
        print(f"\nWritten to {args.write}")


def counts_table(corpus: Dataset) -> str:
    """The number of utterances of each session and emotion, beside those of the full release."""
    expected = pd.DataFrame(EXPECTED_COUNTS).T
    counts = pd.crosstab(pd.Series(corpus["fold"][:]), pd.Series(corpus["emotion"][:]))
    counts = counts.reindex(index=expected.index, columns=expected.columns, fill_value=0)
    tables = []
    for table in (counts, expected):
        table = table.assign(all=table.sum(axis=1))
        table.loc["all"] = table.sum()
        tables.append(table.astype(str))
    return (tables[0] + " / " + tables[1]).rename_axis(index=None, columns=None).to_string()


if __name__ == "__main__":
    command_line(main)
