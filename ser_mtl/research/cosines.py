"""Conflicts between the losses: cosines between their gradients on the encoder, the norms, and the noise in them.

The gradient of a small batch is mostly noise, which shrinks every cosine: two losses whose expected gradients have a
cosine of -0.5 may read -0.04 at batches of 8. So each loss is also compared with itself on another batch. Without noise
that cosine would be 1, and a cosine between two losses cannot be expected to lie further from zero than about the
geometric mean of their own.
"""

import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NotRequired

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from typing_extensions import TypedDict

from modeling_ser_mtl import SerMtlOutput, loss_weights
from ser_mtl.evaluation.cosine_figure import mean_cosines, plot_gradient_cosines
from ser_mtl.files import read_json, write_json
from ser_mtl.research.gradients import gradients_of, inner_products, shared_parameters
from ser_mtl.training.adapters import unwrap

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer

UPDATES_PER_LOSS = 25
"""Cosines are measured every 25 updates for each loss. With k losses a measurement costs 2 k backward passes, about
4/3 k of an update, so it takes about 4/3 / 25 = 5.3 % of the time whatever k is."""


class Measurement(TypedDict):
    """The cosines of one update by pair of losses, and the norms by loss, of each group of parameters."""

    update: int
    epoch: Annotated[float, Field(ge=0, le=1e6)]
    cosines: dict[
        Annotated[str, Field(pattern=r"^\S+ \S+$")], list[Annotated[float, Field(ge=-1.001, le=1.001)] | None]
    ]
    norms: NotRequired[dict[str, list[Annotated[float, Field(ge=0, le=1e30)]]]]


def _each_group(record: dict) -> dict:
    groups = len(record["groups"])
    kinds = [one.get(kind, {}) for one in record["measurements"] for kind in ("cosines", "norms")]
    if any(len(values) != groups for by_name in kinds for values in by_name.values()):
        raise ValueError("must have a cosine and a norm for each of its groups")
    return record


class _Cosines(TypedDict):
    seconds: float
    groups: Annotated[list[str], Field(min_length=1)]
    measurements: list[Measurement]


Cosines = Annotated[_Cosines, AfterValidator(_each_group)]
"""The content of `gradient_cosines.json`."""

Gradients = tuple[Tensor, ...]
"""The gradient of one loss, a tensor for each parameter."""


class GradientCosines(TrainerCallback):
    """Measure the cosines between the gradients of the losses on the shared parameters, and their norms, by layer.

    They are measured on the first batch of every n-th update (`UPDATES_PER_LOSS`), in the first process on its own part
    of the batch. The gradients are then kept for the next training batch, on which each loss is compared with itself;
    the parameters have taken at most one step in between. Training is not changed. The measurements are in
    `gradient_cosines.json` of the run's folder, written with every checkpoint and at the end, and drawn in
    `gradient_cosines.png`:

        {"every_updates", "seconds", "training_seconds", "groups": ["encoder", "layer 1", ...],
         "measurements": [{"update", "epoch", "norms": {"emotion": [one for each group], ...},
                           "cosines": {"emotion asr": [one for each group], ..., "emotion emotion": [...], ...}}]}

    "seconds" is the time that measuring took out of "training_seconds". The group "encoder" is all shared parameters.
    "emotion emotion" is a loss with itself on the next batch. A cosine is null if a gradient is zero, as for a task
    that no utterance of the batch is annotated for, and with itself also if the run stopped before the next batch.
    A norm is that of the batch's part of the update's loss, with the weight of the task.
    """

    def __init__(self, folder: Path | str, trainer: "SerMtlTrainer"):
        self.file = Path(folder) / "gradient_cosines.json"
        self.trainer, self.stopwatch = trainer, trainer.stopwatch
        self.measurements: list[dict] = []
        self.seconds = 0.0
        self.armed = False
        self.kept: dict[str, Gradients] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs
    ):
        """Watch the model; a resumed run keeps the measurements made before its checkpoint."""
        if not state.is_world_process_zero:
            return
        config = unwrap(model).config
        self.groups, self.weights = shared_parameters(model), loss_weights(config)
        self.every = UPDATES_PER_LOSS * (len(config.tasks) + (config.scl != "none"))
        if state.global_step and self.file.is_file():
            saved = read_json(self.file, Cosines)
            self.measurements = [m for m in saved["measurements"] if m["update"] < state.global_step]
            self.seconds = saved["seconds"]
        self.state = state
        self.hook = model.register_forward_hook(self._look)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Measure on the next batch if one is due."""
        self.armed = state.is_world_process_zero and state.global_step % self.every == 0

    def _look(self, model: nn.Module, inputs: tuple, output: SerMtlOutput) -> None:
        if not model.training or not torch.is_grad_enabled() or not (self.armed or self.kept):
            return
        if output.losses is None:  # without labels
            return
        on_cuda = next(iter(output.losses.values())).is_cuda
        synchronise = torch.cuda.synchronize if on_cuda else (lambda: None)
        synchronise()
        start = time.perf_counter()
        losses = {name: loss.sum() for name, loss in output.losses.items()}
        if self.kept:
            self.measurements[-1]["cosines"] |= cosines_with_itself(losses, self.kept, self.groups)
            self.kept = {}
        else:
            self.kept, cosines, norms = gradient_cosines(losses, self.groups)
            cosines |= {f"{name} {name}": [None] * (1 + len(self.groups)) for name in losses}
            place = {"update": self.state.global_step, "epoch": round(self.state.epoch or 0.0, 4)}
            self.measurements.append(place | {"cosines": cosines, "norms": self._weighted(norms)})
        self.armed = False
        synchronise()
        self.seconds += time.perf_counter() - start

    def _weighted(self, norms: dict[str, list[float]]) -> dict[str, list[float]]:
        """Norms of the losses' gradients, from those of sums over utterances, with their weights in the update."""
        factors = {name: self.weights[name] / max(1.0, float(self.trainer.counts[name])) for name in norms}
        return {name: [float(f"{factors[name] * norm:.5g}") for norm in values] for name, values in norms.items()}

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Write the measurements: the run may be resumed from here."""
        if state.is_world_process_zero:
            write_json(self.file, self.record())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Write and draw the measurements, and print their share of the time."""
        if not state.is_world_process_zero:
            return
        self.hook.remove()
        self.kept = {}
        record = self.record()
        write_json(self.file, record)
        if self.measurements:
            means = mean_cosines(record["groups"], record["measurements"])
            plot_gradient_cosines({"This run": means}, self.file.with_suffix(".png"))
        share = 100 * record["seconds"] / record["training_seconds"]
        # Not `print`: the bar of the training is still there.
        times = "once" if len(self.measurements) == 1 else f"{len(self.measurements)} times"
        tqdm.write(f"Gradient cosines: measured {times}, {share:.1f} % of the training's time")

    def record(self) -> dict:
        """The content of `gradient_cosines.json`."""
        return {
            "every_updates": self.every,
            "seconds": round(self.seconds, 3),
            "training_seconds": round(self.stopwatch.seconds, 3),
            "groups": ["encoder", *self.groups],
            "measurements": self.measurements,
        }


def gradient_cosines(
    losses: dict[str, Tensor], groups: dict[str, list[nn.Parameter]]
) -> tuple[dict[str, Gradients], dict[str, list[float | None]], dict[str, list[float]]]:
    """Cosine between the gradients of every two losses, and their norms, on all parameters and those of each group.

    Args:
        losses: by name, scalars.
        groups: parameters by name.

    Returns:
        The gradients by loss; `{"emotion asr": [on all, on the first group, ...], ...}`, None if one of the gradients
        is zero; and `{"emotion": [on all, on the first group, ...], ...}`.
    """
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = {name: gradients_of(loss, parameters) for name, loss in losses.items()}
    matrices, norms = _cosine_matrices(list(gradients.values()), groups)
    pairs = combinations(enumerate(losses), 2)
    cosines = {f"{one} {other}": _rounded(matrices[:, i, j]) for (i, one), (j, other) in pairs}
    return gradients, cosines, dict(zip(losses, norms.T.tolist(), strict=True))


def cosines_with_itself(
    losses: dict[str, Tensor], kept: dict[str, Gradients], groups: dict[str, list[nn.Parameter]]
) -> dict[str, list[float | None]]:
    """Cosine between the gradient of each loss and its gradient on another batch, `{"emotion emotion": [...], ...}`.

    Args:
        losses: by name, scalars, on this batch.
        kept: the gradients on the other batch, from `gradient_cosines`.
        groups: parameters by name, as for `gradient_cosines`.
    """
    parameters = [parameter for group in groups.values() for parameter in group]
    return {
        f"{name} {name}": _rounded(_cosine_matrices([kept[name], gradients_of(loss, parameters)], groups)[0][:, 0, 1])
        for name, loss in losses.items()
    }


def _cosine_matrices(gradients: list[Gradients], groups: dict[str, list[nn.Parameter]]) -> tuple[Tensor, Tensor]:
    """Cosines between every two of `gradients`, NaN where one is zero, and the norm of each.

    (1 + groups, gradients, gradients) and (1 + groups, gradients).
    """
    each = [iter(parts) for parts in gradients]
    products = [inner_products([[next(parts) for _ in group] for parts in each]) for group in groups.values()]
    products = torch.stack([sum(products), *products])
    norms = products.diagonal(dim1=1, dim2=2).sqrt()
    return products / (norms.unsqueeze(1) * norms.unsqueeze(2)), norms


def _rounded(cosines: Tensor) -> list[float | None]:
    return [None if cosine != cosine else round(cosine, 5) for cosine in cosines.tolist()]
