"""The cost of an answer in a service: by length, in lists, from many threads, for each form of a model.

python benchmarks/service.py runs/folder/stage2/fold1 runs/folder/stage2/fold1/merged runs/folder/stage2/fold1/onnx

Each folder is measured in its own process, with one thread for matrix products. Times are CPU seconds, which other work
on the machine hardly changes; on an idle machine they are the latency. Recordings are bursts of noise with pauses. An
ONNX graph takes each as one utterance, and no long ones: its memory grows with the square of the length.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np

RATE, SECONDS, AT_ONCE, ROUNDS = 16_000, (1, 5, 30, 300), 8, 5


def main() -> None:
    """Print a row for each folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="Folders of runs, or of a model.onnx.")
    parser.add_argument("--no_transcript", action="store_true")
    parser.add_argument("--here", action="store_true", help="Measure the first one here, and print json.")
    args = parser.parse_args()
    if args.here:
        return print(json.dumps(measured(args.runs[0], not args.no_transcript)))
    print("| model | first answer, s | " + " | ".join(f"{n} s, ms" for n in SECONDS), end=" | ")
    print(f"list of {AT_ONCE} of 5 s, ms each | {AT_ONCE} threads of 5 s, ms each | peak, MiB |\n|" + "---|" * 9)
    for run in args.runs:
        command = [sys.executable, __file__, run, "--here", *(["--no_transcript"] if args.no_transcript else [])]
        ended = subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True)
        print(f"| {run.name} | " + " | ".join(json.loads(ended.stdout.splitlines()[-1])) + " |", flush=True)


def measured(run: Path, transcript: bool) -> list[str]:
    """The cells of a folder's row."""
    is_graph = (run / "model.onnx").exists()
    answer = of_graph(run / "model.onnx") if is_graph else of_run(run, transcript)
    answer([noise(5)])
    cells = [f"{time.process_time():.1f}"]
    for n in SECONDS:
        cells.append("" if is_graph and n > 30 else f"{1000 * cost(lambda n=n: answer([noise(n)])):.0f}")
    clips = [noise(5, seed) for seed in range(AT_ONCE)]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        together = cost(lambda: answer(clips))
        at_once = cost(lambda: list(threads.map(lambda clip: answer([clip]), clips)))
    cells += [f"{1000 * seconds / AT_ONCE:.0f}" for seconds in (together, at_once)]
    return [*cells, f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f}"]


def cost(call: Callable[[], object]) -> float:
    """Median CPU seconds of a call."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        call()
        seconds.append(time.process_time() - begun)
    return median(seconds)


def noise(seconds: int, seed: int = 0) -> np.ndarray:
    """Bursts of noise of two to four seconds with pauses of half a second: (samples,), int16."""
    random = np.random.default_rng(seed)
    samples = random.normal(0, 3000, seconds * RATE)
    at = 0
    while (at := at + random.integers(2 * RATE, 4 * RATE)) < len(samples):
        samples[at : at + RATE // 2] *= 0.001
    return samples.astype(np.int16)


def of_run(run: Path, transcript: bool) -> Callable:
    """A function from clips to answers: the recognizer of a run."""
    import ser_mtl

    recognizer = ser_mtl.load(run, device="cpu", transcript=transcript)
    return lambda clips: recognizer([(clip, RATE) for clip in clips])


def of_graph(file: Path) -> Callable:
    """A function from clips to answers: the ONNX graph, one clip at a time."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options)

    def answer(clips: list[np.ndarray]) -> list:
        rows = [(clip / 32768).astype(np.float32)[None] for clip in clips]
        return [
            session.run(None, {"input_values": row, "attention_mask": np.ones(row.shape, np.int64)}) for row in rows
        ]

    return answer


if __name__ == "__main__":
    main()
