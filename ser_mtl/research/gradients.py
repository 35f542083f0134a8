"""How the losses pull at the encoder that they share: their gradients' cosines, and PCGrad, which ends the conflicts.

"Shared" are the trained parameters of the encoder, adapters in its layers included; the heads are each task's own.
"""

import time
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from modeling_ser_mtl import SerMtlModel, SerMtlOutput
from ser_mtl.evaluation.figures import mean_cosines, plot_gradient_cosines
from ser_mtl.files import read_json, write_json
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.stopwatch import Stopwatch

UPDATES_A_LOSS = 25
"""Cosines are measured every 25 updates for each loss. With k losses a measurement costs k backward passes, about 2/3 k
of an update, so it takes about 2/3 / 25 = 2.7 % of the time whatever k is."""


def shared_parameters(model: SerMtlModel | PeftModel) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of the encoder: "layer 1", "layer 2", ..., and "other" for those of no layer."""
    model = unwrap(model)
    groups = {f"layer {i}": list(layer.parameters()) for i, layer in enumerate(model.transformer_layers(), 1)}
    of_layers = {id(parameter) for group in groups.values() for parameter in group}
    for i, adapter in enumerate(getattr(model, "layer_adapters", []), 1):
        groups[f"layer {i}"] += adapter.parameters()
    groups["other"] = [parameter for parameter in model.encoder.parameters() if id(parameter) not in of_layers]
    trained = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
    return {name: group for name, group in trained.items() if group}


def gradients_of(loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """The gradient of one loss on each parameter, zero where it does not reach; the graph is kept for the next loss."""
    return torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)


def inner_products(gradients: Iterable[Iterable[Tensor]]) -> Tensor:
    """Inner product of every two losses' gradients, each a tensor for every parameter: (losses, losses)."""
    total: Tensor | float = 0.0
    for of_parameter in zip(*gradients, strict=True):
        rows = torch.stack([gradient.flatten().float() for gradient in of_parameter])
        total = total + rows @ rows.T
    return total


# ----------------------------------------------------------------------------------------------------------- measuring


class GradientCosines(TrainerCallback):
    """Measure the cosine between the gradients of every two losses on the shared parameters, layer by layer.

    It is measured on the first batch of every n-th update (`UPDATES_A_LOSS`), in the first process on its own part of
    the batch, and changes nothing in the training. What was measured lies in `gradient_cosines.json` of the run's
    folder, written with every checkpoint and at the end, and is drawn in `gradient_cosines.png`:

        {"every_updates", "seconds", "training_seconds", "groups": ["encoder", "layer 1", ...],
         "measurements": [{"update", "epoch", "cosines": {"emotion asr": [one for each group], ...}}]}

    "seconds" is what measuring took of "training_seconds". The group "encoder" is all of the shared parameters. A
    cosine is null where a gradient is zero, which it is for a task that nobody in the batch is annotated for.
    """

    def __init__(self, folder: Path | str, stopwatch: Stopwatch):
        self.file = Path(folder) / "gradient_cosines.json"
        self.stopwatch = stopwatch
        self.measurements: list[dict] = []
        self.seconds = 0.0
        self.armed = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: nn.Module, **kwargs
    ):
        """Watch the model; go on with what was measured before the checkpoint that the run is resumed from."""
        if not state.is_world_process_zero:
            return
        config = unwrap(model).config
        self.groups = shared_parameters(model)
        self.every = UPDATES_A_LOSS * (len(config.tasks) + (config.scl != "none"))
        if state.global_step and self.file.is_file():
            saved = read_json(self.file)
            self.measurements = [m for m in saved["measurements"] if m["update"] < state.global_step]
            self.seconds = saved["seconds"]
        self.state = state
        self.hook = model.register_forward_hook(self._look)

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Make the next batch a measured one, where it is time."""
        self.armed = state.is_world_process_zero and state.global_step % self.every == 0

    def _look(self, model: nn.Module, inputs: tuple, output: SerMtlOutput) -> None:
        if not self.armed:
            return
        self.armed = False
        on_cuda = next(iter(output.losses.values())).is_cuda
        synchronise = torch.cuda.synchronize if on_cuda else (lambda: None)
        synchronise()
        start = time.perf_counter()
        cosines = gradient_cosines({name: loss.sum() for name, loss in output.losses.items()}, self.groups)
        synchronise()
        self.seconds += time.perf_counter() - start
        self.measurements.append(
            {"update": self.state.global_step, "epoch": round(self.state.epoch or 0.0, 4), "cosines": cosines}
        )

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Keep what was measured, for the run may be resumed from here."""
        if state.is_world_process_zero:
            write_json(self.file, self.record())

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs):
        """Write and draw what was measured, and say what it cost."""
        if not state.is_world_process_zero:
            return
        self.hook.remove()
        record = self.record()
        write_json(self.file, record)
        if self.measurements:
            means = mean_cosines(record["groups"], record["measurements"])
            plot_gradient_cosines({"This run": means}, self.file.with_suffix(".png"))
        share = 100 * record["seconds"] / record["training_seconds"]
        # Not `print`: the bar of the training is still there.
        tqdm.write(f"Gradient cosines: measured {len(self.measurements)} times, {share:.1f} % of the training's time")

    def record(self) -> dict:
        """What `gradient_cosines.json` holds."""
        return {
            "every_updates": self.every,
            "seconds": round(self.seconds, 3),
            "training_seconds": round(self.stopwatch.seconds, 3),
            "groups": ["encoder", *self.groups],
            "measurements": self.measurements,
        }


def gradient_cosines(losses: dict[str, Tensor], groups: dict[str, list[nn.Parameter]]) -> dict[str, list[float | None]]:
    """Cosine between the gradients of every two losses, on all parameters and on those of each group.

    Args:
        losses: a scalar each.
        groups: parameters by name.

    Returns:
        `{"emotion asr": [on all, on the first group, ...], ...}`; None where one of the gradients is zero.
    """
    parameters = [parameter for group in groups.values() for parameter in group]
    gradients = [iter(gradients_of(loss, parameters)) for loss in losses.values()]
    products = [inner_products([[next(of_loss) for _ in group] for of_loss in gradients]) for group in groups.values()]
    products = torch.stack([sum(products), *products])
    norms = products.diagonal(dim1=1, dim2=2).sqrt()
    cosines = (products / (norms.unsqueeze(1) * norms.unsqueeze(2))).tolist()
    return {
        f"{one} {other}": [None if matrix[i][j] != matrix[i][j] else round(matrix[i][j], 5) for matrix in cosines]
        for (i, one), (j, other) in combinations(enumerate(losses), 2)
    }


# ------------------------------------------------------------------------------------------------------------- surgery


class GradientSurgery:
    """PCGrad (Yu et al. 2020, algorithm 1) on the shared parameters: no loss pulls against another.

    The losses' gradients are collected over all batches of an update; `operate` then replaces the sum of them, which
    backpropagation has left in `.grad`, by the sum of the projected ones. The heads keep their gradients.

    Args:
        parameters: the shared ones.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        self.gradients: dict[str, list[Tensor]] = {}

    def collect(self, losses: dict[str, Tensor]) -> None:
        """Add the gradients of a batch's weighted losses to those of the update; the batch's graph stays."""
        for name, loss in losses.items():
            of_batch = gradients_of(loss, self.parameters)
            if name in self.gradients:
                torch._foreach_add_(self.gradients[name], of_batch)
            else:
                self.gradients[name] = list(of_batch)

    def operate(self) -> None:
        """Set `.grad` to the sum of the projected gradients of the update, and forget them."""
        names = list(self.gradients)
        weights = pcgrad_weights(inner_products(self.gradients.values()).double().cpu()).tolist()
        for i, parameter in enumerate(self.parameters):
            parameter.grad = sum(
                weight * self.gradients[name][i] for name, weight in zip(names, weights, strict=True)
            ).to(parameter.dtype)
        self.gradients = {}


def pcgrad_weights(products: Tensor) -> Tensor:
    """How often each gradient is in PCGrad's sum of projected gradients, given their inner products.

    Each gradient g_i in turn meets the others g_j in a random order; where g_i . g_j < 0, the part of g_i along g_j is
    taken out: g_i <- g_i - (g_i . g_j / |g_j|^2) g_j. What comes out is a linear combination of the gradients, so their
    inner products are all that is needed. (losses, losses) -> (losses,).
    """
    total = torch.zeros(len(products), dtype=products.dtype)
    for i in range(len(products)):
        weights = torch.zeros_like(total)
        weights[i] = 1.0
        for j in torch.randperm(len(products)).tolist():
            along = weights @ products[:, j]
            if j != i and along < 0:
                weights[j] -= along / products[j, j]
        total += weights
    return total
