"""How long a run on a corpus as large as IEMOCAP takes to its first batch, beyond the imports: at first, and again.

python benchmarks/start_up.py
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import datasets
from transformers.utils import logging

from benchmarks.measuring import CUDA
from benchmarks.ours import QUIET, prepare_stage1
from benchmarks.workload import iemocap_lengths, save_untrained, write_noise, xls_r_300m
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.training.arguments import SerMtlArguments


def first_batch(folder: Path) -> None:
    """Do what run_stage1.py does up to the first batch, and print the seconds."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    begun = time.perf_counter()
    run = SerMtlArguments(output_dir=str(folder / "run"), **QUIET)
    trainer = prepare_stage1(folder / "encoder", folder / "noise", run).trainer
    next(iter(trainer.get_train_dataloader()))
    print(f"{len(trainer.corpus)} utterances: {time.perf_counter() - begun:.1f} s to the first batch")


def main() -> None:
    """Write the corpus, then start twice, each in a process of its own."""
    logging.disable_progress_bar()
    if len(sys.argv) > 1:
        return first_batch(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_noise(folder / "noise", iemocap_lengths())
        if CUDA:
            save_untrained(xls_r_300m(), folder / "encoder")
        else:
            demo_encoder(folder / "encoder")
        for when in ("at first", "again"):
            print(f"{when}:", flush=True)
            subprocess.run([sys.executable, __file__, str(folder)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
