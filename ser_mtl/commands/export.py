"""Write a finished run in another form.

ser-mtl export runs/iemocap/stage2/fold1 --to merged        adapters and their base as one model
ser-mtl export runs/iemocap/stage1/fold1 --to wav2vec2      stock transformers models, for use without remote code
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("run_folder", type=Path, help="Folder of a finished run.")
    parser.add_argument("--to", required=True, choices=["merged", "wav2vec2"], help="The form.")
    parser.add_argument(
        "--base", help="Hub id or folder of the base of adapters. [the one they name, or moved with them]"
    )
    parser.add_argument("--output_dir", type=Path, help="Where it is written. [<run>/<form>]")


def main(args: Namespace) -> None:
    """Write the model.

    Raises:
        UserError: the run is not finished, or has no such form.
    """
    from ser_mtl.hub.export import write_merged, write_wav2vec2

    folder = args.output_dir or args.run_folder / args.to
    if args.to == "merged":
        write_merged(args.run_folder, folder, base_folder=args.base)
        print(f"written to {folder}")
    else:
        for written in write_wav2vec2(args.run_folder, folder):
            print(f"written to {written}")
