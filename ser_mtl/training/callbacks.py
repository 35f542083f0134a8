"""The Trainer's callbacks: checkpoints, signals, a stopwatch, early stopping, the test fold, the sampler, progress."""

import time
from contextlib import ExitStack

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from torch import distributed
from transformers import EarlyStoppingCallback, ProgressCallback, Trainer, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerState

from ser_mtl.corpora.augmentation import Augmented
from ser_mtl.corpora.batching import LengthGroupedSampler
from ser_mtl.evaluation.results import UNTRAINED_WER
from ser_mtl.metrics import METRICS, Metric
from ser_mtl.stopping import Stopped, on_signals
from ser_mtl.tasks import TASKS


class SparingCheckpoints(TrainerCallback):
    """Write a checkpoint when dev improves, when one is due and the last one is `minutes` old, and at the end.

    A checkpoint of XLS-R is 3.8 GB; on a fast GPU, writing it takes longer than training an epoch. One that falls on
    the last update of an epoch waits for the epoch's evaluation and log, which a resumed run would miss.
    """

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.last = time.monotonic()
        self.waits = False

    def on_step_end(self, args, state, control, **kwargs):
        """If a checkpoint is due by `--save_strategy`, wait until the last one is old enough."""
        self.waits = control.should_save and self._old_enough()
        control.should_save = self.waits and within_epoch(state)

    def on_epoch_end(self, args, state, control, **kwargs):
        """Likewise. After the last update, always write one."""
        last = 0 < state.max_steps <= state.global_step and args.save_strategy != "no"
        control.should_save = last or self.waits or (control.should_save and self._old_enough())
        self.waits = False

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Always save the best model: it is loaded at the end."""
        if args.load_best_model_at_end:
            value = metrics[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"]
            better = np.greater if args.greater_is_better else np.less
            if state.best_metric is None or better(value, state.best_metric):
                self.waits = args.eval_strategy == "steps" and not within_epoch(state)
                control.should_save |= not self.waits

    def on_save(self, args, state, control, **kwargs):
        """Count the minutes from here."""
        self.last = time.monotonic()

    def _old_enough(self) -> bool:
        # The first process decides, because all must take part in a checkpoint.
        return broadcast_object_list([time.monotonic() - self.last > 60 * self.minutes])[0]


def within_epoch(state: TrainerState) -> bool:
    """Whether more updates of this epoch follow."""
    return state.epoch % 1 != 0 and state.global_step < state.max_steps


class StopOnSignal(TrainerCallback):
    """On SIGTERM or SIGUSR1, finish the update, write a checkpoint and end the program with exit code 143.

    A context manager around the training. The processes of a run may get the signal at different moments, and stop
    together.
    """

    def __init__(self):
        self._got = self._agreed = 0
        self._group: distributed.ProcessGroup | None = None
        self._stack = ExitStack()

    def __enter__(self) -> "StopOnSignal":
        self._got = self._agreed = 0
        # Gloo, because NCCL would make each update wait for the GPU.
        alone = not (distributed.is_initialized() and distributed.get_world_size() > 1)
        self._group = None if alone else distributed.new_group(backend="gloo")
        self._stack.enter_context(on_signals(self._note))
        return self

    def __exit__(self, *raised) -> None:
        self._stack.close()

    def _note(self, number: int, frame: object) -> None:
        self._got = number

    def _stopping(self) -> bool:
        self._agreed = self._got
        if self._group is not None:
            latest = torch.tensor(self._got)
            distributed.all_reduce(latest, distributed.ReduceOp.MAX, self._group)
            self._agreed = int(latest)
        return self._agreed > 0

    def on_step_end(self, args, state, control, **kwargs):
        """Write a checkpoint now, or after the epoch's evaluation and log where they come next."""
        if within_epoch(state):
            control.should_save |= self._stopping()

    def on_epoch_end(self, args, state, control, **kwargs):
        """Write a checkpoint."""
        control.should_save |= self._stopping()

    def on_save(self, args, state, control, **kwargs):
        """Stop, if the checkpoint was for that.

        Raises:
            Stopped: with the signal.
        """
        if self._agreed:
            raise Stopped(self._agreed)

    def on_train_end(self, args, state, control, **kwargs):
        """Stop after the checkpoint of the last update.

        Raises:
            Stopped: with the signal.
        """
        if self._stopping():
            raise Stopped(self._agreed)


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


class EarlyStopping(EarlyStoppingCallback):
    """Stops after `patience` evaluations without improvement. A checkpoint keeps the count.

    A checkpoint is written where it stops, so that an interruption after that does not train on.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Go on from the count in the checkpoint; a run that had stopped there stops again."""
        super().on_train_begin(args, state, control, **kwargs)
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self.early_stopping_patience_counter = (
            saved["attributes"]["early_stopping_patience_counter"] if state.global_step else 0
        )
        control.should_training_stop |= self._due

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Count, and stop at the limit."""
        super().on_evaluate(args, state, control, metrics, **kwargs)
        control.should_save |= self._due and args.eval_strategy == "epoch"

    def on_epoch_end(self, args, state, control, **kwargs):
        """Save a stop within an epoch here, after the epoch's log."""
        control.should_save |= self._due

    @property
    def _due(self) -> bool:
        return self.early_stopping_patience_counter >= self.early_stopping_patience


class MeasureTestFold(TrainerCallback):
    """Log `test_emotion_ua` and the other metrics of the test fold after each epoch. Nothing is chosen by them.

    Args:
        trainer: the Trainer it belongs to.
        test: the test fold.
    """

    def __init__(self, trainer: Trainer, test: Dataset):
        self.trainer, self.test = trainer, test

    def on_epoch_end(self, args, state, control, **kwargs):
        """Predict. Not with `evaluate` or `log`, which would replace the Trainer's own evaluation and log."""
        with torch.random.fork_rng():  # a DataLoader draws a random number, which training must not miss
            metrics = self.trainer.predict(self.test).metrics
        state.log_history.append(metrics | {"epoch": state.epoch, "step": state.global_step})


class SamplerEpoch(TrainerCallback):
    """Tell the sampler, and an augmented training set, the epoch.

    Without it, a run of several processes that is resumed within an epoch continues in the order of the first epoch:
    `set_epoch` does not get through `skip_first_batches`. Delete this when it does (huggingface/accelerate#2016).
    """

    def __init__(self, sampler: LengthGroupedSampler, rows: Dataset | Augmented):
        self.sampler, self.rows = sampler, rows

    def on_epoch_begin(self, args, state, control, **kwargs):
        """Set the epoch, rounded down: in a resumed run it is not a whole number."""
        epoch = int(state.epoch or 0)
        self.sampler.set_epoch(epoch)
        if isinstance(self.rows, Augmented):
            self.rows.begin_epoch(epoch)


class EpochProgress(ProgressCallback):
    """The Trainer's progress bars with a label, and one short line for each log."""

    _explained = False

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
        shown = [f"{label} {logs[name]:.3f}" for name, label in losses.items() if name in logs]
        shown += [f"dev {metric.title} {100 * logs[name]:.1f} %" for name, metric in self._metrics(logs).items()]
        if shown:
            self.training_bar.write(f"epoch {logs.get('epoch', state.epoch):g}: " + ", ".join(shown))

    def _metrics(self, logs: dict[str, float]) -> dict[str, Metric]:
        """The metrics of a log to show. WER is left out until it means something; a line says so once."""
        shown = {f"eval_{metric.name}": metric for metric in METRICS if metric.key in ("ua", "wer", "ccc")}
        shown = {name: metric for name, metric in shown.items() if name in logs}
        waits = {name for name, metric in shown.items() if metric.key == "wer" and logs[name] >= UNTRAINED_WER}
        if waits and not self._explained:
            self._explained = True
            self.training_bar.write(f"dev WER is shown once it is below {100 * UNTRAINED_WER:.0f} %")
        return {name: metric for name, metric in shown.items() if name not in waits}

    def close(self):
        """Close the bars of a training that stops with an error, so that the message starts on a new line."""
        for bar in (self.prediction_bar, self.training_bar):
            if bar is not None:
                bar.close()

    @staticmethod
    def _loss_names(logs: dict[str, float]) -> list[str]:
        """Names of the losses in a log: the tasks' in their order, then the others."""
        names = [name.removeprefix("loss_") for name in logs if name.startswith("loss_")]
        return sorted(names, key=lambda name: list(TASKS).index(name) if name in TASKS else len(TASKS))
