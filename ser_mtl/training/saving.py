"""Saving a trained model with everything that `from_pretrained` needs."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peft import PeftModel
from transformers import Wav2Vec2Processor
from transformers.dynamic_module_utils import custom_object_save

from modeling_ser_mtl import SerMtlModel
from ser_mtl.files import writing
from ser_mtl.training.adapters import unwrap

NO_AUTO_PEFT = "nothing: AutoPeftModel has no class for audio, use AutoModelForAudioClassification of transformers"
"""The library that `AutoPeftModel` is told to import, so that its error says what to use. A dot would cut it off."""


def save_model(model: SerMtlModel | PeftModel, processor: Wav2Vec2Processor, folder: Path) -> None:
    """Write the weights (only the adapters, if there are any), the config, the processor and the modeling file."""
    with saving(folder) as partial:
        _write(model, processor, partial)


@contextmanager
def saving(folder: Path) -> Iterator[Path]:
    """A temporary folder to write a model to; its files are then moved to `folder`.

    Weights are moved last, as the sign that the model is complete.
    """
    partial = folder / ".partial.model"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        with writing(folder):
            yield partial
            for file in sorted(partial.iterdir(), key=lambda file: file.suffix == ".safetensors"):
                file.replace(folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(model: SerMtlModel | PeftModel, processor: Wav2Vec2Processor, folder: Path) -> None:
    model.save_pretrained(folder)
    if isinstance(model, PeftModel):
        file = folder / "adapter_config.json"
        config = json.loads(file.read_text(encoding="utf-8"))
        config["auto_mapping"] = {"base_model_class": type(unwrap(model)).__name__, "parent_library": NO_AUTO_PEFT}
        file.write_text(json.dumps(config, indent=2, sort_keys=True), encoding="utf-8")
    # PEFT saves only the adapters; the Auto classes need the modeling file, and its class names in the config.
    custom_object_save(unwrap(model), folder, config=unwrap(model).config)
    unwrap(model).config.save_pretrained(folder)
    processor.save_pretrained(folder)
    processor.feature_extractor.save_pretrained(folder)  # where transformers before 4.57 looks for it
