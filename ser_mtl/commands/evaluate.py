"""Test a trained model on a labelled corpus, such as one that it was not trained on.

ser-mtl evaluate runs/ravdess/stage1/fold1 --corpus nemo --data_dir nEMO --map fearful= surprised=
ser-mtl evaluate me/xlsr-ser-stage2 --corpus folder --data_dir my_recordings --output_dir evaluations/mine
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ser_mtl.parsing import add_corpus, add_loading
from ser_mtl.safe_text import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("model", help="Run folder or Hub id of the model.")
    parser.add_argument(
        "--corpus", required=True, help="Name of the corpus, or the path of a description; as for run_stage1.py."
    )
    parser.add_argument("--data_dir", nargs="+", metavar="DIR", help="Folder of the corpus; several are joined.")
    add_corpus(parser)
    parser.add_argument("--fold", type=int, help="Test on this fold of the corpus only.")
    parser.add_argument(
        "--part",
        choices=["all", "train", "dev", "test", "unseen"],
        help="Test on this part: train, dev or test of an official split; unseen: without the utterances and speakers "
        "that the model was trained on. [test of an official split, else all]",
    )
    parser.add_argument("--output_dir", type=Path, help="Folder for results, predictions, figures and a report.")
    add_loading(parser, transcript=False)
    parser.add_argument("--device", help="Device to compute on, such as cpu or cuda:1. [the GPU if there is one]")


def main(args: Namespace) -> None:
    """Evaluate, print the scores, and write them if asked to.

    Raises:
        UserError: a model or corpus that cannot be read, labels that the model lacks, utterances that it was trained
            on, or a folder that cannot be written to.
    """
    from transformers.utils import logging

    from ser_mtl.corpora.loading import name_with_folders, read_corpus
    from ser_mtl.cross.evaluate import evaluate
    from ser_mtl.cross.report import check_folder, terminal_table, write_evaluation

    if args.output_dir:
        check_folder(args.output_dir)
    logging.disable_progress_bar()
    corpus, left_out = read_corpus(args.corpus, args.data_dir, not args.no_check_counts, args.distinct_speakers)
    results, rows = evaluate(args.model, corpus, args.map, args.fold, args.part, args.base, args.dtype, args.device)
    results = results | {
        "corpus": name_with_folders(args.corpus, args.data_dir),
        "left_out": left_out + results["left_out"],
    }
    print(terminal_table(results))
    if args.output_dir:
        write_evaluation(args.output_dir, results, rows)
        print(f"\nResults, predictions, figures and a report: {printable(str(args.output_dir))}")
    else:
        print("\n--output_dir keeps results, predictions, figures and a report")
