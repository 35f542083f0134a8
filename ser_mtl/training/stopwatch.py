"""How long a run has trained, however often it was interrupted."""

import time

from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState


class Stopwatch(TrainerCallback, ExportableState):
    """Counts the seconds of training; each checkpoint holds its count, from which a resumed run counts on."""

    def __init__(self):
        self._before, self._begun = 0.0, time.monotonic()

    @property
    def seconds(self) -> float:
        """Of training, those before an interruption included, but for what was lost by it."""
        return self._before + time.monotonic() - self._begun

    def on_train_begin(self, args, state, control, **kwargs):
        """Count from zero, or from what the checkpoint says that training goes on from."""
        # A checkpoint from before there was a stopwatch has no count, and the Trainer wants one to replace.
        saved = state.stateful_callbacks.setdefault(type(self).__name__, self.state())
        self._before = saved["attributes"]["seconds"] if state.global_step else 0.0
        self._begun = time.monotonic()

    def state(self) -> dict:
        """What a checkpoint keeps, under the names that transformers asks for."""
        return {"args": {}, "attributes": {"seconds": self.seconds}}
