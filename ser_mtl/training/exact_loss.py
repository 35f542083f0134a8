"""The loss of an update: for each task, the exact mean over its annotated utterances, however they are batched."""

import math

import torch
from datasets import DatasetDict
from torch import Tensor

from modeling_ser_mtl import SerMtlOutput, concordance_loss, loss_counts, loss_weights, weighted_loss
from ser_mtl.model.fast_attention import choose_attention
from ser_mtl.model.fast_front_end import fast_inputs
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.divergence import Divergence, check_finite
from ser_mtl.training.loss_targets import LossTargets, balanced_weights
from ser_mtl.training.schedule import ScheduledTrainer
from ser_mtl.training.stage import Stage
from ser_mtl.training.value_sums import sums_of_update


class ExactLossTrainer(ScheduledTrainer):
    """A Trainer whose loss is, for each task, a sum over the whole update divided by a count over the whole update."""

    stage: Stage
    parts: DatasetDict
    record: dict
    labels: dict[str, list[str]]
    divergence: Divergence
    values: list[str]
    """The trained tasks that give a value."""
    counts: dict[str, Tensor]
    """The divisor of each loss in the current update."""

    def prepare_loss(self) -> None:
        """Set up the targets of each task's loss, once the model is on its device."""
        # The loss is divided by the counts of the whole update, so the Trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        self._value_sums: dict[str, Tensor] = {}
        weigh = self.stage.class_weights == "balanced"
        balanced = balanced_weights(self.parts["train"], self.labels) if weigh else {}
        self.loss_targets = LossTargets(self.labels, self.args.label_smoothing_factor, balanced, self.args.device)
        if balanced:
            self.record["class_weights"] = {
                task: {label: round(weight, 4) for label, weight in weights.items()}
                for task, weights in balanced.items()
            }

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device) -> tuple[list, dict]:
        """Collect the batches of an update, and count over all processes the utterances that each loss is a mean over.

        With label smoothing or class weights, labels are replaced by the targets of the loss (`LossTargets`).
        """
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.world_size > 1:
            self._forget_repeats(batches)
        config = unwrap(self.accelerator.unwrap_model(self.model)).config
        names = list(loss_weights(config))
        counts = torch.zeros(len(names), device=device)
        for batch in batches:
            labels = {task: batch[f"{task}_labels"] for task in config.tasks}
            numbers = loss_counts(config, labels, (batch["row"] >= 0).sum())
            counts += torch.stack([numbers[name] for name in names]).to(device)
        sums = self.loss_targets.weight_sums(batches)
        counts = torch.cat([counts, *(total.view(1) for total in sums.values())])
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts)
        self._value_sums = sums_of_update(self, batches)
        by_name = self.counts = dict(zip(names, counts, strict=False))
        if self.loss_targets:
            totals = zip(sums, counts[len(names) :], strict=True)
            scales = {task: by_name[task] / total.clamp(min=1e-12) for task, total in totals}
            batches = [self.loss_targets.of_batch(batch, scales) for batch in batches]
        return batches, by_name

    def _forget_repeats(self, batches: list[dict[str, Tensor]]) -> None:
        """Remove the labels of the utterances that fill up an epoch's last update, and set their row to -1.

        If the utterances of an epoch do not fill the batches of all processes, accelerate starts over with the first
        ones (`even_batches`), so that each process has a batch.
        """
        size, utterances = self.args.train_batch_size, len(self.train_dataset)
        updates = -(-utterances // self.args.utterances_per_update)
        first = self.state.global_step % updates * self.args.gradient_accumulation_steps
        for index, batch in enumerate(batches, first):
            begin = (index * self.args.world_size + self.args.process_index) * size
            if begin + size > utterances:
                row = batch["row"]
                repeated = torch.arange(begin, begin + len(row), device=row.device) >= utterances
                batch["row"] = row.masked_fill(repeated, -1)
                for name in [name for name in batch if name.endswith("_labels")]:
                    labels = batch[name]
                    nothing = math.nan if name.removesuffix("_labels") in self.values else -100
                    batch[name] = labels.masked_fill(repeated.view(-1, *[1] * (labels.dim() - 1)), nothing)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, SerMtlOutput]:
        """The weighted loss of `modeling_ser_mtl.weighted_loss`, with the counts of the whole update."""
        config = unwrap(self.accelerator.unwrap_model(self.model)).config
        outputs = self._forward(model, inputs)
        losses = outputs.losses
        if num_items_in_batch is None or losses is None:
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        values = outputs.task_values or {}
        for task, sums in self._value_sums.items():
            losses[task] = concordance_loss(config, task, values[task], inputs[f"{task}_labels"], sums)
        for name in losses.keys() - set(config.tasks):  # losses that need no label
            losses[name] = losses[name] * (inputs["row"] >= 0)
        loss = weighted_loss(config, losses, num_items_in_batch)
        if not self._loss_sums:
            self._first_update_summed = self.state.global_step
        for task, loss_values in losses.items():
            share = loss_values.detach().sum() / num_items_in_batch[task].clamp(min=1)
            self._loss_sums[task] = self._loss_sums.get(task, 0) + share
        self.divergence.note_losses(inputs["row"], losses)
        # DistributedDataParallel takes the mean over processes; the loss is a sum over them.
        loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def training_step(self, model: torch.nn.Module, *args, **kwargs) -> Tensor:
        """Train on a batch; after the last one of an update, note whether its gradient is finite."""
        loss = super().training_step(model, *args, **kwargs)
        if self.accelerator.sync_gradients:
            self.divergence.note_gradient(model)
        return loss

    def _forward(self, model: torch.nn.Module, inputs: dict[str, Tensor]) -> SerMtlOutput:
        """The forward pass, with the fast front end and attention for CPUs."""
        base = unwrap(self.accelerator.unwrap_model(model))
        arguments = {name: value for name, value in inputs.items() if name != "row"}
        with self.accelerator.autocast():
            arguments = fast_inputs(base, arguments)
            choose_attention(base, arguments["features"].shape[1] if "features" in arguments else 0)
        return model(**arguments)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with each task's loss beside the training loss."""
        if "loss" in logs and self._loss_sums:
            updates = max(1, self.state.global_step - self._first_update_summed)
            names = list(self._loss_sums)
            sums = torch.stack([self._loss_sums[name] for name in names])
            sums = self.accelerator.reduce(sums) if self.args.world_size > 1 else sums
            logs |= {f"loss_{name}": value / updates for name, value in zip(names, sums.tolist(), strict=True)}
            self._loss_sums = {}
        check_finite(logs, self.state.global_step)
        super().log(logs, start_time)
