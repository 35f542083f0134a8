"""On a GPU the model asks the device for no number, and no tensor is elsewhere: tried with tensors without data."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from helpers.encoders import ENCODERS, all_tasks_config
from helpers.waiting import Waiting
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.updates import with_empty_weights
from modeling_ser_mtl import SerMtlModel
from ser_mtl.model.spec_augment import SpecAugment
from ser_mtl.training.adapters import attach_adapters, freeze_for_full_finetuning

STAGES = {
    1: {"tasks": ["emotion", "asr", "valence"], "value_scales": {"valence": [3.0, 1.0]}},
    2: {"tasks": ["emotion", "gender", "style"], "bottleneck_dim": 8, "fusion": "concat", "scl": "cos"},
}


def ctc_of_the_device(log_probabilities, targets, input_lengths, target_lengths, **_) -> Tensor:
    """In the place of torch's CTC, whose kernel asks for a real GPU: (frames, batch, characters) -> (batch,)."""
    given = (log_probabilities, targets, input_lengths, target_lengths)
    assert {tensor.device.type for tensor in given} == {"cuda"}
    assert log_probabilities.dtype == torch.float32
    return log_probabilities.sum(dim=(0, 2))


@contextmanager
def autocast(dtype: torch.dtype) -> Iterator[None]:
    """As `torch.autocast("cuda", dtype)`, which refuses to be where there is no GPU."""
    before = torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    try:
        yield
    finally:
        torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", False)
        torch.set_autocast_dtype("cuda", before)


def model_of(stage: int, encoder: str) -> torch.nn.Module:
    """A model that trains, as the Trainer gets it."""
    config = all_tasks_config(encoder, **STAGES[stage])
    config.encoder_config.mask_time_prob = config.encoder_config.mask_feature_prob = 0.3
    for axis in ("time", "feature"):
        setattr(config.encoder_config, f"mask_{axis}_length", 4)
        setattr(config.encoder_config, f"mask_{axis}_min_masks", 0)
    model = SerMtlModel(config)
    model.spec_augment = SpecAugment(model.encoder)
    if stage == 2:
        return attach_adapters(model, "base", 4, 4)
    freeze_for_full_finetuning(model, train_front_end=False)
    return model


def batch_of(stage: int) -> dict[str, Tensor]:
    """Waveforms of different lengths, some of them with labels."""
    batch = {"input_values": torch.randn(4, 8000), "attention_mask": torch.ones(4, 8000, dtype=torch.long)}
    batch |= {f"{task}_labels": torch.zeros(4, dtype=torch.long) for task in STAGES[stage]["tasks"]}
    if stage == 1:
        batch |= {"valence_labels": torch.randn(4), "asr_labels": torch.ones(4, 3, dtype=torch.long)}
    return batch


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("encoder", list(ENCODERS))
def test_the_forward_pass_and_its_losses_stay_on_the_device(encoder, stage, monkeypatch):
    monkeypatch.setattr("torch.nn.functional.ctc_loss", ctc_of_the_device)
    model = model_of(stage, encoder).train()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device("cuda"):
        model, batch = with_empty_weights(model), batch_of(stage)
        copied = ["aten::_to_copy"] if encoder == "Whisper" else []  # its filters follow the first waveforms
        for dtype, expected in ((torch.bfloat16, copied), (torch.float16, [])):
            with Waiting() as waiting, autocast(dtype):
                output = model(**batch)
            assert waiting.found == expected
            assert output.loss.device.type == output.logits.device.type == "cuda"
            assert {loss.dtype for loss in output.losses.values()} == {torch.float32}
        with Waiting() as waiting:
            float(output.loss.detach())
        assert waiting.found == ["aten::_local_scalar_dense"]


@torch.no_grad()
def test_a_prediction_holds_no_hidden_state_longer_than_the_next_layer_needs_it():
    config = all_tasks_config()
    config.encoder_config.num_hidden_layers = 4
    model, made, alive = SerMtlModel(config).eval(), [], []

    def note(module, arguments, output):
        made.append(weakref.ref(output))
        alive.append(sum(state() is not None for state in made))

    for layer in model.transformer_layers():
        layer.register_forward_hook(note)
    batch = {"features": torch.randn(1, 9, 16), "frame_lengths": torch.tensor([9])}
    model(**batch)
    assert alive == [1, 2, 2, 2]  # its own, and the one it read
    assert len(model(**batch, output_hidden_states=True).hidden_states) == 5
