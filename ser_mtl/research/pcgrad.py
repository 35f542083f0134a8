"""PCGrad: gradients of different losses do not conflict on the encoder."""

from collections.abc import Iterable
from itertools import chain

import torch
from torch import Tensor, nn

from modeling_ser_mtl import SerMtlOutput, weighted_loss
from ser_mtl.research.gradients import gradients_of, inner_products, shared_parameters
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.trainer import SerMtlTrainer


class PcgradTrainer(SerMtlTrainer):
    """A `SerMtlTrainer` whose encoder gets PCGrad's gradients. Works in one process and without fp16."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.surgery = GradientSurgery(chain.from_iterable(shared_parameters(self.model).values()))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, SerMtlOutput]:
        """The loss of `SerMtlTrainer`; the gradient of each weighted loss is collected."""
        loss, outputs = super().compute_loss(model, inputs, True, num_items_in_batch)
        if num_items_in_batch is not None and outputs.losses is not None:
            config = unwrap(self.accelerator.unwrap_model(self.model)).config
            weighted = {
                name: weighted_loss(config, {name: values}, num_items_in_batch)
                for name, values in outputs.losses.items()
            }
            self.surgery.collect(weighted)
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args, **kwargs) -> Tensor:
        """Backpropagate a batch; after the last one of an update, project the gradients."""
        loss = super().training_step(*args, **kwargs)
        if self.accelerator.sync_gradients:
            self.surgery.operate()
        return loss


class GradientSurgery:
    """PCGrad (Yu et al. 2020, algorithm 1) on the shared parameters.

    `collect` adds up each loss's gradient over the batches of an update; `operate` then replaces their sum, which
    backpropagation left in `.grad`, by the sum of the projected gradients. The heads keep their gradients.

    Args:
        parameters: the shared parameters.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]):
        self.parameters = list(parameters)
        self.gradients: dict[str, list[Tensor]] = {}

    def collect(self, losses: dict[str, Tensor]) -> None:
        """Add the gradients of a batch's weighted losses to those of the update. Keeps the batch's graph."""
        for name, loss in losses.items():
            gradients = gradients_of(loss, self.parameters)
            if name in self.gradients:
                torch._foreach_add_(self.gradients[name], gradients)
            else:
                self.gradients[name] = list(gradients)

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
    """The weight of each gradient in PCGrad's sum of projected gradients, from their inner products.

    Each gradient g_i is compared with the others g_j in a random order. If g_i . g_j < 0, the part of g_i along g_j is
    removed: g_i <- g_i - (g_i . g_j / |g_j|^2) g_j. The result is a linear combination of the gradients, so their inner
    products are all that is needed. (losses, losses) -> (losses,).
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
