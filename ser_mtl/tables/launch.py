"""Starting runs, each in its own processes: N at a time on this machine, or as jobs on a cluster.

If a run fails, its reason is reported, the runs that depend on it are skipped, and all others continue.
"""

import fcntl
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event
from typing import Protocol, TextIO

import psutil
import torch
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable
from tqdm import tqdm

from ser_mtl import cluster as clusters
from ser_mtl.safe_text import printable
from ser_mtl.tables.plan import Run

_SCRIPTS = Path(__file__).parents[2]  # beside the package, in a checkout and in an installed wheel
_LAUNCH = (sys.executable, "-m", "accelerate.commands.launch", "--quiet", "--num_machines", "1",
           "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0")  # fmt: skip
# Variables that a launcher sets for its processes. If one started this program, the runs must not inherit them.
_OF_A_LAUNCHER = re.compile(r"(ACCELERATE_|TORCHELASTIC_|FORK_LAUNCH|MASTER_|GROUP_|ROLE_|LOCAL_RANK|LOCAL_WORLD)\w*")
_SECONDS_BETWEEN_LOOKS = 0.5
_SHOWN = 2
"""Runs named beside the bar."""


class Job(Protocol):
    """A running job, as in `concurrent.futures` and `submitit`; its result is None, or why the run failed."""

    def done(self) -> bool:
        """Whether the job has ended."""

    def exception(self) -> BaseException | None:
        """Why the job itself ended: out of time, cancelled."""

    def result(self) -> str | None:
        """None for a finished run, else why it failed."""


class ThisMachine:
    """Runs `jobs` at a time; each gets its share of the GPUs, or of the cores if there are none."""

    def __init__(self, jobs: int, flags_of: Callable[[Run], list[str]]):
        self.at_once = jobs
        self._flags_of = flags_of
        self._stopping = Event()
        self._pool = ThreadPoolExecutor(jobs)
        self._shares: SimpleQueue = SimpleQueue()
        for share in shares(jobs, _visible_gpus(), os.cpu_count() or 1):
            self._shares.put(share)

    def submit(self, run: Run) -> Job:
        """Start a run as soon as a share of the machine is free."""
        return self._pool.submit(self._launch, run)

    def _launch(self, run: Run) -> str | None:
        share = self._shares.get()
        try:
            return launch(run, self._flags_of(run), stopping=self._stopping, **share)
        finally:
            self._shares.put(share)

    def stop(self) -> None:
        """End all runs, and wait until they have written their checkpoints."""
        self._stopping.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        terminated: set[psutil.Process] = set()
        # Children of a launcher too, which may not end them, and processes that a thread was about to start.
        while running := psutil.Process().children(recursive=True):
            for process in set(running) - terminated:
                with suppress(psutil.NoSuchProcess):
                    process.terminate()
            terminated |= set(running)
            psutil.wait_procs(running, timeout=_SECONDS_BETWEEN_LOOKS)


class Cluster:
    """Each run is a job on a cluster, submitted as soon as the runs that it starts from are finished.

    Args:
        folder: holds submitit's own files; all machines must share its file system.
        options: submitit's options, such as `timeout_min`, `gpus_per_node`, `slurm_partition`.
        flags_of: the flags of a run.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        UserError: there is no such cluster here, or it does not know an option.
    """

    def __init__(self, folder: Path, options: dict, flags_of: Callable[[Run], list[str]], cluster: str = "slurm"):
        self.at_once = sys.maxsize
        self._flags_of = flags_of
        self._executor = clusters.executor(folder, "ser-tables", options, cluster)

    def submit(self, run: Run) -> Job:
        """Queue a run."""
        return self._executor.submit(_Requeued(), run, self._flags_of(run))

    def stop(self) -> None:
        """Leave the jobs to the cluster: the next command waits for them."""


class _Requeued(Checkpointable):
    """A run that submitit requeues when its time is up; it resumes by itself."""

    def __call__(self, run: Run, flags: list[str]) -> str | None:
        return launch(run, flags, processes=len(_visible_gpus()) or 1, environment={})


def run_all(runs: list[Run], machine: ThisMachine | Cluster) -> dict[Run, str]:
    """Run all that are not finished. If this program is stopped, the runs of this machine stop too.

    Returns:
        The reason of each run that failed or was skipped.
    """
    waiting = [run for run in runs if run.state != "finished"]
    with tqdm(total=len(waiting), unit="run", desc="tables", disable=not waiting) as bar:
        try:
            return _run_all(waiting, machine, bar)
        except BaseException:
            bar.set_postfix_str("stopping the runs")
            machine.stop()
            raise


def _run_all(waiting: list[Run], machine: ThisMachine | Cluster, bar: tqdm) -> dict[Run, str]:
    under_way: dict[Run, Job] = {}
    failed: dict[Run, str] = {}
    while waiting or under_way:
        for run in waiting.copy():
            if cause := next((start for _, start in run.starts if start in failed), None):
                waiting.remove(run)
                failed[run] = f"skipped, because {cause.name} failed"
                _report(bar, run, failed[run])
        ready = [run for run in waiting if all(start.state == "finished" for _, start in run.starts)]
        for run in ready[: machine.at_once - len(under_way)]:
            waiting.remove(run)
            try:
                under_way[run] = machine.submit(run)
            except (FailedJobError, FailedSubmissionError) as error:  # sbatch refused, or its answer is unknown
                failed[run] = clusters.reason(error)
                _report(bar, run, failed[run])
        if sys.stderr.isatty() or bar.postfix != _names(under_way):  # a file needs no line for each half second
            bar.set_postfix_str(_names(under_way))
        for run in [run for run, job in under_way.items() if job.done()]:
            if reason := _outcome(under_way.pop(run)):
                failed[run] = reason
            _report(bar, run, reason or f"finished, {run.results()['minutes']} min")
        if under_way:
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return failed


def launch(
    run: Run, flags: list[str], processes: int, environment: dict[str, str], stopping: Event | None = None
) -> str | None:
    """Train a run through `accelerate launch`, and append its output to its log.

    The log is locked while the run lasts, even after this program ends: another program that launches the same run
    waits, and then finds it finished. Once `stopping` is set, nothing is launched.

    Returns:
        None, or why it failed.
    """
    processes = 1 if run.settings.one_process else processes
    run.log.parent.mkdir(parents=True, exist_ok=True)
    program = run.settings.program
    script = ["--module", program] if program else [str(_SCRIPTS / f"run_stage{run.stage}.py")]
    inherited = {name: value for name, value in os.environ.items() if not _of_a_launcher(name)}
    with open(run.log, "a+", encoding="utf-8", errors="replace") as log:
        while not (_locked(log) or _is_set(stopping)):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        if _is_set(stopping):
            return "stopped"
        if run.state == "finished":
            return None
        begin = log.seek(0, os.SEEK_END)
        code = subprocess.run(
            [*_LAUNCH, "--num_processes", str(processes), *script, *flags],
            stdout=log, stderr=subprocess.STDOUT, env=inherited | environment,
        ).returncode  # fmt: skip
        log.seek(begin)
        return None if code == 0 and run.state == "finished" else reason_in(log.read(), code)


def reason_in(log: str, code: int) -> str:
    """Why a run failed: the line of its script, or else the last line of its log."""
    lines = [line.strip() for line in re.split(r"[\r\n]+", log) if line.strip() and "%|" not in line]
    reasons = [line for line in lines if re.match(r"\w+\.py: ", line)] or lines[-1:] or ["it printed nothing"]
    return f"{printable(reasons[-1])} (exit code {code})"


def shares(jobs: int, gpus: list[str], cores: int) -> list[dict]:
    """Each run's share of the machine: processes, one for each of its GPUs, and environment variables."""
    if not gpus:
        threads = os.environ.get("OMP_NUM_THREADS")
        by_accelerate = any(name.startswith("ACCELERATE_") for name in os.environ)
        if threads is None or (threads == "1" and by_accelerate):  # accelerate's own default
            threads = str(max(1, cores // jobs))
        return [{"processes": 1, "environment": {"OMP_NUM_THREADS": threads}}] * jobs
    dealt = [gpus[job::jobs] or [gpus[job % len(gpus)]] for job in range(jobs)]
    return [{"processes": len(own), "environment": {"CUDA_VISIBLE_DEVICES": ",".join(own)}} for own in dealt]


def _visible_gpus() -> list[str]:
    numbers = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(torch.cuda.device_count())))
    return numbers.split(",")[: torch.cuda.device_count()] if torch.cuda.device_count() else []


@contextmanager
def without_launcher() -> Iterator[None]:
    """Hide a launcher's environment variables: with them, training arguments would wait for its other processes."""
    hidden = {name: os.environ.pop(name) for name in [*os.environ] if _of_a_launcher(name)}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _of_a_launcher(name: str) -> bool:
    return name in ("RANK", "WORLD_SIZE") or _OF_A_LAUNCHER.fullmatch(name) is not None


def _locked(log: TextIO) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the child inherits it with the open file
    except BlockingIOError:
        return False
    return True


def _is_set(event: Event | None) -> bool:
    return event is not None and event.is_set()


def _outcome(job: Job) -> str | None:
    error = job.exception()
    return job.result() if error is None else clusters.reason(error)


def _report(bar: tqdm, run: Run, outcome: str) -> None:
    bar.update()
    bar.write(f"{_name(run)}: {outcome}")


def _name(run: Run) -> str:
    return ", ".join([run.name, f"fold {run.fold}", f"seed {run.seed}", *map(printable, run.flags)])


def _names(runs: Iterable[Run]) -> str:
    """The first of the runs, and how many more there are."""
    names = [_name(run) for run in runs]
    return "; ".join(names[:_SHOWN]) + (f"; {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
