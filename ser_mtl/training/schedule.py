"""The number of updates of a training, and the learning rate of each part of the model over them."""

from collections.abc import Callable
from functools import partial
from itertools import product

import torch
from datasets import DatasetDict
from torch.utils.data import DataLoader

from ser_mtl.training.adapters import unwrap
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.flags import refuse_idle_optimizer_flags
from ser_mtl.training.layer_rates import layer_factors
from ser_mtl.training.resuming import ResumableTrainer
from ser_mtl.training.stage import Stage


class ScheduledTrainer(ResumableTrainer):
    """A Trainer with `--min_updates`, `--head_start` and `--layer_decay`."""

    args: SerMtlArguments
    stage: Stage
    parts: DatasetDict
    updates_of_schedule: int | None = None  # if training ends before its schedule does

    def set_initial_training_values(self, args: SerMtlArguments, dataloader: DataLoader) -> tuple:
        """As in transformers, but for enough whole epochs to have `--min_updates`.

        An update counts by its share of utterances with an emotion: a corpus joined for its words takes none away.
        """
        asked, updates = args.num_train_epochs, -(-len(dataloader) // args.gradient_accumulation_steps)
        emotions = self.parts["train"]["emotion"][:] if "emotion" in self.stage.tasks else [None]
        annotated = sum(emotion is not None for emotion in emotions) or len(emotions)
        args.num_train_epochs = max(asked, -(-args.min_updates * len(emotions) // (updates * annotated)))
        try:
            return super().set_initial_training_values(args, dataloader)
        finally:
            args.num_train_epochs = asked

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """As in transformers, with parameter groups split into encoder and heads, and by learning rate."""
        refuse_idle_optimizer_flags(self.args, self.model)
        optimizer = super().create_optimizer(model)
        encoder = {id(parameter) for parameter in unwrap(self.model).encoder.parameters()}
        factors = layer_factors(unwrap(self.model), self.args.layer_decay)
        kinds = list(product((False, True), sorted({1.0, *factors.values()})))
        kind_of = {id(p): (id(p) in encoder, factors.get(id(p), 1.0)) for p in unwrap(self.model).parameters()}
        optimizer.param_groups = [
            group | {"params": chosen, "of_encoder": kind[0], "lr": kind[1] * group["lr"]}
            for group in optimizer.param_groups
            for kind in kinds
            if (chosen := [p for p in group["params"] if kind_of[id(p)] == kind])
        ]
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> torch.optim.lr_scheduler.LRScheduler:
        """As in transformers, but the encoder's rate stays zero until `--head_start`, and then has its own warm-up."""
        num_training_steps = self.updates_of_schedule or num_training_steps
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        start = int(self.args.head_start * num_training_steps)
        warmup = max(1, self.args.get_warmup_steps(num_training_steps))
        for i, group in enumerate(scheduler.optimizer.param_groups):
            if start and group["of_encoder"]:
                usual = scheduler.lr_lambdas[i]
                scheduler.lr_lambdas[i] = partial(_after_head_start, usual, start, warmup)
                group["lr"] = 0.0
        return scheduler


def _after_head_start(usual: Callable[[int], float], start: int, warmup: int, step: int) -> float:
    """Factor of the encoder's learning rate: zero until `start`, then rising to the usual one in `warmup` updates."""
    return usual(step) * min(1.0, max(0, step - start) / warmup)
