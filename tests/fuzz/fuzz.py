"""Try the entry points on random inputs, and count those that break the contract of `sandbox`.

nice python tests/fuzz/fuzz.py --inputs 20000 --seed 0

Hypothesis draws the inputs; each is tried in a forked child with limits on time and memory. The inputs that break the
contract are printed as they are kept in `findings.py`. The exit code is 1 if there are any.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).resolve().parents[2]), str(Path(__file__).resolve().parents[1])]
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ.setdefault("HF_DATASETS_CACHE", tempfile.mkdtemp(prefix="ser-mtl-fuzz-cache-"))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from fuzz.sandbox import Sandbox
from fuzz.targets import Target, targets
from fuzz.world import make_world


def faults_of(target: Target, inputs: int, number: int) -> tuple[dict[str, list], int, float]:
    """Try so many inputs of a target: the inputs by fault, the number tried, and the seconds of the slowest."""
    faults: dict[str, list] = defaultdict(list)
    tried, slowest = 0, 0.0
    sandbox = Sandbox(target.work)

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.inputs)
    def one(item) -> None:
        nonlocal tried, slowest
        begin = time.monotonic()
        fault = sandbox.fault(item)
        tried, slowest = tried + 1, max(slowest, time.monotonic() - begin)
        if fault:
            faults[fault].append(item)

    try:
        one()
    finally:
        sandbox.close()
    return faults, tried, slowest


def share_of(target: Target, all_of_them: Iterable[Target], inputs: int) -> int:
    """How many of the inputs a target gets."""
    return -(-inputs * target.share // sum(one.share for one in all_of_them))


def main() -> None:
    """Try all targets, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=[], help="Names of targets.")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="ser-mtl-fuzz-world-") as folder:
        world = make_world(Path(folder))
        chosen = [target for target in targets(world).values() if not args.only or target.name in args.only]
        total, broken = 0, 0
        print("| entry point | inputs | broken | slowest, s |\n|---|---|---|---|", flush=True)
        for target in chosen:
            faults, tried, slowest = faults_of(target, share_of(target, chosen, args.inputs), args.seed)
            count = sum(map(len, faults.values()))
            total, broken = total + tried, broken + count
            print(f"| {target.name} | {tried} | {count} | {slowest:.1f} |", flush=True)
            for fault, items in faults.items():
                smallest = min(items, key=lambda item: len(repr(item)))
                print(f"    {len(items)} x {fault}\n      {smallest!r:.600}", file=sys.stderr, flush=True)
    print(f"| **all** | {total} | {broken} | |")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
