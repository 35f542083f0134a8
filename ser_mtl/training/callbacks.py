"""When a checkpoint is written: often enough to lose little, seldom enough not to wait for the disk."""

import time

import numpy as np
from accelerate.utils import broadcast_object_list
from transformers import TrainerCallback


class SparingCheckpoints(TrainerCallback):
    """Keep of the checkpoints that are due those where dev got better and those `minutes` after the last one.

    One of XLS-R holds 3.8 GB, which on a fast GPU takes longer to write than an epoch takes to train.
    """

    def __init__(self, minutes: float):
        self.minutes = minutes
        self.last = time.monotonic()

    def on_step_end(self, args, state, control, **kwargs):
        """Where `--save_strategy` says that one is due, wait until the last is old enough."""
        control.should_save = control.should_save and self._old_enough()

    on_epoch_end = on_step_end

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """What is best must be kept: it is loaded in the end."""
        if args.load_best_model_at_end:
            figure = metrics[f"eval_{args.metric_for_best_model.removeprefix('eval_')}"]
            better = np.greater if args.greater_is_better else np.less
            control.should_save |= state.best_metric is None or bool(better(figure, state.best_metric))

    def on_save(self, args, state, control, **kwargs):
        """Count from here."""
        self.last = time.monotonic()

    def _old_enough(self) -> bool:
        # The first process decides, for all must take part in a checkpoint.
        return broadcast_object_list([time.monotonic() - self.last > 60 * self.minutes])[0]
