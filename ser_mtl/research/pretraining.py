"""A Trainer that continues an encoder's pretraining on the recordings of a training set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from datasets import Dataset, DatasetDict
from torch import Tensor, nn
from transformers import ProgressCallback
from transformers.trainer_callback import PrinterCallback

from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.corpora.folds import DevChoice, Fold
from ser_mtl.corpora.split_record import split_record, with_content
from ser_mtl.errors import UserError
from ser_mtl.files import write_json
from ser_mtl.lock import release
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.callbacks import EpochProgress, SamplerEpoch, SparingCheckpoints, StopOnSignal, Stopwatch
from ser_mtl.training.checks import flag
from ser_mtl.training.resuming import ResumableTrainer
from ser_mtl.training.run_folder import take_run_folder
from ser_mtl.training.stage import Stage1

FEWEST_SPANS = 2
"""Masked spans of an utterance."""


@dataclass
class Pretraining(Stage1):
    """The flags of continued pretraining, which needs no labels."""

    default_tasks: ClassVar[tuple[str, ...]] = ("emotion",)

    objective: Literal["contrastive", "units"] = flag(
        "contrastive",
        "contrastive: wav2vec 2.0's own loss, by the class of transformers; units: predict the cluster of masked "
        "frames, with any encoder.",
    )
    frames: str | None = flag(None, "units: folder of the stage-1 run whose frames are clustered.")
    units: list[int] = flag([64, 512, 4096], "units: numbers of clusters, each predicted by its own head.")

    def __post_init__(self):
        super().__post_init__()
        if (self.objective == "units") != (self.frames is not None):
            raise UserError("--frames: goes with --objective units, which needs it; name a stage-1 run, or drop it")
        if not self.units or min(self.units) < 2:
            raise UserError(f"--units {' '.join(map(str, self.units))}: must be numbers of clusters, at least 2")


class Pretrainer(ResumableTrainer):
    """A Trainer of a model whose forward pass gives its loss, in one process; an interrupted run is resumed.

    Args:
        model: `Contrastive` or `MaskedUnits`.
        args: of training; nothing is evaluated.
        utterances: the training set, with the columns of `ser_mtl.corpora.audio.with_samples`.
        rows: its columns that go into batches, with `length`.
        collator: makes the batches.
        save: writes the encoder to a folder.
    """

    def __init__(
        self,
        model: nn.Module,
        args: SerMtlArguments,
        utterances: Dataset,
        rows: Dataset,
        collator: Callable[[list[dict]], dict],
        save: Callable[[Path], None],
    ):
        super().__init__(model=model, args=args, train_dataset=rows, data_collator=collator)
        self.model_accepts_loss_kwargs = False
        self.utterances, self.save = utterances, save
        self.rows_of_parts, self.seconds_before = {"train": rows}, 0.0
        self._sampler = LengthGroupedSampler(np.asarray(rows["length"][:]), args.utterances_per_update, args.seed)
        self.stopwatch, self.stop_on_signal = Stopwatch(), StopOnSignal()
        checkpoints = SparingCheckpoints(args.save_minutes)
        for callback in (SamplerEpoch(self._sampler, rows), self.stopwatch, checkpoints, self.stop_on_signal):
            self.add_callback(callback)
        self.pop_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback):
            self.add_callback(EpochProgress())

    def train_in(self, folder: Path, record: dict, split: dict) -> None:
        """Train in a run's folder, with `args.json` and `split.json` in it.

        Raises:
            UserError: the folder holds another run, or one is at work there.
        """
        take_run_folder(folder, record)
        try:
            begin = self.where_to_resume(None)
            write_json(folder / "args.json", record)
            write_json(folder / "split.json", split)
            with self.stop_on_signal:
                self.train_from(begin)
        except BaseException:
            release(folder)
            raise

    def split_record(self, fold: Fold, dev: DevChoice) -> dict:
        """The content of `split.json`, which holds the training set alone."""
        record = split_record(DatasetDict({"train": self.utterances}), fold, dev)
        return with_content(record, self.utterances, {})

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        return self._sampler

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """The model's own loss."""
        return model(**inputs)["loss"]
