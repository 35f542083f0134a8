"""The frozen model under the adapters of stage 2: it transcribes as stage 1 does, which the adapted one does not."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from modeling_ser_mtl import SerMtlModel

NO_TRANSCRIPT = (
    "answers have no transcript: training or a merge changed the layers under its CTC head; take transcripts from the "
    "stage-1 model, or from the adapters before they were merged"
)


def transcribing(model: SerMtlModel) -> Literal["adapted", "frozen"] | None:
    """Which model the transcripts come from: as it is, with its adapters off, or None if neither can transcribe.

    A CTC head transcribes with the layers that it was trained on: those of now if speech recognition is among the
    tasks, else those under the adapters, unless the head was saved with the adapters and so belongs to earlier ones.
    """
    if model.ctc_head is None:
        return None
    if "asr" in model.config.tasks:
        return "adapted"
    return "frozen" if (adapters := _adapters(model)) and model.ctc_head not in adapters else None


@contextmanager
def adapters_off(model: SerMtlModel) -> Iterator[None]:
    """Run the model without LoRA and without bottlenecks inside the block. Not for several threads at once."""
    adapters = _adapters(model)
    for module in adapters:
        module.enable_adapters(False)
    try:
        yield
    finally:  # transformers' own `enable_adapters` would leave the bottlenecks off
        for module in adapters:
            module.enable_adapters(True)


def _adapters(model: SerMtlModel) -> list:
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import ModulesToSaveWrapper

    return [module for module in model.modules() if isinstance(module, BaseTunerLayer | ModulesToSaveWrapper)]
