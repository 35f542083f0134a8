"""The Trainer's callbacks: sparing checkpoints, a stopwatch, the test fold's metrics, the sampler's epoch, progress."""

import time

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from transformers import ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState

from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.metrics import METRICS
from ser_mtl.tasks import TASKS


class SparingCheckpoints(TrainerCallback):
    """Write a checkpoint when dev improves, or when one is due and the last one is `minutes` old.

    A checkpoint of XLS-R is 3.8 GB; on a fast GPU, writing it takes longer than training an epoch.
    """

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.last = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """If `--save_strategy` says that a checkpoint is due, wait until the last one is old enough."""
        control.should_save = control.should_save and self._old_enough()

    on_epoch_end = on_step_end

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Always keep the best model: it is loaded at the end."""
        if args.load_best_model_at_end:
            value = metrics[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"]
            better = np.greater if args.greater_is_better else np.less
            control.should_save |= state.best_metric is None or bool(better(value, state.best_metric))

    def on_save(self, args, state, control, **kwargs):
        """Count the minutes from here."""
        self.last = time.monotonic()

    def _old_enough(self) -> bool:
        # The first process decides, because all must take part in a checkpoint.
        return broadcast_object_list([time.monotonic() - self.last > 60 * self.minutes])[0]


class Stopwatch(TrainerCallback, ExportableState):
    """Count the seconds of training. Each checkpoint holds the count, and a resumed run continues from it."""

    def __init__(self):
        self._before, self._begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds of training, including those before an interruption, except for work that was lost."""
        return self._before + time.monotonic() - self._begun

    def on_train_begin(self, args, state, control, **kwargs):
        """Count from zero, or from the count in the checkpoint."""
        # A checkpoint of version 0.1 may have no count, and the Trainer wants one to replace.
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self._before = saved["attributes"]["seconds"] if state.global_step else 0.0
        self._begun = time.monotonic()

    def state(self) -> dict:
        """The state that a checkpoint keeps, under the names that transformers expects."""
        return {"args": {}, "attributes": {"seconds": self.seconds}}


class MeasureTestFold(TrainerCallback):
    """Log `test_emotion_ua` and the other metrics of the test fold after each epoch. Nothing is chosen by them.

    Args:
        trainer: the Trainer it belongs to.
        test: the test fold.
    """

    def __init__(self, trainer: Trainer, test: Dataset):
        self.trainer, self.test = trainer, test

    def on_epoch_end(self, args, state, control, **kwargs):
        """Predict. `evaluate` or `log` would take the place of the Trainer's own evaluation and log."""
        with torch.random.fork_rng():  # a DataLoader draws a random number, which training must not miss
            metrics = self.trainer.predict(self.test).metrics
        state.log_history.append(metrics | {"epoch": state.epoch, "step": state.global_step})


class SamplerEpoch(TrainerCallback):
    """Tell the sampler its epoch.

    Without it, a run of several processes that is resumed within an epoch continues in the order of the first epoch:
    `set_epoch` does not get through `skip_first_batches`. Delete this when it does (huggingface/accelerate#2016).
    """

    def __init__(self, sampler: LengthGroupedSampler):
        self.sampler = sampler

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Take the whole part: in a resumed run the epoch is not a whole number."""
        self.sampler.set_epoch(int(state.epoch or 0))


class EpochProgress(ProgressCallback):
    """The Trainer's progress bars with a label, and one short line for each log."""

    def on_train_begin(self, args, state, control, **kwargs):
        """Label the bar of the training."""
        super().on_train_begin(args, state, control, **kwargs)
        if self.training_bar is not None:
            self.training_bar.set_description("training")

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        """Label the bar of an evaluation."""
        super().on_prediction_step(args, state, control, eval_dataloader=eval_dataloader, **kwargs)
        if self.prediction_bar is not None and not self.prediction_bar.desc:
            self.prediction_bar.set_description("predicting")

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Write the losses and the metrics of the development set."""
        if not state.is_world_process_zero or self.training_bar is None:
            return
        losses = {"loss": "loss"} | {f"loss_{name}": name for name in self._loss_names(logs)}
        metrics = {f"eval_{metric.name}": f"dev {metric.title}" for metric in METRICS if metric.key in ("ua", "wer")}
        shown = [f"{label} {logs[name]:.3f}" for name, label in (losses | metrics).items() if name in logs]
        if shown:
            self.training_bar.write(f"epoch {logs.get('epoch', state.epoch):g}: " + ", ".join(shown))

    def close(self):
        """End the bars of a training that stops with an error, so that its message has a line of its own."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()

    @staticmethod
    def _loss_names(logs: dict[str, float]) -> list[str]:
        """Names of the losses in a log: the tasks' in their order, then the others."""
        names = [name.removeprefix("loss_") for name in logs if name.startswith("loss_")]
        return sorted(names, key=lambda name: list(TASKS).index(name) if name in TASKS else len(TASKS))
