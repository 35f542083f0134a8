"""What makes training fast changes no result: the losses of twenty steps are those of the plain path, in float32."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from helpers.encoders import ENCODERS, all_tasks_config
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import Wav2Vec2FeatureExtractor

from modeling_ser_mtl import SerMtlModel
from ser_mtl.model import fast_attention
from ser_mtl.model.fast_attention import choose_attention, plain_attention
from ser_mtl.model.fast_front_end import extract_features, fast_inputs
from ser_mtl.model.front_end import with_features
from ser_mtl.training.adapters import attach_adapters, freeze_for_full_finetuning, unwrap

LENGTHS = (8000, 7600, 5200, 3000)
STEPS = 20


def sounds() -> list[Tensor]:
    """Four noises of different lengths."""
    torch.manual_seed(0)
    return [torch.randn(n) for n in LENGTHS]


def labels() -> dict[str, Tensor]:
    """Labels of every task for `sounds`."""
    return {
        "emotion_labels": torch.tensor([0, 1, 2, 3]),
        "gender_labels": torch.tensor([0, 1, -100, 1]),
        "style_labels": torch.tensor([1, 0, 1, -100]),
        "asr_labels": torch.tensor([[3, 4, 5], [6, 7, -100], [8, -100, -100], [-100, -100, -100]]),
    }


def model_of(stage: int) -> torch.nn.Module:
    """A model without any randomness, frozen as in a stage."""
    torch.manual_seed(0)
    config = all_tasks_config(bottleneck_dim=8 if stage == 2 else None)
    config.encoder_config.mask_time_prob = 0.0
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(config.encoder_config, name, 0.0)
    model = SerMtlModel(config)
    if stage == 2:
        return attach_adapters(model, "base", 4, 4)
    freeze_for_full_finetuning(model, train_front_end=False)
    return model


def stock_front_end(model: torch.nn.Module) -> Callable[[], dict]:
    """The plain path: every step the encoder's own front end, one utterance at a time, and much more padding."""
    base = unwrap(model)

    def batch() -> dict:
        with torch.no_grad():
            rows = [base.encoder.feature_extractor(sound[None])[0].T for sound in sounds()]
        frames = pad_sequence([*rows, torch.zeros(90, rows[0].shape[1])], batch_first=True)[:-1]
        return {"features": frames, "frame_lengths": torch.tensor([len(row) for row in rows])}

    return batch


def padded_waveforms(model: torch.nn.Module) -> Callable[[], dict]:
    """Our front end in every step, on the padded batch."""
    mask = pad_sequence([torch.ones(n, dtype=torch.long) for n in LENGTHS], batch_first=True)
    return lambda: fast_inputs(
        unwrap(model), {"input_values": pad_sequence(sounds(), batch_first=True), "attention_mask": mask}
    )


def features_computed_once(model: torch.nn.Module) -> Callable[[], dict]:
    """Our front end once, before the first step."""
    with torch.no_grad():
        rows = [extract_features(unwrap(model), sound[None])[0][0] for sound in sounds()]
    batch = {"features": pad_sequence(rows, batch_first=True), "frame_lengths": torch.tensor([len(r) for r in rows])}
    return lambda: batch


def losses(stage: int, path: Callable[[torch.nn.Module], Callable[[], dict]]) -> list[float]:
    """The losses of twenty steps of AdamW."""
    model = model_of(stage).train()
    batch = path(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    found = []
    for _ in range(STEPS):
        loss = model(**batch(), **labels()).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("path", [padded_waveforms, features_computed_once])
def test_twenty_losses_are_those_of_the_plain_path(stage, path):
    plain = losses(stage, stock_front_end)
    assert plain[-1] < 0.9 * plain[0]
    assert losses(stage, path) == pytest.approx(plain, rel=1e-4)


def test_a_model_that_is_moved_for_its_front_end_can_still_be_trained(monkeypatch):
    model = model_of(stage=1)
    # As a device would: torch gives each parameter new memory.
    monkeypatch.setattr(SerMtlModel, "to", lambda self, _: self._apply(torch.clone))
    columns = {"samples": sounds()[0][:4000].tolist(), "digest": "of these", "length": 4000}
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    with_features(Dataset.from_list([columns]), model, extractor, torch.device("cpu"))
    assert not any(parameter.is_inference() for parameter in model.parameters())


def test_plain_attention_and_its_gradients_are_those_of_torchs_fused_one():
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 7, 4, requires_grad=True) for _ in range(3)]
    real = torch.arange(7) < torch.tensor([[7], [4]])[:, None, None]
    added = torch.zeros(real.shape).masked_fill(~real, torch.finfo(torch.float32).min)
    plain, _ = plain_attention(torch.nn.Identity(), *inputs, added, scaling=0.3)
    fused = F.scaled_dot_product_attention(*inputs, attn_mask=real, scale=0.3).transpose(1, 2)
    torch.testing.assert_close(plain, fused)
    direction = torch.randn_like(plain)
    of_plain = torch.autograd.grad(plain, inputs, direction)
    of_fused = torch.autograd.grad(fused, inputs, direction)
    torch.testing.assert_close(of_plain, of_fused)


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if name != "WavLM"])
@torch.no_grad()
def test_plain_and_fused_attention_in_bfloat16_say_the_same(encoder, monkeypatch):
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(encoder)).eval()
    mask = pad_sequence([torch.ones(n, dtype=torch.long) for n in LENGTHS], batch_first=True)
    features, lengths = model.extract_features(pad_sequence(sounds(), batch_first=True), mask)
    exact = model(features=features, frame_lengths=lengths).logits
    assert model.encoder.config._attn_implementation == "sdpa"
    found = []
    for frames in (400, 0):
        monkeypatch.setattr(fast_attention, "LONGEST", frames)
        with torch.autocast("cpu", torch.bfloat16):
            choose_attention(model, features.shape[1])
            found.append(model(features=features, frame_lengths=lengths).logits.float())
        assert model.encoder.config._attn_implementation == ("ser_mtl_plain" if frames else "sdpa")
    for logits in found:
        torch.testing.assert_close(logits, exact, atol=0.03 * float(exact.abs().max()), rtol=0)
