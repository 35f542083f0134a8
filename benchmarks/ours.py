"""Both stages as the scripts build them, up to the first update: what the benchmarks time."""

import time
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.targets import label_sets
from ser_mtl.training import steps
from ser_mtl.training.arguments import CorpusArguments, MethodArguments, RunArguments, Stage1Arguments, Stage2Arguments
from ser_mtl.training.start import Start, stage1_start, stage2_start
from ser_mtl.training.trainer import SerMtlTrainer

QUIET = {"save_strategy": "no", "eval_strategy": "no", "logging_strategy": "no", "disable_tqdm": True}
"""Flags of a run that does nothing but train."""


@dataclass
class Prepared:
    """A stage that is ready to train, and audio-seconds a second of its frozen front end, once for all epochs."""

    trainer: SerMtlTrainer
    start: Start
    front_end_speed: float


def read_noise(folder: Path, run: RunArguments) -> tuple[Dataset, DatasetDict]:
    """What `benchmarks.workload.write_noise` wrote into a folder, and its splits; the leak check is passed."""
    corpus = steps.load_corpus(CorpusArguments(fold=1, corpus="folder", data_dir=[str(folder)], dev="none"), run)
    splits = split(corpus, 1, "none")
    steps.look_for_leaks(splits, run)
    return corpus, splits


def prepare_stage1(encoder: Path, noise: Path, run: RunArguments, front_end: str = "once") -> Prepared:
    """Stage 1 on a pretrained encoder.

    Args:
        encoder: its folder.
        noise: folder of the corpus.
        run: how it trains.
        front_end: "once" an utterance; "every step", frozen; or "trained".
    """
    corpus, splits = read_noise(noise, run)
    method = Stage1Arguments(encoder=str(encoder), selection="last", train_front_end=front_end == "trained")
    start = stage1_start(method, label_sets(corpus, method.tasks), splits["train"])
    with patch.object(steps, "front_end_is_frozen", return_value=front_end == "once"):
        return _prepare(corpus, splits, start, method, run)


def prepare_stage2(stage1: Path, noise: Path, run: RunArguments) -> Prepared:
    """Stage 2 on a folder that holds stage 1's model and processor."""
    corpus, splits = read_noise(noise, run)
    method = Stage2Arguments(stage1=str(stage1), selection="last")
    return _prepare(corpus, splits, stage2_start(method, label_sets(corpus, method.tasks)), method, run)


def _prepare(
    corpus: Dataset, splits: DatasetDict, start: Start, method: MethodArguments, run: RunArguments
) -> Prepared:
    begun = time.perf_counter()
    corpus, rows = steps.training_rows(corpus, splits, start, method, run)
    speed = sum(corpus["length"]) / SAMPLING_RATE / (time.perf_counter() - begun)
    return Prepared(steps.build_trainer(corpus, rows, start, method, run), start, speed)
