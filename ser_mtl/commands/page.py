"""Serve a page that answers recordings in the browser, or write it as a Space of the Hub.

ser-mtl page --model me/xlsr-ser-stage1
ser-mtl page --model me/xlsr-ser-stage1 --space me/demo
"""

import importlib.util
import shlex
from argparse import ArgumentParser, Namespace
from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.parsing import add_loading, number
from ser_mtl.safe_text import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("--model", help="Hub id or run folder. [the run in runs/ that finished last]")
    add_loading(parser)
    add("--host", default="127.0.0.1", help="Address to listen on; 0.0.0.0 lets other machines in. [127.0.0.1]")
    add("--port", type=number(int, 1, 65535), help="Port to listen on. [the first free one from 7860 on]")
    limit = number(float, 0.001, 86_400)
    add("--max_seconds", type=limit, default=300.0, help="Longest recording, in seconds. [300]")
    add("--max_megabytes", type=limit, default=25.0, help="Largest file, in megabytes. [25]")
    add("--space", metavar="NAME/SPACE", help="Serve nothing; write the page as this Space, ready to push.")
    add("--output_dir", type=Path, help="Folder to create for the Space. [NAME/SPACE]")


def main(args: Namespace) -> None:
    """Serve the page until it is stopped, or write a Space.

    Raises:
        UserError: Gradio is not installed, the model cannot be loaded, the address is taken, or the folder exists.
    """
    if importlib.util.find_spec("gradio") is None:
        raise UserError("page: needs gradio; pip install gradio")
    from transformers.utils import logging

    from ser_mtl.commands.predict import last_run, model_of

    logging.disable_progress_bar()
    args.model = args.model or last_run()
    if args.space or args.output_dir:
        return write(args)
    from ser_mtl.page.app import serve
    from ser_mtl.page.clips import Limits

    return serve(model_of(args), Limits(args.max_seconds, args.max_megabytes), args.host, args.port)


def write(args: Namespace) -> None:
    """Write the Space, and print the commands that push it.

    Raises:
        UserError: flags do not go together, or it cannot be written.
    """
    from ser_mtl.commands.predict import model_of
    from ser_mtl.page.clips import Limits
    from ser_mtl.page.space import write_space

    if not args.space:
        raise UserError("--output_dir: is for a Space; name it with --space")
    if Path(args.model).is_dir():
        model_of(args)  # see that it loads before it is uploaded
    folder = args.output_dir or Path(args.space)
    options = {"transcript": not args.no_transcript, "dtype": args.dtype}
    write_space(folder, args.space, args.model, args.base, Limits(args.max_seconds, args.max_megabytes), options)
    upload = shlex.join(["hf", "upload", args.space, str(folder), ".", "--type", "space"])
    print(printable(f"written to {folder}; push it:"))
    print(printable(f"hf repos create {args.space} --type space --space-sdk gradio && {upload}"))
