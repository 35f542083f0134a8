"""The command line: `ser-mtl` and its verbs. A user's mistake is one line on standard error and exit code 2."""

import argparse
import ast
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ser_mtl.errors import Notice, UserError

_COMMANDS = Path(__file__).with_name("commands")
VERBS = [module.name for module in pkgutil.iter_modules([str(_COMMANDS)])]
"""Verbs of the command: the modules of `ser_mtl.commands`."""


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line."""

    def __init__(self, *args, **kwargs):
        kwargs = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False} | kwargs
        super().__init__(*args, **kwargs)

    def parse_args(self, args=None, namespace=None):
        """Name the first flag that does not exist, before argparse asks for an argument that is missing."""
        for flag in (word.split("=")[0] for word in args or () if word.startswith("--") and word != "--"):
            if flag not in self._option_string_actions:
                self.error(f"unrecognized arguments: {flag}{did_you_mean(flag, self._option_string_actions)}")
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Say what is wrong in one line; argparse would print the usage before it."""
        raise UserError(f"{message}; --help explains every flag")


def did_you_mean(word: str, known) -> str:
    """A hint at the known word that is spelled most like this one, or nothing."""
    near = get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


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
        raise UserError(f"{verb!r} is not one of its verbs, {', '.join(VERBS)}{hint}; --help explains them")
    command = import_module(f"ser_mtl.commands.{verb}")
    parser = Parser(prog=f"ser-mtl {verb}", description=command.__doc__)
    command.add_arguments(parser)
    command.main(parser.parse_args(words))


def overview() -> str:
    """The text of `ser-mtl --help`."""
    verbs = "\n".join(f"  {verb:9} {first_line(verb)}" for verb in VERBS)
    return (
        "usage: ser-mtl VERB ...\n\nSpeech emotion recognition with adapters: use, publish and inspect models.\n\n"
        f"{verbs}\n\n`ser-mtl VERB --help` explains a verb. Training: run_stage1.py, run_stage2.py, run_tables.py."
    )


def first_line(verb: str) -> str:
    """The first line of a verb's docstring, without importing it."""
    text = (_COMMANDS / f"{verb}.py").read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]


def command_line(main: Callable[[], None], program: str | None = None) -> None:
    """Run a program; a user's mistake is one line on standard error and exit code 2, Ctrl-C one line and 130.

    Args:
        main: the program.
        program: its name in front of the line; by default that of the script.
    """
    name = program or Path(sys.argv[0]).name
    first = os.environ.get("LOCAL_RANK", "0") == "0"  # each process finds the mistake, one says it
    try:
        with _notices(name, first):
            main()
    except UserError as error:
        if first:
            print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if first:
            print(f"{name}: stopped", file=sys.stderr)
        sys.exit(130)
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
