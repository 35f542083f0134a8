"""Inputs tried in a forked child, with limits on time and memory, against the contract that every input must meet.

The contract: an answer, or a `UserError` (exit code 2) of one line without control characters and without a traceback;
nothing half-written; nothing written at all if it is refused; bounded time and memory.
"""

import os
import re
import resource
import shutil
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ser_mtl import cli

SECONDS = 20
"""Of an input. A machine that does other things as well takes its time."""
MEMORY = 2 * 2**30
"""Bytes of address space beyond those of the parent."""

_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST_LINE = 3000


class Broken(AssertionError):
    """The contract was not met."""


def run_program(main: Callable[[], object], program: str = "fuzz", lines: int = 1) -> int:
    """Run a program as a command line does, and check how it ends; its exit code.

    Args:
        main: the program.
        program: its name, in front of its line.
        lines: the most lines on standard error of a program that refuses: one, and one for each file of several.
    """
    stdout, stderr = StringIO(), StringIO()
    code: Any = 0
    with redirect_stdout(stdout), redirect_stderr(stderr):
        try:
            cli.command_line(main, program=program)
        except SystemExit as stop:
            code = stop.code or 0
    said = [line for line in re.split(r"[\r\n]", stderr.getvalue()) if line.strip() and "%|" not in line]
    for line in said:
        if "Traceback" in line or _CONTROL.search(line) or len(line) > _LONGEST_LINE:
            raise Broken(f"says {line[:300]!r}")
    if code not in (0, 2):
        raise Broken(f"ends with {code}: {said}")
    if code == 2 and not (0 < len(said) <= lines and said[-1].startswith(f"{program}: ")):
        raise Broken(f"refuses in {len(said)} lines: {said}")
    return code


def check_refused_or(answer: Callable[[], object]) -> None:
    """Check that a call of Python answers, or refuses with a ValueError of one line."""
    try:
        answer()
    except ValueError as error:
        if _CONTROL.search(str(error)) or "\n" in str(error) or not str(error):
            raise Broken(f"refuses with {str(error)[:300]!r}") from error


def check_nothing_left(folder: Path, before: set[str], code: int) -> None:
    """Check that a folder has nothing half-written in it, and nothing new if the program refused."""
    after = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    half = [name for name in after if ".partial." in name]
    if half or (code == 2 and after - before):
        raise Broken(f"leaves {half or sorted(after - before)}")


def names_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


class Sandbox:
    """A child process that tries inputs one after the other; a new one takes its place if it is killed or dies.

    Args:
        work: tries an input in an empty folder; raises if the contract is broken.
        seconds: the limit of an input.
    """

    def __init__(self, work: Callable[[Any, Path], None], seconds: float = SECONDS):
        self.work, self.seconds = work, seconds
        self.child: Any = None

    def fault(self, item: Any) -> str | None:
        """How an input breaks the contract; None if it does not."""
        if self.child is None:
            self._start()
        self.connection.send(item)
        try:
            if self.connection.poll(self.seconds):
                return self.connection.recv()
            reason = f"takes longer than {self.seconds} s"
        except (EOFError, OSError):
            self.child.join(5)
            reason = f"ends the process ({self.child.exitcode})"
        self.close()
        return reason

    def _start(self) -> None:
        context = get_context("fork")
        self.connection, theirs = context.Pipe()
        self.child = context.Process(target=self._serve, args=(theirs,), daemon=True)
        self.child.start()
        theirs.close()

    def _serve(self, connection: Any) -> None:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # of the libraries of C
        warnings.simplefilter("ignore")  # of other libraries; a `Notice` is always shown
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**30, 2**30))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        while True:
            item = connection.recv()
            folder = Path(tempfile.mkdtemp(prefix="ser-mtl-fuzz-"))
            try:
                self.work(item, folder)
                answer = None
            except Broken as error:
                answer = str(error)
            except BaseException as error:  # whatever it is, it should have been a UserError
                where = traceback.extract_tb(error.__traceback__)
                ours = [frame for frame in where if "site-packages" not in frame.filename]
                places = " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in (ours or where)[-1:-4:-1])
                answer = f"{type(error).__name__}: {' '.join(str(error).split())[:200]} at {places}"
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            connection.send(answer)

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child.join()
            self.connection.close()
            self.child = None


assert sys.platform == "linux", "limits of a forked child are those of Linux"
