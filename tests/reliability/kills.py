"""Kill runs at their file operations and at random times, start them again, and compare them with an undisturbed run.

python tests/reliability/kills.py --kills 150

Each run is a process forked from this one, which has imported the libraries: a run takes seconds. A run is killed with
SIGKILL right before its n-th operation on a file of its folder, or with a half of a file that C++ or Rust has
written; or at a random time, with SIGKILL, SIGTERM or SIGUSR1. Some runs are killed up to three times. At the end the
weights, the predictions, `results.json` and `history.json` must be those of the undisturbed run, apart from the times
in them, and the folder must hold the same files. The exit code is 1 if one does not.
"""

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]
os.environ.setdefault("OMP_NUM_THREADS", "1")

SECONDS_PER_RUN, SECONDS_TO_STOP = 300, 30
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
TIMES = ("minutes", "audio_seconds_per_second")
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}


@dataclass(frozen=True)
class Case:
    """A kind of run."""

    name: str
    script: str
    processes: int
    flags: dict = field(hash=False)


@dataclass(frozen=True)
class Kill:
    """How a run is killed: before its n-th operation on a file, or after some seconds, by a signal."""

    how: str
    operation: int | None = None
    seconds: float | None = None
    number: int = signal.SIGKILL


# --------------------------------------------------------------------------------------------------- inside a run


class Counting:
    """Count this process's operations on files of a folder, and kill it right before the n-th, or in its middle."""

    def __init__(self, folder: Path, last: int | None):
        self.folder, self.last, self.count = str(folder), last, 0
        sys.addaudithook(self._see)
        import safetensors.torch
        import torch

        torch.save = self._half(torch.save, lambda args: args[1])
        safetensors.torch.serialize_file = self._half(safetensors.torch.serialize_file, lambda args: args[1])

    def _see(self, event: str, args: tuple) -> None:
        if event == "open" or event in WRITES:
            path = str(args[0])
            descriptor = args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1
            if not os.path.isabs(path) and isinstance(descriptor, int) and descriptor >= 0:
                path = os.path.join(os.readlink(f"/proc/self/fd/{descriptor}"), path)
            if os.path.abspath(path).startswith(self.folder):
                self._next(lambda: None)

    def _half(self, write: Callable, path_of: Callable) -> Callable:
        def writer(*args, **kwargs):
            result, path = write(*args, **kwargs), path_of(args)
            if str(path).startswith(self.folder):
                self._next(lambda: os.truncate(path, os.path.getsize(path) // 2))
            return result

        return writer

    def _next(self, damage: Callable[[], None]) -> None:
        self.count += 1
        if self.count == self.last:
            damage()
            os.kill(os.getpid(), signal.SIGKILL)


def child(case: Case, folder: Path, rank: int, port: int, operation: int | None) -> int:
    """Run one process of a run; what it prints goes to a log beside the folder."""
    log = os.open(folder.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if case.processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(case.processes)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    from helpers.tiny import run_script

    counting = Counting(folder, operation) if rank == 0 else None
    words = [word for name, value in (case.flags | {"output_dir": folder}).items() for word in (f"--{name}", value)]
    ended = run_script(case.script, words)
    print(ended.stdout, ended.stderr, flush=True)
    if counting is not None:
        folder.with_suffix(".count").write_text(str(counting.count))
    return ended.code


# ------------------------------------------------------------------------------------------------- around a run


def start(case: Case, folder: Path, kill: Kill | None = None) -> int:
    """Run a case in processes of its own until it ends or is killed; the exit code, negative if by a signal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pids = []
    for rank in range(case.processes):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = child(case, folder, rank, port, kill.operation if kill else None)
            finally:
                os._exit(code)
        pids.append(pid)
    return wait(pids, kill)


def wait(pids: list[int], kill: Kill | None) -> int:
    """As a launcher does: when one process ends badly, the others are killed."""
    begun, codes = time.monotonic(), {}
    told = False
    while len(codes) < len(pids):
        for pid in [pid for pid in pids if pid not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - begun
        dead = [code for code in codes.values() if code != 0]
        if kill and kill.seconds is not None and seconds > kill.seconds and not told:
            told = True
            send(pids, codes, kill.number)
        # Told to stop, they have some time, as from torchrun and Slurm.
        patience = kill.seconds + SECONDS_TO_STOP if told and kill.number != signal.SIGKILL else 0
        if seconds > SECONDS_PER_RUN or (dead and seconds > patience):
            send(pids, codes, signal.SIGKILL)
        time.sleep(0.005)
    return next((code for code in codes.values() if code != 0), 0)


def send(pids: list[int], codes: dict[int, int], number: int) -> None:
    for pid in pids:
        if pid not in codes:
            os.kill(pid, number)


def outcome(folder: Path) -> dict[str, object]:
    """What must be the same in the end."""
    results = json.loads((folder / "results.json").read_text())
    history = json.loads((folder / "history.json").read_text())
    found = {"files": sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))}
    found["results.json"] = {name: value for name, value in results.items() if name not in TIMES}
    found["history.json"] = [
        {name: value for name, value in entry.items() if not name.endswith(("_runtime", "_per_second"))}
        for entry in history
    ]
    for file in [*folder.glob("*.safetensors"), folder / "predictions.jsonl"]:
        found[file.name] = file.read_bytes()
    return found


def differences(run: Path, reference: dict[str, object]) -> list[str]:
    """The names of what is not the same."""
    if not (run / "results.json").is_file():
        return ["it did not finish"]
    found = outcome(run)
    return [name for name in reference if found.get(name) != reference[name]]


# ----------------------------------------------------------------------------------------------------- the trial


def cases(folder: Path) -> list[Case]:
    """Stage 1, stage 2 on its undisturbed run, and both in two processes."""
    common = {
        "recipe": "paper",
        "fold": 1,
        "corpus": "folder",
        "data_dir": folder / "corpus",
        "num_train_epochs": 3,
        "save_minutes": 0,
    }
    stage1 = common | {"encoder": folder / "encoder", "per_device_train_batch_size": 8}
    stage2 = common | {"stage1": folder / "stage-1/undisturbed", "per_device_train_batch_size": 8}
    stage2 |= {"learning_rate": 1e-3}
    half = {"per_device_train_batch_size": 4}
    return [
        Case("stage-1", "run_stage1", 1, stage1),
        Case("stage-2", "run_stage2", 1, stage2),
        Case("stage-1-two-processes", "run_stage1", 2, stage1 | half),
        Case("stage-2-two-processes", "run_stage2", 2, stage2 | half),
    ]


def kills_of(number: int, operations: int, seconds: float, dice: random.Random) -> list[Kill]:
    """Two thirds at operations, evenly over the run; the others at random times, by each signal in turn."""
    at_operations = -(-2 * number // 3)
    plan = [Kill("before an operation", operation=1 + operations * i // at_operations) for i in range(at_operations)]
    for i in range(number - at_operations):
        sent = SIGNALS[i % len(SIGNALS)]
        plan.append(Kill(f"{sent.name} at a random time", seconds=dice.uniform(0, seconds), number=sent))
    dice.shuffle(plan)
    return plan


def torment(case: Case, folder: Path, kills: list[Kill]) -> tuple[list[Kill], int]:
    """Start a run and kill it, as long as there are kills left; then let it end. The kills that hit, and the code."""
    hit = []
    for kill in kills:
        code = start(case, folder, kill)
        if code == 0:
            return hit, code
        # In two processes it may be the other one that ends first, with an error of its own.
        if code not in (143, -kill.number) and case.processes == 1:
            return hit, code
        hit.append(kill)
    return hit, start(case, folder)


def trial(case: Case, folder: Path, number: int, dice: random.Random) -> list[str]:
    """Kill runs of one case `number` times, and print a row of the table; what went wrong."""
    begun = time.monotonic()
    undisturbed = folder / case.name / "undisturbed"
    undisturbed.parent.mkdir(parents=True, exist_ok=True)
    if code := start(case, undisturbed):
        return [f"{case.name}: undisturbed: exit code {code}"]
    seconds = time.monotonic() - begun
    operations, reference = int(undisturbed.with_suffix(".count").read_text()), outcome(undisturbed)
    hits, wrong, runs = Counter(), [], 0
    while hits.total() < number and not (wrong and runs > 2 * number):
        plan = kills_of(number - hits.total(), operations, seconds, dice)
        while plan:
            chain = [plan.pop() for _ in range(min(len(plan), dice.choice((1, 1, 2, 3))))]
            run = folder / case.name / f"run{runs}"
            runs += 1
            hit, code = torment(case, run, chain)
            hits.update(kill.how for kill in hit)
            if code or (unlike := differences(run, reference)):
                wrong.append(f"{run} after {hit}: exit code {code}" + ("" if code else f", not the same: {unlike}"))
                print(wrong[-1], flush=True)
    ways = ["before an operation", *(f"{sent.name} at a random time" for sent in SIGNALS)]
    cells = [case.name, operations, *(hits[way] for way in ways), hits.total(), runs, len(wrong)]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return wrong


def main() -> None:
    """Try all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=150, help="kills in all")
    parser.add_argument("--cases", type=int, nargs="+", default=[0, 1, 2, 3], help="0, 1: stages; 2, 3: two processes")
    parser.add_argument("--folder", type=Path, help="where the runs are kept [a temporary folder]")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        os.environ["HF_DATASETS_CACHE"] = os.environ["HF_HOME"] = str(folder / "cache")
        os.environ["HF_HUB_OFFLINE"] = "1"
        from helpers.tiny import write_corpus, write_encoder

        import run_stage1  # noqa: F401 (for the forks)
        import run_stage2  # noqa: F401

        write_corpus(folder / "corpus")
        write_encoder(folder / "encoder")
        chosen = [cases(folder)[i] for i in args.cases]
        wrong = []
        print("| run | operations | killed before one | SIGKILL | SIGTERM | SIGUSR1 | kills | runs | not the same |")
        print("|" + 9 * "---|")
        for case in chosen:
            wrong += trial(case, folder, args.kills // len(chosen), random.Random(args.seed))
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
