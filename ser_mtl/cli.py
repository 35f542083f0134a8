"""The command line: `ser-mtl` and its commands. A user's mistake is one line on standard error and exit code 2."""

import ast
import os
import pkgutil
import sys
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from ser_mtl.errors import Notice, UserError
from ser_mtl.parsing import OneLineParser, did_you_mean
from ser_mtl.stopping import Stopped, end_with_launcher, on_signals, stop

_COMMANDS = Path(__file__).with_name("commands")
VERBS = [module.name for module in pkgutil.iter_modules([str(_COMMANDS)])]
"""Verbs of the command: the modules of `ser_mtl.commands`."""


def main(argv: list[str] | None = None) -> None:
    """The command `ser-mtl`."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] in ("-h", "--help"):
        return print(overview())
    if argv[0] == "--version":
        from ser_mtl import __version__

        return print(__version__)
    verb, *words = argv
    command_line(lambda: run(verb, words), program=f"ser-mtl {verb}" if verb in VERBS else "ser-mtl")


def run(verb: str, words: list[str]) -> None:
    """Run one verb.

    Raises:
        UserError: no such verb, or a mistake in its arguments.
    """
    if verb not in VERBS:
        hint = did_you_mean(verb, VERBS)
        raise UserError(f"unknown command {verb!r}{hint}; commands: {', '.join(VERBS)}; --help explains them")
    command = import_module(f"ser_mtl.commands.{verb}")
    parser = OneLineParser(
        prog=f"ser-mtl {verb}",
        description=command.__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_arguments(parser)
    command.main(parser.parse_args(words))


def overview() -> str:
    """The text of `ser-mtl --help`."""
    verbs = "\n".join(f"  {verb:9} {first_line(verb)}" for verb in VERBS)
    return (
        "usage: ser-mtl COMMAND ...\n\nSpeech emotion recognition with adapters: use, publish and inspect models.\n\n"
        f"{verbs}\n\n`ser-mtl COMMAND --help` explains one. Training: run_stage1.py, run_stage2.py, run_tables.py."
    )


def first_line(verb: str) -> str:
    """The first line of a verb's docstring, without importing it."""
    text = (_COMMANDS / f"{verb}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def command_line(main: Callable[[], None], program: str | None = None) -> None:
    """Run a program; a user's mistake is one line on standard error and exit code 2, Ctrl-C one line and 130.

    SIGTERM and SIGUSR1 are one line and 143. A program that a launcher started ends with it.

    Args:
        main: the program.
        program: its name in front of the line; by default that of the script.
    """
    name = program or Path(sys.argv[0]).name
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # each process finds the mistake, one says it
    end_with_launcher()
    try:
        with on_signals(stop), _notices(name, first):
            main()
    except UserError as error:
        if first:
            print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if first:
            print(f"{name}: stopped", file=sys.stderr)
        sys.exit(130)
    except Stopped as stopped:
        if first:
            print(f"{name}: stopped by {stopped.by}", file=sys.stderr)
        raise
    except BrokenPipeError:  # `... | head`: nobody reads the rest, not even what Python would flush at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


@contextmanager
def _notices(program: str, shown: bool) -> Iterator[None]:
    """Print each `Notice` as one line on standard error, all other warnings as usual."""
    with warnings.catch_warnings():
        warnings.simplefilter("always" if shown else "ignore", Notice)
        usual = warnings.showwarning

        def show(message, category, *where, **more) -> None:
            if not issubclass(category, Notice):
                return usual(message, category, *where, **more)
            bars = sys.modules.get("tqdm")  # a line would break a bar that is shown
            (bars.tqdm.write if bars else print)(f"{program}: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
