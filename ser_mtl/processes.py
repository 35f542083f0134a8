"""The same function on many jobs, in several processes."""

import multiprocessing
import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import wait
from typing import Any

from ser_mtl import stopping
from ser_mtl.errors import UserError


def cores() -> int:
    """The number of cores for `for_each`; 1 where processes are not forked, which would import everything anew."""
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    forks = method == "fork" and not multiprocessing.current_process().daemon
    return len(os.sched_getaffinity(0)) if forks else 1


def for_each(jobs: Sequence, work: Callable[[Any], Any], processes: int) -> Iterator:
    """`work(job)` of every job, in the order they finish; in this process if one is enough.

    Warnings of the processes are repeated here. The processes end with this one, however it ends.

    Raises:
        UserError: a process was killed.
        Exception: what `work` raised; the other processes are then ended.
    """
    if processes == 1 or len(jobs) < 2:
        yield from map(work, jobs)
        return
    context = multiprocessing.get_context("fork")
    place, running = context.Value("q", 0), dict[Any, Any]()
    for _ in range(min(processes, len(jobs))):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(jobs, work, place, sender, os.getpid()), daemon=True)
        process.start()
        sender.close()  # so that the end of the process ends the pipe
        running[receiver] = process
    try:
        while running:
            for ready in wait(list(running)):
                yield from _received(ready, running)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.join()


def _received(receiver: Any, running: dict) -> Iterator:
    """The result that waits in a pipe; none if its process has ended."""
    try:
        result, caught = receiver.recv()
    except EOFError:
        process = running.pop(receiver)
        process.join()
        if process.exitcode:
            raise UserError(
                f"a process was killed (exit code {process.exitcode}), as the system does when memory runs out; run "
                "this again: what is done is kept"
            ) from None
        return
    for one in caught:
        warnings.warn_explicit(*one)
    if isinstance(result, BaseException):
        raise result
    yield result


def _work(jobs: Sequence, work: Callable, place: Any, sender: Any, parent: int) -> None:
    """Take one job after another, until none is left or one fails."""
    import torch

    torch.set_num_threads(1)  # a core each; besides, a fork has none of its parent's threads
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all, but the parent ends its children
    signal.signal(signal.SIGTERM, stopping.stop)
    stopping.end_with_parent(parent)
    while (job := _next(place)) < len(jobs):
        with warnings.catch_warnings(record=True) as caught:
            try:
                result = work(jobs[job])
            except Exception as error:
                result = error
        sender.send((result, [(one.message, one.category, one.filename, one.lineno) for one in caught]))
        if isinstance(result, Exception):
            return


def _next(place: Any) -> int:
    with place.get_lock():
        place.value += 1
        return place.value - 1
