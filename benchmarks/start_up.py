"""Time and memory of a run up to its first batch, imports left out: at first, and again with caches.

python benchmarks/start_up.py                     # a corpus the size of IEMOCAP
python benchmarks/start_up.py --clips 20000       # 20,000 clips of half a second
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
import numpy as np
import soundfile
from transformers.utils import logging

from benchmarks.measuring import CUDA
from benchmarks.ours import QUIET
from benchmarks.workload import EMOTIONS, iemocap_lengths, save_untrained, write_noise, xls_r_300m
from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folds import split
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.stage import Stage1
from ser_mtl.training.trainer import SerMtlTrainer

SPEAKERS = 50


def write_clips(folder: Path, clips: int) -> None:
    """Write a folder corpus of clips of about half a second, cut from a minute of noise."""
    random = np.random.default_rng(0)
    noise = random.normal(0, 3000, 960_000).clip(-32768, 32767).astype(np.int16)
    folder.mkdir()
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "emotion", "gender", "style", "text", "speaker", "fold"])
        for number in range(clips):
            length, speaker = int(random.integers(7200, 8800)), number % SPEAKERS
            start = number % (len(noise) - 8800)  # no two alike: they would be a leak
            soundfile.write(folder / f"{number:06d}.wav", noise[start : start + length], 16_000)
            text = "".join(random.choice(list("abcdefg"), 7))
            labels = [
                EMOTIONS[number % 4],
                ("female", "male")[speaker % 2],
                ("improvised", "scripted")[number // 8 % 2],
            ]
            table.writerow([f"{number:06d}.wav", *labels, text, f"speaker {speaker}", speaker % 5 + 1])


def first_batch(folder: Path) -> None:
    """Do what run_stage1.py does up to the first batch, and print its cost."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    begun, used = time.perf_counter(), cpu_seconds()
    parts = split(load_corpus("folder", [folder / "noise"]), 1, "none")
    run = SerMtlArguments(output_dir=str(folder / "run"), **QUIET)
    trainer = SerMtlTrainer(Stage1(encoder=str(folder / "encoder")), run, parts)
    next(iter(trainer.get_train_dataloader()))
    peaks = [one.ru_maxrss >> 10 for one in usage()]
    print(
        f"{sum(map(len, parts.values()))} utterances: {time.perf_counter() - begun:.1f} s to the first batch, "
        f"{cpu_seconds() - used:.1f} of CPU time, peak {peaks[0]} MiB, of the processes it starts {peaks[1]} MiB"
    )


def usage() -> list:
    """Resources used so far by this process and by its children."""
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def cpu_seconds() -> float:
    """CPU seconds so far of this process and its children."""
    return sum(one.ru_utime + one.ru_stime for one in usage())


def main() -> None:
    """Write the corpus, then start twice, each time in a new process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, help="half-second clips [the lengths of IEMOCAP]")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    logging.disable_progress_bar()
    if args.folder:
        return first_batch(args.folder)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if args.clips:
            write_clips(folder / "noise", args.clips)
        else:
            write_noise(folder / "noise", iemocap_lengths())
        if CUDA:
            save_untrained(xls_r_300m(), folder / "encoder")
        else:
            demo_encoder(folder / "encoder")
        for when in ("at first", "again"):
            print(f"{when}:", flush=True)
            command = [sys.executable, __file__, "--folder", str(folder)]
            subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
