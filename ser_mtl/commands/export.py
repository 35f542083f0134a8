"""Convert a finished run to another format.

ser-mtl export runs/iemocap/stage2/fold1 --to merged        adapters and their base as one model
ser-mtl export runs/iemocap/stage1/fold1 --to wav2vec2      stock transformers models, for use without remote code
ser-mtl export runs/iemocap/stage2/fold1 --to onnx          one ONNX file, for use without PyTorch
"""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.parsing import add_base
from ser_mtl.safe_text import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    parser.add_argument("run_folder", type=Path, help="Folder of a finished run.")
    parser.add_argument("--to", required=True, choices=["merged", "wav2vec2", "onnx"], help="Target format.")
    parser.add_argument(
        "--int8", action="store_true", help="With --to onnx: store the weights of matrix products in 8 bits."
    )
    add_base(parser)
    parser.add_argument("--output_dir", type=Path, help="Folder to write to. [<run>/<format>]")


def main(args: Namespace) -> None:
    """Write the model.

    Raises:
        UserError: the run is not finished, or has no such form.
    """
    if args.int8 and args.to != "onnx":
        raise UserError(f"--int8: works with --to onnx, not with --to {args.to}")
    from transformers.utils import logging

    from ser_mtl.hub.export import write_merged, write_wav2vec2
    from ser_mtl.hub.onnx import write_onnx

    logging.disable_progress_bar()
    folder = args.output_dir or args.run_folder / args.to
    if args.to == "onnx":
        written = [write_onnx(args.run_folder, folder, args.int8, args.base)]
    elif args.to == "merged":
        write_merged(args.run_folder, folder, base_folder=args.base)
        written = [folder]
    else:
        written = write_wav2vec2(args.run_folder, folder)
    for place in written:
        print(printable(f"written to {place}"))
