"""Values: 1 - CCC of a whole update however it is dealt out, with the gradient of the plain formula; never a NaN."""

from pathlib import Path

import pytest
import torch
from helpers.encoders import all_tasks_config
from helpers.trainers import SCALES, noise_trainer

from modeling_ser_mtl import concordance_loss, concordance_sums, loss_weights

CONFIG = all_tasks_config(tasks=["emotion", "valence"], value_scales={"valence": [3.0, 0.7]})


def plain_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """1 - CCC as Lin (1989) has it, of annotated utterances."""
    covariance = ((x - x.mean()) * (y - y.mean())).mean()
    return 1 - 2 * covariance / (x.var(correction=0) + y.var(correction=0) + (x.mean() - y.mean()) ** 2)


def drawn(n: int = 24) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    labels = 1 + 4 * torch.rand(n, generator=generator)
    values = (2.0 + 0.5 * labels + 0.3 * torch.randn(n, generator=generator)).requires_grad_()
    return values, labels.index_fill(0, torch.tensor([3, 11]), torch.nan)


def test_the_mean_loss_is_one_minus_ccc_with_its_gradient():
    values, labels = drawn()
    real = labels.isfinite()
    losses = concordance_loss(CONFIG, "valence", values, labels)
    assert losses[~real].tolist() == [0, 0]
    mean, expected = losses.sum() / real.sum(), plain_loss(values[real], labels[real])
    torch.testing.assert_close(mean, expected)
    (gradient,), (wanted,) = (torch.autograd.grad(loss, values) for loss in (mean, expected))
    torch.testing.assert_close(gradient, wanted, atol=1e-6, rtol=1e-4)


def test_parts_of_an_update_give_the_gradient_of_the_whole():
    values, labels = drawn()
    n = labels.isfinite().sum()
    sums = sum(
        concordance_sums(CONFIG, "valence", *part) for part in zip(values.split(5), labels.split(5), strict=True)
    )
    losses = [
        concordance_loss(CONFIG, "valence", *part, sums) for part in zip(values.split(5), labels.split(5), strict=True)
    ]
    whole = concordance_loss(CONFIG, "valence", values, labels)
    torch.testing.assert_close(torch.cat(losses), whole)
    (gradient,) = torch.autograd.grad(torch.cat(losses).sum() / n, values, retain_graph=True)
    torch.testing.assert_close(gradient, torch.autograd.grad(whole.sum() / n, values)[0], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("labels", [[torch.nan] * 3, [4.0, torch.nan, torch.nan], [2.0] * 3], ids=str)
@pytest.mark.parametrize("values", [[1.0, 2.0, 3.0], [2.0] * 3, [4.0] * 3], ids=str)
def test_an_update_whose_labels_do_not_vary_adds_nothing(values, labels):
    values = torch.tensor(values, requires_grad=True)
    losses = concordance_loss(CONFIG, "valence", values, torch.tensor(labels))
    losses.sum().backward()
    assert losses.tolist() == values.grad.tolist() == [0, 0, 0]


def test_predictions_that_do_not_vary_have_a_loss_and_a_finite_gradient():
    values, labels = torch.full((4,), 2.0, requires_grad=True), torch.tensor([1.0, 2.0, 3.0, 5.0])
    loss = concordance_loss(CONFIG, "valence", values, labels).mean()
    loss.backward()
    assert loss.item() == pytest.approx(1) and values.grad.isfinite().all() and values.grad.any()


def update(folder: Path, per_device: int, accumulation: int, dropout: float = 0.0):
    """Loss, gradients and logged losses of the only update of an epoch."""
    flags = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation}
    made = noise_trainer(folder, values=True, dropout=dropout, **flags)
    made.create_optimizer_and_scheduler(1)
    torch.manual_seed(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), accumulation, made.args.device)
    made.current_gradient_accumulation_steps = accumulation
    loss = sum(made.training_step(made.model, batch, counts) for batch in batches)
    gradients = {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}
    return float(loss), gradients, made


def test_a_batch_of_eight_equals_two_of_four_with_values(tmp_path):
    (loss, whole, one), (parts_loss, parts, two) = (update(tmp_path, *sizes) for sizes in ((8, 1), (4, 2)))
    assert parts_loss == pytest.approx(loss, rel=1e-5)
    assert set(parts) == set(whole) and any("heads.valence" in name for name in parts)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-3, msg=name)
    for task in SCALES:
        torch.testing.assert_close(two._loss_sums[task], one._loss_sums[task])


def test_the_loss_of_an_update_is_that_of_its_values(tmp_path):
    _, _, made = update(tmp_path, 8, 1)
    batch = made.data_collator([made.train_dataset[i] for i in range(8)])
    batch.pop("row")
    output = made.model.train()(**batch)
    for task in SCALES:
        real = batch[f"{task}_labels"].isfinite()
        assert real.sum() in (4, 7)
        expected = plain_loss(output.task_values[task][real], batch[f"{task}_labels"][real])
        torch.testing.assert_close(made._loss_sums[task], expected.detach())
    assert loss_weights(made.model.config)["valence"] == 0.1


def test_both_passes_of_an_update_draw_the_same_random_numbers(tmp_path):
    _, _, made = update(tmp_path, 4, 2, dropout=0.5)
    seen = [made._loss_sums[task].item() for task in SCALES]
    expected = [sums[5] / sums[0] for sums in made._value_sums.values()]
    for loss, error, sums in zip(seen, expected, made._value_sums.values(), strict=True):
        mean_x, x2, mean_y, y2 = (sums[1:5] / sums[0]).tolist()
        assert loss == pytest.approx(float(error) / (x2 + y2 - 2 * mean_x * mean_y), rel=1e-5)


def test_without_a_second_batch_there_is_no_second_pass(tmp_path):
    assert update(tmp_path, 8, 1)[2]._value_sums == {}
