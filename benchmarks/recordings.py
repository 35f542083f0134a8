"""The cost of recordings: long ones, a clip against the bare forward pass, and annotation by one and two processes.

python benchmarks/recordings.py RUN                       takes minutes
python benchmarks/recordings.py RUN --minutes 1 30 600    other lengths; 600 minutes take 15

Recordings are bursts of noise with pauses. Commands run in their own processes on all cores, start and loading
included. Answers and forward passes of the clip take turns, on one thread.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import soundfile
import torch

import ser_mtl
from benchmarks.service import RATE, noise
from benchmarks.workload import scratch_folder
from ser_mtl.inference.recognizer import Recognizer

CALLS = 31


def main() -> None:
    """Print three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="Folder of a trained model.")
    parser.add_argument("--minutes", nargs="*", type=int, default=[1, 30], help="Lengths of recordings.")
    parser.add_argument("--clips", type=int, default=2000, help="To annotate, of 3 to 7 seconds.")
    parser.add_argument("--rounds", type=int, default=3, help="Of annotation by one process and by two, in turns.")
    args = parser.parse_args()
    with scratch_folder() as folder:
        hours(args.run, args.minutes, folder)
        clip(args.run)
        if args.rounds:
            annotated(args.run, args.clips, args.rounds, folder)


def hours(run: Path, minutes: list[int], folder: Path) -> None:
    """Print the cost of `ser-mtl predict` for a recording of each length, with and without transcripts."""
    print("| minutes | transcript | seconds | RTF | CPU seconds | peak, MiB |\n|" + "---|" * 6)
    for length in minutes:
        write_noise(folder / f"{length}.flac", length)
        for flags in ([], ["--no_transcript"]):
            predict = ["predict", folder / f"{length}.flac", "--model", run, "--format", "jsonl", *flags]
            seconds, cpu, peak = cost([sys.executable, "-m", "ser_mtl", *predict])
            rtf = seconds / (60 * length)
            print(f"| {length} | {'no' if flags else 'yes'} | {seconds:.1f} | {rtf:.4f} | {cpu:.1f} | {peak:.0f} |")


def clip(run: Path) -> None:
    """Print milliseconds of the answer to five seconds and of the bare forward pass."""
    torch.set_num_threads(1)
    recognizer = ser_mtl.load(run, device="cpu")
    samples = noise(5)
    batch = recognizer.processor(samples / np.float32(32768), sampling_rate=RATE, return_tensors="pt")
    values = batch["input_values"]
    mask = torch.ones(values.shape, dtype=torch.long)
    ways = {
        "bare forward pass": lambda: recognizer.model(values, attention_mask=mask),
        "answer": lambda: recognizer((samples, RATE)),
        "answer without transcript": lambda: recognizer((samples, RATE), transcript=False),
    }
    seconds = turns(ways, recognizer)
    print("\n| five seconds, one thread | ms | x the pass |\n|---|---|---|")
    for name, times in seconds.items():
        ratio = median(a / b for a, b in zip(times, seconds["bare forward pass"], strict=True))
        print(f"| {name} | {1000 * median(times):.1f} | {ratio:.2f} |")


@torch.inference_mode()
def turns(ways: dict[str, Callable], recognizer: Recognizer) -> dict[str, list[float]]:
    """Seconds of each call of each way; the first call of each is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for call in range(CALLS + 1):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            if call:
                seconds[name].append(time.perf_counter() - begun)
    return seconds


def annotated(run: Path, clips: int, rounds: int, folder: Path) -> None:
    """Print seconds of annotating the same clips by one process and by two, of one thread each, in turns."""
    random = np.random.default_rng(0)
    (folder / "clips").mkdir()
    for number in range(clips):
        soundfile.write(folder / "clips" / f"{number}.wav", noise(int(random.integers(3, 8)), number), RATE)
    os.environ["OMP_NUM_THREADS"] = "1"
    seconds: dict[int, list[float]] = {1: [], 2: []}
    for number in range(rounds):
        for processes in (1, 2):
            start = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(processes), "-m", "ser_mtl"]
            work = ["annotate", "--data_dir", folder / "clips", "--model", run, "--shard_files", "20"]
            seconds[processes].append(cost([*start, *work, "--output_dir", folder / f"{number}-{processes}"])[0])
    ratios = [one / two for one, two in zip(seconds[1], seconds[2], strict=True)]
    print(
        f"\n{clips} clips annotated: {median(seconds[1]):.1f} seconds by one process, {median(seconds[2]):.1f} by two;",
        end=" ",
    )
    print(f"ratios {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


def write_noise(file: Path, minutes: int) -> None:
    """Write minutes of noise, one at a time."""
    with soundfile.SoundFile(file, "w", RATE, 1) as out:
        for minute in range(minutes):
            out.write(noise(60, minute))


def cost(command: list) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak MiB of a command and of the processes that it waits for.

    Raises:
        CalledProcessError: it failed.
    """
    begun = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise subprocess.CalledProcessError(status, command)
    return time.perf_counter() - begun, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
