"""fp16, for GPUs without bfloat16, as far as a CPU goes: scaled losses, CTC in float32. No card has been tried."""

import pytest
import torch
from helpers.encoders import all_tasks_config
from helpers.trainers import noise_trainer

from modeling_ser_mtl import SerMtlModel, ctc_loss


def model_and_batch() -> tuple[SerMtlModel, dict[str, torch.Tensor]]:
    """Stage 1 without any randomness, and a batch for it."""
    torch.manual_seed(0)
    config = all_tasks_config(tasks=["emotion", "asr"])
    config.encoder_config.mask_time_prob = 0.0
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(config.encoder_config, name, 0.0)
    batch = {"features": torch.randn(4, 90, 16), "frame_lengths": torch.tensor([90, 80, 70, 40])}
    batch |= {"emotion_labels": torch.tensor([0, 1, 2, 3]), "asr_labels": torch.randint(1, 12, (4, 15))}
    return SerMtlModel(config), batch


def backward(scale: float | None) -> tuple[SerMtlModel, torch.amp.GradScaler]:
    """The model with the gradients of a batch: in fp16 with the loss scaled, or in float32."""
    model, batch = model_and_batch()
    scaler = torch.amp.GradScaler("cpu", init_scale=scale or 1.0, enabled=scale is not None)
    with torch.autocast("cpu", torch.float16, enabled=scale is not None):
        output = model(**batch)
    assert {loss.dtype for loss in output.losses.values()} == {torch.float32}
    scaler.scale(output.loss).backward()
    return model, scaler


def test_gradients_of_scaled_losses_are_those_of_float32():
    exact = [p.grad for p in backward(None)[0].parameters() if p.grad is not None]
    model, scaler = backward(2.0**16)
    scaler.unscale_(torch.optim.SGD(model.parameters(), 0.1))
    found = [p.grad for p in model.parameters() if p.grad is not None]
    error = torch.stack([(a - b).norm() for a, b in zip(found, exact, strict=True)]).norm()
    assert error < 0.02 * torch.nn.utils.get_total_norm(exact)


def test_an_update_whose_gradients_overflow_is_left_out_and_the_scale_halves():
    model, scaler = backward(2.0**60)
    before = [p.clone() for p in model.parameters()]
    scaler.step(torch.optim.SGD(model.parameters(), 0.1))
    scaler.update()
    assert scaler.get_scale() == 2.0**59
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_ctc_of_fp16_logits_is_that_of_their_values_in_float32():
    torch.manual_seed(0)
    logits = (20 * torch.randn(2, 1500, 32)).half().requires_grad_()
    labels = torch.randint(1, 32, (2, 400))
    with torch.autocast("cpu", torch.float16):
        loss = ctc_loss(logits, torch.tensor([1500, 1200]), labels, blank=0)
    exact = ctc_loss(logits.double(), torch.tensor([1500, 1200]), labels, blank=0)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact.float(), rtol=1e-4, atol=0)
    (2.0**16 * loss.sum()).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("fp16", [True, False])
def test_a_gradient_that_overflows_stops_a_run_except_in_fp16(fp16, tmp_path):
    trainer = noise_trainer(tmp_path)
    trainer.args.fp16 = fp16
    trainer.divergence.note_losses(torch.tensor([0]), {"emotion": torch.tensor([1.0])})
    weight = next(p for p in trainer.model.parameters() if p.requires_grad)
    weight.grad = torch.full_like(weight, torch.inf)
    trainer.divergence.note_gradient(trainer.model)
    assert bool(trainer.divergence.updates[-1].finite) == fp16
