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

from benchmarks.throughput import CUDA
from benchmarks.workload import iemocap_lengths, save_untrained, write_noise, xls_r_300m
from data.folds import split
from data.targets import label_sets
from training.arguments import CorpusArguments, RunArguments, Stage1Arguments
from training.models import demo_encoder, stage1_start
from training.run import build_trainer, load_corpus, look_for_leaks, training_rows


def first_batch(folder: Path) -> None:
    """Do what run_stage1.py does up to the first batch, and print the seconds."""
    datasets.config.HF_DATASETS_CACHE = folder / "cache"
    begun = time.perf_counter()
    corpus_args = CorpusArguments(fold=1, corpus="folder", data_dir=[str(folder / "noise")], dev="none")
    run = RunArguments(output_dir=str(folder / "run"), eval_strategy="no", save_strategy="no")
    method = Stage1Arguments(encoder=str(folder / "encoder"), selection="last")
    corpus = load_corpus(corpus_args, run)
    splits = split(corpus, 1, "none")
    look_for_leaks(splits, run)
    start = stage1_start(method, label_sets(corpus, method.tasks), splits["train"])
    corpus, data = training_rows(corpus, splits, start, method, run)
    trainer = build_trainer(corpus, data, start, method, run)
    next(iter(trainer.get_train_dataloader()))
    print(f"{len(corpus)} utterances: {time.perf_counter() - begun:.1f} s to the first batch")


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
            print(f"{when}: ", end="", flush=True)
            subprocess.run([sys.executable, __file__, str(folder)], check=True, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
