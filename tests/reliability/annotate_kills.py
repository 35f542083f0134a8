"""Kill the processes of `ser-mtl annotate` with SIGKILL, start them again, and compare with an undisturbed run.

python tests/reliability/annotate_kills.py --clips 2000 --kills 10 --processes 2

Each process is forked from this one, which has imported the libraries. A start is killed at a random time; or right
before an operation of a process on a file of the output folder, and the others then; or one process at a random time,
and the others go on. A folder is killed until it is complete, then the next one follows. At the end each must hold the
same files as that of one process that was never disturbed, byte for byte. The exit code is 1 if one does not.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]
os.environ.setdefault("OMP_NUM_THREADS", "1")


SECONDS_PER_START = 1800
ALL, OPERATION, ONE = "all, at a random time", "all, before an operation of one", "one, at a random time"
WAYS = {ALL: 5, OPERATION: 4, ONE: 1}
"""How often each is tried."""


def start(words: list[object], folder: Path, processes: int, operation: int | None = None) -> list[int]:
    """Fork the processes of a run; the first one counts its operations, and ends before the last that it may do."""
    pids = []
    for rank in range(processes):
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = child(words, folder, rank, processes, operation if rank == 0 else None)
            finally:
                os._exit(code)
        pids.append(pid)
    return pids


def child(words: list[object], folder: Path, rank: int, processes: int, operation: int | None) -> int:
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
    from helpers.tiny import run_script
    from reliability.kills import Counting

    counting = Counting(folder, operation)
    ended = run_script("annotate", [*words, "--output_dir", folder])
    with folder.with_suffix(".log").open("a") as log:
        print(ended.stdout, ended.stderr, file=log)
    if rank == 0:
        folder.with_suffix(".count").write_text(str(counting.count))
    return ended.code


def wait(pids: list[int], killed: list[int], seconds: float | None) -> list[int]:
    """Wait until all have ended, and kill some after some seconds, or when one is dead; their exit codes."""
    begun, codes = time.monotonic(), {}
    while len(codes) < len(pids):
        for pid in [pid for pid in pids if pid not in codes]:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                codes[pid] = os.waitstatus_to_exitcode(status)
        waited = time.monotonic() - begun
        late = waited > seconds if seconds is not None else -signal.SIGKILL in codes.values()
        for pid in [pid for pid in pids if pid not in codes]:
            if (late and pid in killed) or waited > SECONDS_PER_START:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return [codes[pid] for pid in pids]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def torment(words: list[object], folder: Path, args: argparse.Namespace, undisturbed: tuple, left: int) -> Counter:
    """Start a folder until it is complete, and kill as long as kills are left; how often each way hit."""
    seconds, operations = undisturbed
    hits: Counter = Counter()
    while not (folder / "manifest.json").exists():
        way = args.dice.choices(list(WAYS), WAYS.values())[0] if hits.total() < left else None
        operation = args.dice.randint(1, max(2, operations // 8)) if way == OPERATION else None
        pids = start(words, folder, args.processes, operation)
        killed = {ALL: pids, OPERATION: pids, ONE: [args.dice.choice(pids)], None: []}[way]
        codes = wait(pids, killed, args.dice.uniform(0, seconds / 6) if way in (ALL, ONE) else None)
        if wrong := [code for code in codes if code not in (0, -signal.SIGKILL)]:
            raise SystemExit(f"{folder}: exit code {wrong[0]}: {folder.with_suffix('.log').read_text()}")
        if way and -signal.SIGKILL in codes:
            hits[way] += 1
    wait(start(words, folder, 1), [], None)  # it may have been killed right after it was complete
    return hits


def trial(words: list[object], folder: Path, args: argparse.Namespace) -> list[str]:
    """Make the kills, and print the table; the folders that are not as they should be."""
    begun = time.monotonic()
    wait(start(words, folder / "undisturbed", 1), [], None)
    undisturbed = time.monotonic() - begun, int((folder / "undisturbed.count").read_text())
    reference = contents(folder / "undisturbed")
    hits, wrong, folders = Counter(), [], 0
    while hits.total() < args.kills:
        folders += 1
        run = folder / f"run{folders}"
        hits += torment(words, run, args, undisturbed, args.kills - hits.total())
        if contents(run) != reference:
            wrong.append(run.name)
    print(f"{args.clips} clips in {len(reference) - 2} shards, {args.processes} processes")
    for way in WAYS:
        print(f"| {way} | {hits[way]} |")
    print(f"| kills | {hits.total()} |\n| folders | {folders} |\n| not the same | {len(wrong)} |", flush=True)
    return wrong


def main() -> None:
    """Make clips and an untrained model, and try."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=10, help="kills in all")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--shard_files", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.dice = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary).resolve()
        from helpers.untrained import write_clips, write_model

        import ser_mtl.annotation.work  # noqa: F401 (for the forks)

        flags = {"data_dir": write_clips(folder / "clips", args.clips), "model": write_model(folder / "model")}
        words = [word for name, value in flags.items() for word in (f"--{name}", value)]
        wrong = trial([*words, "--shard_files", args.shard_files], folder, args)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
