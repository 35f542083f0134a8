"""Label smoothing and class weights against torch and by hand: every classification task, hard and soft labels."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from helpers.encoders import LABELS
from helpers.trainers import N, noise_trainer
from sklearn.utils.class_weight import compute_class_weight

from modeling_ser_mtl import SerMtlOutput, annotated, classification_loss, loss_weights
from ser_mtl.training.loss_targets import LossTargets, balanced_weights

EPSILON = 0.2


def by_hand(logits: list[float], target: list[float]) -> float:
    """-sum of q' log p, with q' = (1 - epsilon) q + epsilon / K."""
    total = sum(math.exp(x) for x in logits)
    shares = [(1 - EPSILON) * q + EPSILON / len(logits) for q in target]
    return -sum(q * (x - math.log(total)) for q, x in zip(shares, logits, strict=True))


def loss_of(logits: torch.Tensor, labels: torch.Tensor, weights: dict | None = None) -> torch.Tensor:
    """The loss of each utterance of an update."""
    targets = LossTargets({"emotion": list("abc")}, EPSILON, {"emotion": weights} if weights else {})
    batch = {"emotion_labels": labels}
    number = annotated("emotion", labels).sum()
    scales = {task: number / total for task, total in targets.weight_sums([batch]).items()}
    return classification_loss(logits, targets.of_batch(batch, scales)["emotion_labels"])


LOGITS = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [5.0, 1.0, 1.0]])
HARD, SOFT = [1, -100, 0], [[0.5, 0.25, 0.25], [-100.0] * 3, [1.0, 0.0, 0.0]]


def test_hard_soft_and_missing_labels_are_smoothed_as_by_hand():
    expected_hard = [by_hand(LOGITS[0].tolist(), [0, 1, 0]), 0.0, by_hand(LOGITS[2].tolist(), [1, 0, 0])]
    expected_soft = [by_hand(LOGITS[0].tolist(), SOFT[0]), 0.0, by_hand(LOGITS[2].tolist(), SOFT[2])]
    for labels, expected in ((torch.tensor(HARD), expected_hard), (torch.tensor(SOFT), expected_soft)):
        loss = loss_of(LOGITS, labels)
        torch.testing.assert_close(loss, torch.tensor(expected))
        present = labels if labels.dim() == 1 else labels.clamp(min=0)
        torch_s = F.cross_entropy(LOGITS, present, label_smoothing=EPSILON, reduction="none")
        torch.testing.assert_close(loss[[0, 2]], torch_s[[0, 2]])


def test_weighted_soft_and_smoothed_targets_are_those_by_hand():
    weights = {"a": 0.5, "b": 3.0, "c": 1.0}
    terms, total = [], 0.0
    for logits, target in ((LOGITS[0].tolist(), SOFT[0]), (LOGITS[2].tolist(), SOFT[2])):
        log_sum = math.log(sum(map(math.exp, logits)))
        smooth = [(1 - EPSILON) * q + EPSILON / 3 for q in target]
        terms.append(-sum(w * q * (x - log_sum) for w, q, x in zip(weights.values(), smooth, logits, strict=True)))
        total += sum(w * q for w, q in zip(weights.values(), target, strict=True))
    loss = loss_of(LOGITS, torch.tensor(SOFT), weights)
    assert loss.sum().item() / 2 == pytest.approx(sum(terms) / total)


def test_balanced_weights_are_those_of_scikit_learn():
    emotions = [*"aaaaabbc", None]
    train = Dataset.from_dict({"emotion": emotions, "gender": [None] * 8 + ["f"]})
    found = balanced_weights(train, {"emotion": list("abcd"), "gender": ["f", "m"]})
    expected = compute_class_weight("balanced", classes=np.array(list("abc")), y=np.array(emotions[:-1]))
    assert found["emotion"] == pytest.approx(dict(zip("abcd", [*expected, 1.0], strict=True)))
    assert found["gender"] == {"f": 1.0, "m": 1.0}


def test_plain_targets_need_nothing():
    assert not LossTargets(LABELS, 0.0, {})


def update_loss(folder: Path, per_device: int, accumulation: int, **flags) -> tuple[float, dict[str, torch.Tensor]]:
    """The loss of the only update, and its gradients."""
    made = noise_trainer(folder, per_device_train_batch_size=per_device,
                         gradient_accumulation_steps=accumulation, **flags)  # fmt: skip
    made.create_optimizer_and_scheduler(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), accumulation, made.args.device)
    made.current_gradient_accumulation_steps = accumulation
    loss = sum(made.training_step(made.model, batch, counts) for batch in batches)
    return float(loss), {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


def whole_update(folder: Path, **flags) -> tuple[dict[str, torch.Tensor], SerMtlOutput, dict[str, float]]:
    """The batch of the only update, the model's output for it, and the weight of each loss."""
    made = noise_trainer(folder, **flags)
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    with torch.no_grad():
        output = made.model.train()(**{name: values for name, values in batch.items() if name != "row"})
    return batch, output, loss_weights(made.model.config)


@pytest.mark.parametrize("epsilon", [0.0, EPSILON])
def test_balanced_losses_are_those_of_torch_on_the_whole_update(tmp_path, epsilon):
    flags = {"class_weights": "balanced", "label_smoothing_factor": epsilon}
    batch, plain, weights = whole_update(tmp_path, **flags)
    expected = 0.0
    for name, values in plain.losses.items():
        if name in LABELS:
            labels = batch[f"{name}_labels"]
            there = labels[labels >= 0].unique()
            balanced = torch.ones(len(LABELS[name]))
            balanced[there] = torch.tensor(compute_class_weight(
                "balanced", classes=there.numpy(), y=labels[labels >= 0].numpy()), dtype=torch.float32)  # fmt: skip
            cross_entropy = torch.nn.CrossEntropyLoss(balanced, label_smoothing=epsilon)
            expected += weights[name] * cross_entropy(plain.task_logits[name], labels).item()
        else:
            count = (batch["asr_labels"] >= 0).any(dim=1).sum() if name == "asr" else N
            expected += weights[name] * (values.sum() / count).item()
    loss, whole = update_loss(tmp_path, N, 1, **flags)
    assert loss == pytest.approx(expected, rel=1e-5)
    accumulated, parts = update_loss(tmp_path, N // 2, 2, **flags)
    assert accumulated == pytest.approx(expected, rel=1e-5)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_each_task_is_smoothed_over_its_own_classes_and_no_transcript(tmp_path):
    batch, plain, weights = whole_update(tmp_path, label_smoothing_factor=EPSILON)
    expected = 0.0
    for name, values in plain.losses.items():
        if name in LABELS:
            labels = batch[f"{name}_labels"].tolist()
            rows = zip(plain.task_logits[name].tolist(), labels, strict=True)
            terms = [by_hand(x, [float(i == y) for i in range(len(x))]) for x, y in rows if y >= 0]
        elif name == "asr":
            terms = [value for value, row in zip(values.tolist(), batch["asr_labels"], strict=True) if max(row) >= 0]
        else:
            terms = values.tolist()
        expected += weights[name] * sum(terms) / len(terms)
    loss, _ = update_loss(tmp_path, N, 1, label_smoothing_factor=EPSILON)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_dev_is_neither_smoothed_nor_weighted(tmp_path):
    losses = []
    for flags in ({}, {"label_smoothing_factor": EPSILON, "class_weights": "balanced"}):
        made = noise_trainer(tmp_path, **flags)
        losses.append(made.evaluate(made.train_dataset)["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
