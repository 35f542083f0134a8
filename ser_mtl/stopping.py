"""Ending a program early: on a signal, or when the launcher that started it dies."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM comes from a launcher, a cluster or a service manager; SIGUSR1 from Slurm, ahead of a time limit."""
EXIT_CODE = 128 + signal.SIGTERM
_LAUNCHERS = ("accelerate", "torchrun")
_SECONDS_BETWEEN_LOOKS = 0.5
_PARENT = os.getppid()  # as early as possible: a launcher may die while the libraries are imported


class Stopped(SystemExit):
    """The end of a program that was told to stop, with exit code 143."""

    def __init__(self, number: int):
        super().__init__(EXIT_CODE)
        self.by = signal.Signals(number).name


def stop(number: int, frame: object) -> None:
    """A handler that ends the program, so that files in the making are removed.

    Raises:
        Stopped: always.
    """
    raise Stopped(number)


@contextmanager
def on_signals(handler: Callable[[int, object], None]) -> Iterator[None]:
    """Handle `SIGNALS` within the block. Only the main thread can; in another one nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def end_with_launcher() -> None:
    """Send this process a SIGTERM when the launcher that started it ends, as `accelerate launch` does not."""
    if _launched():
        end_with_parent(_PARENT)


def end_with_parent(parent: int) -> None:
    """Send this process a SIGTERM when the one that started it ends."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    os.kill(os.getpid(), signal.SIGTERM)


def _launched() -> bool:
    """Whether this process's parent is a launcher; its variables alone may be inherited, or set by a user."""
    if not {"ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"} & set(os.environ):
        return False
    if os.getppid() != _PARENT:  # it is dead already
        return True
    import psutil

    try:
        words = psutil.Process(_PARENT).cmdline()
    except psutil.Error:
        return False
    return any(
        Path(word).name in _LAUNCHERS or word.startswith(("accelerate.", "torch.distributed.")) for word in words
    )
