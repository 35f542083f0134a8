"""The sums over a whole update that the CCC needs, before the first of its batches is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from modeling_ser_mtl import concordance_sums
from ser_mtl.training.adapters import unwrap

if TYPE_CHECKING:
    from ser_mtl.training.exact_loss import ExactLossTrainer


def sums_of_update(trainer: ExactLossTrainer, batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The `concordance_sums` of each value task over the batches of an update, in all processes.

    They take a forward pass without gradients. It draws the same random numbers as the pass with gradients that
    follows, so both give the same values (Gao et al. 2021, "Scaling deep contrastive learning batch size"). An update
    of one batch needs no such pass: the batch has its own sums.

    Returns:
        (6,) by task; empty if there are no value tasks, or only one batch.
    """
    if not trainer.values or (len(batches) == 1 and trainer.args.world_size == 1):
        return {}
    model = trainer.accelerator.unwrap_model(trainer.model).train()
    config, device = unwrap(model).config, trainer.args.device
    total = torch.zeros(len(trainer.values), 6, device=device)
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        for batch in map(trainer._prepare_inputs, batches):
            labels = [batch[f"{task}_labels"] for task in trainer.values]
            inputs = {name: value for name, value in batch.items() if not name.endswith("_labels")}
            values = trainer._forward(model, inputs).task_values or {}
            tasks = zip(trainer.values, labels, strict=True)
            total += torch.stack([concordance_sums(config, task, values[task], own) for task, own in tasks])
    if trainer.args.world_size > 1:
        total = trainer.accelerator.reduce(total)
    return dict(zip(trainer.values, total, strict=True))
