"""The command line: `ser-mtl` and its commands. A user's mistake is one line on standard error and exit code 2."""

import ast
import os
import pkgutil
import sys
import time
import warnings
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from ser_mtl.errors import Notice, UserError, encoding_error, system_error
from ser_mtl.parsing import OneLineParser, did_you_mean
from ser_mtl.stopping import EXIT_CODE, Stopped, end_with_launcher, on_signals, stop

_SECONDS_FOR_THE_FIRST = 3
_COMMANDS = Path(__file__).with_name("commands")
VERBS = [module.name for module in pkgutil.iter_modules([str(_COMMANDS)])]
"""Verbs of the command: the modules of `ser_mtl.commands`."""


def main(argv: list[str] | None = None) -> None:
    """The command `ser-mtl`."""
    verb, *words = (sys.argv[1:] if argv is None else argv) or ["--help"]
    command_line(lambda: run(verb, words), program=f"ser-mtl {verb}" if verb in VERBS else "ser-mtl")


def run(verb: str, words: list[str]) -> None:
    """Run one verb, or print what there is.

    Raises:
        UserError: no such verb, or a mistake in its arguments.
    """
    if verb in ("-h", "--help"):
        return print(overview())
    if verb == "--version":
        from ser_mtl import __version__

        return print(__version__)
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

    A full disk, or any other error of the operating system, is a user's mistake here. SIGTERM and SIGUSR1 are one line
    and 143. A program that a launcher started ends with it.

    Args:
        main: the program.
        program: its name, which the line begins with; by default that of the script.
    """
    name = program or Path(sys.argv[0]).name
    rank = os.environ.get("LOCAL_RANK", "0")
    first = rank == "0" or not rank.isdecimal()
    end_with_launcher()
    try:
        with on_signals(stop), _notices(name, first), _printed():
            main()
    except UserError as error:
        _end(2, f"{name}: {error}", first)
    except KeyboardInterrupt:
        _end(130, f"{name}: stopped" if first else None)
    except Stopped as stopped:
        _end(EXIT_CODE, f"{name}: stopped by {stopped.by}" if first else None)
    except BrokenPipeError:  # `... | head`: nobody reads the rest
        _end(1)
    except UnicodeEncodeError as error:
        _end(2, f"{name}: {encoding_error(error)}", first)
    except OSError as error:
        line = system_error(error)
        if line is None:
            raise
        _end(2, f"{name}: {line}", first)


@contextmanager
def _printed() -> Iterator[None]:
    """Flush standard output at the end of the block: at exit, Python would hide an error.

    Raises:
        OSError: names standard output, if that is what cannot be written.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:  # it is closed
                sys.stdout.flush()
    except OSError as error:
        error.filename = error.filename or "standard output"  # files are named by `ser_mtl.files.writing`
        _drop_output()
        raise


def _drop_output() -> None:
    """Point standard output at nothing, so that Python does not try again at exit."""
    with suppress(AttributeError, OSError, ValueError):  # it is closed, or no file
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int, line: str | None = None, first: bool = True) -> NoReturn:
    """Print a line and exit. Most mistakes stop every process of a run: the others wait while the first one speaks.

    Its end makes the launcher end them.
    """
    if not first:
        time.sleep(_SECONDS_FOR_THE_FIRST)
    with suppress(OSError):  # nobody can be told
        if line:
            print(line, file=sys.stderr)
    sys.exit(code)


@contextmanager
def _notices(program: str, shown: bool) -> Iterator[None]:
    """Print each `Notice` as one line on standard error, and once, all other warnings as usual."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always" if shown else "ignore", Notice)
        usual = warnings.showwarning

        def show(message, category, *where, **more) -> None:
            if not issubclass(category, Notice):
                return usual(message, category, *where, **more)
            if str(message) in said:  # by the first of two trainings (--refit)
                return
            said.add(str(message))
            bars = sys.modules.get("tqdm")  # a line would break a bar that is shown
            (bars.tqdm.write if bars else print)(f"{program}: {message}", file=sys.stderr)

        warnings.showwarning = show
        yield
