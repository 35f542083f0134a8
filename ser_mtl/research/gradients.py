"""Gradients of single losses on the shared parameters.

Those are the trained parameters of the encoder, including adapters in its layers; each task has its own head.
"""

from collections.abc import Iterable

import torch
from peft import PeftModel
from torch import Tensor, nn

from modeling_ser_mtl import SerMtlModel
from ser_mtl.training.adapters import unwrap


def shared_parameters(model: SerMtlModel | PeftModel) -> dict[str, list[nn.Parameter]]:
    """The trained parameters of the encoder by group: "layer 1", "layer 2", ..., and "other" for the rest."""
    model = unwrap(model)
    groups = {f"layer {i}": list(layer.parameters()) for i, layer in enumerate(model.transformer_layers(), 1)}
    in_layers = {id(parameter) for group in groups.values() for parameter in group}
    for i, adapter in enumerate(getattr(model, "layer_adapters", []), 1):
        groups[f"layer {i}"] += adapter.parameters()
    groups["other"] = [parameter for parameter in model.encoder.parameters() if id(parameter) not in in_layers]
    trained = {name: [p for p in group if p.requires_grad] for name, group in groups.items()}
    return {name: group for name, group in trained.items() if group}


def gradients_of(loss: Tensor, parameters: list[nn.Parameter]) -> tuple[Tensor, ...]:
    """The gradient of one loss on each parameter, zero if the loss does not reach it. Keeps the graph."""
    return torch.autograd.grad(loss, parameters, retain_graph=True, materialize_grads=True)


def inner_products(gradients: Iterable[Iterable[Tensor]]) -> Tensor:
    """Inner product of every two losses' gradients, each a tensor for every parameter: (losses, losses)."""
    total: Tensor | float = 0.0
    for of_parameter in zip(*gradients, strict=True):
        rows = torch.stack([gradient.flatten().float() for gradient in of_parameter])
        total = total + rows @ rows.T
    return total
