"""Gradient surgery: remove the conflicts between the losses' gradients on the encoder, by the projections of torchjd.

torchjd is imported where it is used: it is an extra. Its solver for UPGrad would need two more packages, one of them
under the GPL; `projection_onto_cone` solves the same problem with scipy.
"""

from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import torch
from scipy.optimize import nnls
from torch import Tensor, nn

from modeling_ser_mtl import SerMtlOutput, weighted_loss
from ser_mtl.research.gradients import gradients_of, inner_products, shared_parameters
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.trainer import SerMtlTrainer

Weighting = Callable[[Tensor], Tensor]
"""Inner products of gradients (losses, losses) -> the weight of each in the sum that replaces theirs, (losses,)."""


def weighting_of(method: str, losses: int) -> Weighting:
    """The weights of PCGrad (Yu et al. 2020, algorithm 1) or UPGrad (Quinton and Rey 2024).

    PCGrad removes from each gradient its component along every other gradient that it conflicts with, one after the
    other, in random order. UPGrad projects each onto the cone of directions that conflict with none. Both add up the
    results, so that gradients without conflict keep their plain sum.
    """
    from torchjd.aggregation import PCGradWeighting, UPGradWeighting

    if method == "pcgrad":
        return PCGradWeighting()
    return UPGradWeighting(torch.ones(losses, dtype=torch.float64), projection_onto_cone)


def projection_onto_cone(sums: Tensor, products: Tensor) -> Tensor:
    """Project linear combinations of gradients onto the directions that have no negative product with any of them.

    By duality the projection of J'u is J'(u + w), with the w >= 0 that makes its norm smallest: least squares with
    non-negative unknowns.

    Args:
        sums: u of each combination, (combinations, losses).
        products: J J', (losses, losses).

    Returns:
        u + w, (combinations, losses).
    """
    values, vectors = np.linalg.eigh(products.numpy())
    root = np.sqrt(values.clip(min=0))[:, None] * vectors.T  # root' root = products
    scale = np.sqrt(values.max()) or 1.0
    return torch.stack([u + torch.from_numpy(nnls(root / scale, -(root / scale) @ u.numpy())[0]) for u in sums])


class SurgeryTrainer(SerMtlTrainer):
    """A `SerMtlTrainer` whose encoder gets gradients without conflicts. Works in one process and without fp16.

    Args:
        method: "pcgrad" or "upgrad".
    """

    def __init__(self, *args, method: str, **kwargs):
        super().__init__(*args, **kwargs)
        self.surgery = GradientSurgery(chain.from_iterable(shared_parameters(self.model).values()), method)

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
    """Surgery on the gradients of the shared parameters.

    `collect` adds up each loss's gradient over the batches of an update; `operate` then replaces their sum, which
    backpropagation left in `.grad`, by the sum of the projected gradients. The heads keep their gradients.

    Args:
        parameters: the shared parameters.
        method: "pcgrad" or "upgrad".
    """

    def __init__(self, parameters: Iterable[nn.Parameter], method: str):
        self.parameters = list(parameters)
        self.method = method
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
        products = inner_products(self.gradients.values()).double().cpu()
        weights = weighting_of(self.method, len(names))(products).tolist()
        for i, parameter in enumerate(self.parameters):
            parameter.grad = sum(
                weight * self.gradients[name][i] for name, weight in zip(names, weights, strict=True)
            ).to(parameter.dtype)
        self.gradients = {}
