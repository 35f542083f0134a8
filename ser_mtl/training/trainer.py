"""The Trainer: weighted losses that are exact for any batch, each task's loss logged, predictions as rows."""

from collections.abc import Callable
from functools import partial
from itertools import chain

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler
from transformers import EvalPrediction, ProgressCallback, Trainer, TrainerCallback, Wav2Vec2CTCTokenizer
from transformers.trainer_callback import PrinterCallback

from modeling_ser_mtl import SerMtlOutput, annotated, weighted_loss
from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.evaluation.predictions import prediction_rows, references_and_predictions
from ser_mtl.evaluation.scores import SerMtlMetric
from ser_mtl.inference.recognizer import as_text, heard_characters
from ser_mtl.research.gradients import GradientSurgery, shared_parameters
from ser_mtl.tasks import TASKS
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.stopwatch import Stopwatch


class SerMtlTrainer(Trainer):
    """Train a `SerMtlModel`, bare or under PEFT.

    - The loss of an update is, for each task, the sum over its annotated utterances divided by their number in the
      whole update: over accumulation steps and processes. Batch 8 equals 2 x 4, and two processes equal one.
    - `log` adds `loss_<task>`, the same mean over the updates since the last log, unweighted.
    - Training batches are groups of like length (`LengthGroupedSampler`).
    - With `gradient_surgery`, the encoder's gradients are those of PCGrad (`research.gradients.GradientSurgery`).
    - Predictions are reduced on the device: probabilities of each task, and the characters that CTC finds.

    Args:
        corpus: all utterances, to which the column `row` of the splits points.
        labels: classes of each classification task.
        gradient_surgery: whether no loss may pull against another on the encoder; in one process only.
        **kwargs: as for `Trainer`; `processing_class` is the processor.
    """

    def __init__(self, *, corpus: Dataset, labels: dict[str, list[str]], gradient_surgery: bool = False, **kwargs):
        super().__init__(compute_metrics=self._figures, **kwargs)
        # The loss is divided by the counts of the whole update, so the Trainer must not divide it again.
        self.model_accepts_loss_kwargs = True
        self.corpus = corpus
        self.labels = labels
        self.tokenizer: Wav2Vec2CTCTokenizer = self.processing_class.tokenizer
        self.metric = SerMtlMetric(labels)
        self.surgery = None
        if gradient_surgery:
            self.surgery = GradientSurgery(chain.from_iterable(shared_parameters(self.model).values()))
        seed = self.args.seed if self.args.data_seed is None else self.args.data_seed
        lengths = np.asarray(self.train_dataset["length"])
        self._sampler = LengthGroupedSampler(lengths, self.args.utterances_an_update, seed)
        self.add_callback(EpochOfSampler(self._sampler))
        self.stopwatch = Stopwatch()
        self.add_callback(self.stopwatch)
        self._loss_sums: dict[str, Tensor] = {}
        self._first_update_summed = 0
        self.pop_callback(PrinterCallback)
        if self.pop_callback(ProgressCallback):
            self.add_callback(EpochProgress())

    # ------------------------------------------------------------------------------------------ batches

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler:
        return self._sampler

    def get_batch_samples(self, epoch_iterator, num_batches: int, device: torch.device) -> tuple[list, dict]:
        """Collect the batches of an update, and count over all processes what each task's loss is a mean over."""
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        if self.args.world_size > 1:
            self._forget_repeats(batches)
        config = unwrap(self.accelerator.unwrap_model(self.model)).config
        tasks = list(config.tasks)
        counts = torch.zeros(len(tasks) + 1, device=device)
        for batch in batches:
            numbers = [annotated(task, batch[f"{task}_labels"]).sum() for task in tasks]
            counts += torch.stack([*numbers, (batch["row"] >= 0).sum()]).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts)
        return batches, dict(zip([*tasks, "scl"], counts, strict=True))

    def _forget_repeats(self, batches: list[dict[str, Tensor]]) -> None:
        """Take their labels from the utterances with which an epoch's last update is filled up, and make their row -1.

        Where an epoch is no multiple of what all processes take at once, accelerate begins it anew (`even_batches`), so
        that each has a batch.
        """
        size, utterances = self.args.train_batch_size, len(self.train_dataset)
        updates = -(-utterances // self.args.utterances_an_update)
        first = self.state.global_step % updates * self.args.gradient_accumulation_steps
        for index, batch in enumerate(batches, first):
            begin = (index * self.args.world_size + self.args.process_index) * size
            if begin + size > utterances:
                row = batch["row"]
                repeated = torch.arange(begin, begin + len(row), device=row.device) >= utterances
                batch["row"] = row.masked_fill(repeated, -1)
                for name in [name for name in batch if name.endswith("_labels")]:
                    labels = batch[name]
                    batch[name] = labels.masked_fill(repeated.view(-1, *[1] * (labels.dim() - 1)), -100)

    # ----------------------------------------------------------------------------------------- schedule

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """Group the encoder's parameters apart from the heads', so that each has its own schedule."""
        optimizer = super().create_optimizer(model)
        encoder = {id(parameter) for parameter in unwrap(self.model).encoder.parameters()}
        optimizer.param_groups = [
            group | {"params": chosen, "of_encoder": of_encoder}
            for group in optimizer.param_groups
            for of_encoder in (False, True)
            if (chosen := [p for p in group["params"] if (id(p) in encoder) == of_encoder])
        ]
        return optimizer

    def create_scheduler(self, num_training_steps: int, optimizer=None) -> torch.optim.lr_scheduler.LRScheduler:
        """The usual schedule, which for the encoder starts after `--head_start`, with a warm-up of its own."""
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        start = int(self.args.head_start * num_training_steps)
        warmup = max(1, self.args.get_warmup_steps(num_training_steps))
        for i, group in enumerate(scheduler.optimizer.param_groups):
            if start and group["of_encoder"]:
                usual = scheduler.lr_lambdas[i]
                scheduler.lr_lambdas[i] = partial(_after_head_start, usual, start, warmup)
                group["lr"] = 0.0
        return scheduler

    # ------------------------------------------------------------------------------------------- losses

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: dict[str, Tensor] | None = None,
    ) -> Tensor | tuple[Tensor, SerMtlOutput]:
        """The weighted loss of `modeling_ser_mtl.weighted_loss`, with the counts of the whole update."""
        outputs = model(**{name: value for name, value in inputs.items() if name != "row"})
        if num_items_in_batch is None:
            return (outputs.loss, outputs) if return_outputs else outputs.loss
        config = unwrap(self.accelerator.unwrap_model(self.model)).config
        if "scl" in outputs.losses:  # which needs no label
            outputs.losses["scl"] = outputs.losses["scl"] * (inputs["row"] >= 0)
        loss = weighted_loss(config, outputs.losses, num_items_in_batch)
        if self.surgery is not None:
            self.surgery.collect(
                {task: weighted_loss(config, {task: of}, num_items_in_batch) for task, of in outputs.losses.items()}
            )
        if not self._loss_sums:
            self._first_update_summed = self.state.global_step
        for task, values in outputs.losses.items():
            share = values.detach().sum() / num_items_in_batch[task].clamp(min=1)
            self._loss_sums[task] = self._loss_sums.get(task, 0) + share
        # DistributedDataParallel takes the mean over processes of what is a sum over them.
        loss = loss * self.args.world_size
        return (loss, outputs) if return_outputs else loss

    def training_step(self, *args, **kwargs) -> Tensor:
        """Backpropagate a batch; after the last one of an update, operate on what has come together."""
        loss = super().training_step(*args, **kwargs)
        if self.surgery is not None and self.accelerator.sync_gradients:
            self.surgery.operate()
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add each task's loss to the training loss's log."""
        if "loss" in logs and self._loss_sums:
            updates = max(1, self.state.global_step - self._first_update_summed)
            names = list(self._loss_sums)
            sums = torch.stack([self._loss_sums[name] for name in names])
            sums = self.accelerator.reduce(sums) if self.args.world_size > 1 else sums
            logs |= {f"loss_{name}": value / updates for name, value in zip(names, sums.tolist(), strict=True)}
            self._loss_sums = {}
        super().log(logs, start_time)

    # ------------------------------------------------------------------------------------- predictions

    def prediction_step(
        self, model: torch.nn.Module, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys=None
    ) -> tuple[Tensor | None, dict[str, Tensor], Tensor]:
        """Predict a batch: (loss, {task: probabilities or characters, padded with -100}, rows of the corpus).

        Beside them are the embeddings, `<task>_embedding`.
        """
        inputs = self._prepare_inputs(inputs)
        with torch.inference_mode(), self.compute_loss_context_manager():
            outputs: SerMtlOutput = model(**{name: value for name, value in inputs.items() if name != "row"})
        predictions = {
            task: logits.float().softmax(dim=-1)
            for task, logits in (
                ("emotion", outputs.logits),
                ("gender", outputs.gender_logits),
                ("style", outputs.style_logits),
            )
            if logits is not None
        }
        if outputs.asr_logits is not None:
            predictions["asr"] = heard_characters(
                outputs.asr_logits, outputs.frame_lengths, self.tokenizer.pad_token_id
            )
        predictions |= {f"{task}_embedding": x.float() for task, x in outputs.embeddings.items()}
        return outputs.loss, predictions, inputs["row"]

    def rows(self, predictions: dict[str, np.ndarray], rows: np.ndarray, **more: list[str]) -> list[dict]:
        """Predictions and their rows in the corpus -> rows of `predictions.jsonl`."""
        utterances = self.corpus.select(rows)
        probabilities = {task: predictions[task] for task in self.labels if task in predictions}
        hypotheses = self.transcripts(predictions["asr"]) if "asr" in predictions else None
        return prediction_rows(utterances, self.labels, probabilities, hypotheses, **more)

    def transcripts(self, characters: np.ndarray) -> list[str]:
        """Characters, (utterances, characters) padded with -100 -> transcripts."""
        return as_text(characters.tolist(), self.tokenizer)

    def _figures(self, evaluated: EvalPrediction) -> dict[str, float]:
        rows = self.rows(evaluated.predictions, evaluated.label_ids)
        references, predictions = references_and_predictions(rows)
        figures = self.metric.compute(predictions=predictions, references=references)
        named = {f"{task}_{name}": value for task in TASKS for name, value in figures.get(task, {}).items()}
        return {name: value for name, value in named.items() if isinstance(value, float)}


def _after_head_start(usual: Callable[[int], float], start: int, warmup: int, step: int) -> float:
    """Factor of the encoder's learning rate: nothing until `start`, then up to the usual within `warmup` updates."""
    return usual(step) * min(1.0, max(0, step - start) / warmup)


class EpochOfSampler(TrainerCallback):
    """Tells a sampler its epoch.

    A run of several processes that is resumed within an epoch would else go on in the order of the first epoch:
    `set_epoch` does not get through `skip_first_batches`. It can go when it does (huggingface/accelerate#2016).
    """

    def __init__(self, sampler: LengthGroupedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        """The epoch of a resumed run is no whole number."""
        self.sampler.set_epoch(int(state.epoch or 0))


class EpochProgress(ProgressCallback):
    """The Trainer's bars with the time left, and one short line for each log."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write the figures that a person watches."""
        shown = {
            "loss": "loss", "loss_emotion": "emotion", "loss_asr": "ctc", "loss_gender": "gender",
            "loss_style": "style", "loss_scl": "scl", "eval_emotion_ua": "dev UA", "eval_emotion_wa": "dev WA",
            "eval_gender_ua": "dev gender UA", "eval_style_ua": "dev style UA", "eval_asr_wer": "dev WER",
        }  # fmt: skip
        figures = [f"{label} {logs[name]:.3f}" for name, label in shown.items() if name in logs]
        if state.is_world_process_zero and self.training_bar is not None and figures:
            self.training_bar.write(f"epoch {logs.get('epoch', state.epoch):g}: " + ", ".join(figures))
