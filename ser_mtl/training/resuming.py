"""A Trainer whose interrupted runs end as if they had not been interrupted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import TrainOutput
from typing_extensions import TypedDict

from ser_mtl.errors import UserError
from ser_mtl.files import read_json, write_json, writing
from ser_mtl.training.checkpoints import (
    PARTIAL,
    STATE,
    State,
    best_checkpoint,
    check_whole,
    last_checkpoint,
    rotate,
    seal,
    tidy,
)

_LOSSES = "losses.json"
_PARTIAL = ".partial.checkpoint"


class Losses(TypedDict):
    """The sums of one process."""

    trained: float
    since_log: float
    last_log: int
    sums: dict[str, float]
    first_update_summed: int


class ResumableTrainer(Trainer):
    """Adds to transformers' Trainer what it lacks for resuming without a trace.

    - A checkpoint appears whole, with the digests of its files. Older ones are deleted only then, and the last one
      stays when training ends, since a run is not over before its results are written.
    - The losses since the last log, and of the whole training, are in the checkpoint.
    - The best checkpoint is found from its step, wherever the folder is. Without it the run does not finish.
    """

    def __init__(self, *, args: TrainingArguments, **kwargs):
        args.enable_jit_checkpoint = False  # it saves on signals, as all runs do here, and would exit as if finished
        super().__init__(args=args, **kwargs)
        self.add_callback(_RestoreLosses(self))
        self._loss_sums: dict[str, Tensor] = {}
        self._first_update_summed = 0
        self._being_written: Path | None = None
        self._saved_losses: list[dict] = []

    def where_to_resume(self, checkpoint: str | bool | None) -> str | None:
        """The named checkpoint, or else the last whole one in the output folder; None for the start.

        Raises:
            UserError: the checkpoint is missing or damaged, or the best one before it is.
        """
        folder = Path(self.args.output_dir)
        tidy(folder, PARTIAL)
        named = checkpoint if isinstance(checkpoint, str) else self.args.resume_from_checkpoint
        begin = Path(named) if named else last_checkpoint(folder)
        if begin is None:
            return None
        if named:
            check_whole(begin)
        best = read_json(begin / STATE, State).get("best_global_step")
        if self.args.load_best_model_at_end and best and begin != folder / f"checkpoint-{best}":
            best_checkpoint(folder, best)
        return str(begin)

    def train_from(self, checkpoint: str | None, **kwargs) -> TrainOutput:
        """Resume training from a whole checkpoint, or train from the start."""
        saved = Path(checkpoint or "") / _LOSSES  # not in a checkpoint of version 0.1
        self._saved_losses = read_json(saved, list[Losses]) if checkpoint and saved.is_file() else []
        with self._all_checkpoints_kept():
            output = super().train(checkpoint, **kwargs)
        return output._replace(training_loss=output.metrics["train_loss"])

    # ------------------------------------------------------------------------------------------- checkpoints

    @contextmanager
    def _all_checkpoints_kept(self) -> Iterator[None]:
        """Keep the Trainer from deleting checkpoints: it would do so before a new one is whole, and at the end."""
        self._limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            yield
        finally:
            self.args.save_total_limit = self._limit

    def _get_output_dir(self, trial) -> str:
        return str(self._being_written or super()._get_output_dir(trial))

    def _save_checkpoint(self, model: nn.Module, trial) -> None:
        folder = Path(self.args.output_dir)
        self._being_written = folder / _PARTIAL
        try:
            with writing(folder):
                self._write_checkpoint(model, trial, folder)
        except OSError:  # a disk that is full
            tidy(folder, (_PARTIAL,))
            raise
        finally:
            self._being_written = None

    def _write_checkpoint(self, model: nn.Module, trial, folder: Path) -> None:
        losses = self._losses_so_far()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random numbers
        if self.args.should_save:
            written = folder / _PARTIAL / f"checkpoint-{self.state.global_step}"
            write_json(written / _LOSSES, losses)
            # A path would be dropped, with a warning, if the folder had moved.
            replace(self.state, best_model_checkpoint=None).save_to_json(str(written / STATE))
            seal(written)
            tidy(folder, (written.name,))
            written.rename(folder / written.name)
            written.parent.rmdir()
            rotate(folder, self._limit, {self.state.global_step, self.state.best_global_step or self.state.global_step})
        self.accelerator.wait_for_everyone()

    def _init_training_state(self, *args, **kwargs) -> tuple[int, int]:
        trained = super()._init_training_state(*args, **kwargs)
        self.state.best_model_checkpoint = None
        return trained

    def _run_epoch(self, *args, **kwargs) -> None:
        """Run an epoch, unless the last update was done before the interruption, in the middle of this one."""
        self.control.should_training_stop |= self.state.global_step >= self.state.max_steps
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, *args, **kwargs):
        if self.args.load_best_model_at_end:
            if self.state.best_global_step is None:
                raise UserError(
                    f"--selection {self.args.selection}: no update was evaluated, so none is the best; evaluate more "
                    "often, or use --selection last"
                )
            self.state.best_model_checkpoint = str(
                best_checkpoint(Path(self.args.output_dir), self.state.best_global_step)
            )
        return super()._finalize_training(*args, **kwargs)

    # ------------------------------------------------------------------------------------------------ losses

    def _losses_so_far(self) -> list[dict]:
        """The losses that each process has summed, since the last log and over the training."""
        own = {
            "trained": self._total_loss_scalar,
            "since_log": self._tr_loss.item(),
            "last_log": self._globalstep_last_logged,
            "sums": {name: float(value) for name, value in self._loss_sums.items()},
            "first_update_summed": self._first_update_summed,
        }
        return gather_object([own]) if self.args.world_size > 1 else [own]

    def restore_losses(self) -> None:
        """Restore the sums of the checkpoint. With another number of processes, each gets an equal share."""
        saved, device = self._saved_losses, self.args.device
        if not saved:
            return
        own = saved[min(self.args.process_index, len(saved) - 1)]
        share = 1.0
        if len(saved) != self.args.world_size:
            share = len(saved) / self.args.world_size  # losses are means over processes, sums are sums
            own = own | {"since_log": fmean(losses["since_log"] for losses in saved)}
            own |= {"sums": {name: fmean(losses["sums"][name] for losses in saved) for name in own["sums"]}}
        self._total_loss_scalar, self._globalstep_last_logged = own["trained"], own["last_log"]
        self._tr_loss = torch.tensor(own["since_log"], device=device)
        self._loss_sums = {name: torch.tensor(value * share, device=device) for name, value in own["sums"].items()}
        self._first_update_summed = own["first_update_summed"]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log. `train_loss` is the mean over all updates, those before an interruption too."""
        if "train_loss" in logs:
            logs["train_loss"] = self._total_loss_scalar / max(1, self.state.global_step)
        super().log(logs, start_time)


class _RestoreLosses(TrainerCallback):
    def __init__(self, trainer: ResumableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **kwargs):
        """Restore the losses, which the Trainer has just set to zero."""
        self.trainer.restore_losses()
