"""One warning of PEFT that a user can do nothing about."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Leave out that `is_gradient_checkpointing` is deprecated, while PEFT wraps a model.

    `PeftModel.__init__` (peft/peft_model.py, 0.21) still reads that property, which transformers deprecates from 5.23
    on. Delete this once PEFT reads `is_activation_checkpointing`.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        yield
