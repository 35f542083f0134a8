"""Divergence: a run stops at the first update whose loss or gradient is not finite, before it saves anything of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import TrainerCallback

from ser_mtl.errors import UserError, some_of

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer

UPDATES_PER_LOOK = 16
"""Updates that are checked together: each check waits for the device."""
_NAMED = 5
"""Utterances that a message names."""


@dataclass
class Update:
    """The losses of an update, kept until they are checked.

    Attributes:
        step: its number, from 1.
        batches: rows of the corpus, (batch,), and each loss of every utterance, (batch,).
        finite: 1 if losses and gradient are, else 0; a scalar on the device.
    """

    step: int
    batches: list[tuple[Tensor, dict[str, Tensor]]] = field(default_factory=list)
    finite: Tensor | None = None


class Divergence(TrainerCallback):
    """Stop where training diverges, before anything that is not finite is logged, evaluated or saved.

    Args:
        trainer: the Trainer it belongs to, which notes losses and gradients.
    """

    def __init__(self, trainer: SerMtlTrainer):
        self.trainer = trainer
        self.updates: list[Update] = []
        self.looked = False
        self.batches: list[tuple[Tensor, dict[str, Tensor]]] = []

    def note_losses(self, rows: Tensor, losses: dict[str, Tensor]) -> None:
        """Keep the losses of a batch, of each utterance: (batch,) each."""
        self.batches.append((rows, {name: values.detach() for name, values in losses.items()}))

    def note_gradient(self, model: nn.Module) -> None:
        """After the last batch of an update: note whether its losses and its gradient are finite.

        In fp16 a gradient may overflow: the scaler then skips the update.
        """
        losses = torch.stack([values.sum() for _, batch in self.batches for values in batch.values()])
        finite = losses.isfinite().all()
        gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        if gradients and not self.trainer.args.fp16:
            finite = finite & torch.nn.utils.get_total_norm(gradients).isfinite()
        refuted = (~finite).float()
        if self.trainer.args.world_size > 1:
            refuted = self.trainer.accelerator.reduce(refuted)
        self.updates.append(Update(self.trainer.state.global_step + 1, self.batches, refuted == 0))
        self.batches = []

    def on_step_begin(self, args, state, control, **kwargs):
        """Check the updates so far, if there are enough."""
        if len(self.updates) >= UPDATES_PER_LOOK:
            self.look()

    def on_step_end(self, args, state, control, model, optimizer, **kwargs):
        """Check after the first update, and before anything is logged, evaluated or saved."""
        if control.should_log or control.should_evaluate or control.should_save or not self.looked:
            self.look()
        if control.should_evaluate or control.should_save:
            self.check_weights(model, optimizer)

    def on_epoch_end(self, args, state, control, model, optimizer, **kwargs):
        """Check before the evaluation and checkpoint of an epoch, or the end of training."""
        self.look()
        self.check_weights(model, optimizer)

    def look(self) -> None:
        """Check the updates since the last check.

        Raises:
            UserError: names the first update that is not finite, its losses, and its utterances.
        """
        updates, self.updates, self.looked = self.updates, [], True
        finite = torch.stack([update.finite for update in updates]).tolist() if updates else []
        if not all(finite):
            raise UserError(self._message(updates[finite.index(False)]))

    def _message(self, update: Update) -> str:
        corpus, own = self.trainer.corpus, []
        for rows, losses in update.batches:
            by_name = {name: values.tolist() for name, values in losses.items()}
            own += [
                (corpus[row]["id"], {name: values[i] for name, values in by_name.items()})
                for i, row in enumerate(rows.tolist())
                if row >= 0
            ]
        utterances = gather_object(own)  # of all processes, which all come here
        names = utterances[0][1] if utterances else {}
        means = {name: sum(losses[name] for _, losses in utterances) / len(utterances) for name in names}
        guilty = [name for name, losses in utterances if not all(map(math.isfinite, losses.values()))]
        what = "loss" if guilty else "gradient"
        values = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        return (
            f"step {update.step}: training diverged, its {what} is not finite; losses: {values}; utterances: "
            f"{some_of(guilty or [name for name, _ in utterances], _NAMED)}; use a lower --learning_rate (now "
            f"{self.trainer.args.learning_rate:g}), or look at these recordings"
        )

    def check_weights(self, model: nn.Module, optimizer) -> None:
        """Check the weights and the optimizer's state, as a checkpoint would hold them.

        Raises:
            UserError: one of them is not finite.
        """
        state = getattr(getattr(optimizer, "optimizer", optimizer), "state", {})
        kept = [value for values in state.values() if isinstance(values, dict) for value in values.values()]
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        for what, tensors in (("a weight", trained), ("a value of the optimizer", kept)):
            if not _all_finite(tensors):
                raise UserError(
                    f"step {self.trainer.state.global_step}: training diverged, {what} is not finite; use a lower "
                    f"--learning_rate (now {self.trainer.args.learning_rate:g})"
                )


def _all_finite(values: Iterable) -> bool:
    floats = [value.detach() for value in values if isinstance(value, Tensor) and value.is_floating_point()]
    flags: dict[torch.device, list[Tensor]] = {}  # an optimizer may keep some of its numbers on the CPU
    for value in floats:
        flags.setdefault(value.device, []).append(value.isfinite().all())
    return all(bool(torch.stack(of_device).all()) for of_device in flags.values())


def check_finite(metrics: dict[str, float], step: int) -> None:
    """Check metrics before they are logged. The gradient's norm may be infinite in fp16, and is then left out.

    Raises:
        UserError: names the metric.
    """
    if not math.isfinite(metrics.get("grad_norm", 0.0)):
        del metrics["grad_norm"]
    for name, value in metrics.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(
                f"step {step}: {name} is {value}: training diverged; use a lower --learning_rate, or look at the "
                "recordings"
            )


def check_finite_rows(ids: list[str], probabilities: dict[str, np.ndarray], step: int) -> None:
    """Check the predictions of utterances, (utterances, classes) or (utterances,) for each task.

    Raises:
        UserError: names the utterances without one.
    """
    for task, values in probabilities.items():
        wrong = [
            name
            for name, finite in zip(ids, np.isfinite(values.reshape(len(ids), -1)).all(axis=-1), strict=True)
            if not finite
        ]
        if wrong:
            raise UserError(
                f"step {step}: training diverged, {task} has no finite prediction for {some_of(wrong, _NAMED)}; use a "
                "lower --learning_rate, or look at these recordings"
            )
