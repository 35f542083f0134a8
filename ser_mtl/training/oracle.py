"""What choosing the epoch on the test fold would have brought: measured beside the training, which stays as it is."""

import torch
from datasets import Dataset
from transformers import TrainerCallback

from ser_mtl.training.trainer import SerMtlTrainer


class MeasureTestFold(TrainerCallback):
    """Log `test_emotion_ua` and the other test figures after each epoch. No choice looks at them.

    Args:
        trainer: that it is added to.
        test: the test fold.
    """

    def __init__(self, trainer: SerMtlTrainer, test: Dataset):
        self.trainer, self.test = trainer, test

    def on_epoch_end(self, args, state, control, **kwargs):
        """Predict; neither `evaluate` nor `log`, which would take the place of those that the Trainer has to do."""
        with torch.random.fork_rng():  # a DataLoader draws a random number, which the training must not miss
            figures = self.trainer.predict(self.test).metrics
        state.log_history.append(figures | {"epoch": state.epoch, "step": state.global_step})
