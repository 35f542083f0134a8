"""Both stages as run_stage1.py and run_stage2.py build them, ready for the first update."""

import time
from dataclasses import dataclass
from pathlib import Path

from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.utterances import joined
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.data import model_inputs
from ser_mtl.training.method import Start
from ser_mtl.training.stage import Stage, Stage1, Stage2
from ser_mtl.training.start import start_of
from ser_mtl.training.trainer import SerMtlTrainer

QUIET = {"save_strategy": "no", "selection": "last", "logging_strategy": "no", "disable_tqdm": True}
"""Flags of a run that trains and does nothing else."""


@dataclass
class Prepared:
    """A stage ready to train, and the speed of its frozen front end in audio-seconds per second."""

    trainer: SerMtlTrainer
    start: Start
    front_end_speed: float


def prepare_stage1(encoder: Path, noise: Path, args: SerMtlArguments, train_front_end: bool = False) -> Prepared:
    """Stage 1 on a pretrained encoder.

    Args:
        encoder: its folder.
        noise: folder of the corpus.
        args: of the training.
        train_front_end: whether the front end is trained.
    """
    return _prepare(Stage1(encoder=str(encoder), train_front_end=train_front_end), noise, args)


def prepare_stage2(stage1: Path, noise: Path, args: SerMtlArguments) -> Prepared:
    """Stage 2 on a folder that holds stage 1's model and processor."""
    return _prepare(Stage2(stage1=str(stage1)), noise, args)


def _prepare(stage: Stage, noise: Path, args: SerMtlArguments) -> Prepared:
    parts = split(load_corpus("folder", [noise]), 1, "none")
    start = start_of(stage, parts)
    begun = time.perf_counter()
    lengths = model_inputs(joined(parts), start, stage, args)["length"][:]  # cached on disk for the trainer
    speed = sum(lengths) / SAMPLING_RATE / (time.perf_counter() - begun)
    return Prepared(SerMtlTrainer(stage, args, parts, start=start), start, speed)
