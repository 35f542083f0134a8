"""Label smoothing against a computation by hand: every classification task, hard and soft labels, training alone."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers.encoders import LABELS
from helpers.trainers import N, noise_trainer

from modeling_ser_mtl import classification_loss, loss_weights
from ser_mtl.training.smoothing import smoothed

EPSILON = 0.2


def by_hand(logits: list[float], target: list[float]) -> float:
    """-sum of q' log p, with q' = (1 - epsilon) q + epsilon / K."""
    total = sum(math.exp(x) for x in logits)
    shares = [(1 - EPSILON) * q + EPSILON / len(logits) for q in target]
    return -sum(q * (x - math.log(total)) for q, x in zip(shares, logits, strict=True))


def test_hard_soft_and_missing_labels_are_smoothed_as_by_hand():
    logits = torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0], [5.0, 1.0, 1.0]])
    hard, soft = [1, -100, 0], [[0.5, 0.25, 0.25], [-100.0] * 3, [1.0, 0.0, 0.0]]
    expected_hard = [by_hand(logits[0].tolist(), [0, 1, 0]), 0.0, by_hand(logits[2].tolist(), [1, 0, 0])]
    expected_soft = [by_hand(logits[0].tolist(), soft[0]), 0.0, by_hand(logits[2].tolist(), soft[2])]
    for labels, expected in ((torch.tensor(hard), expected_hard), (torch.tensor(soft), expected_soft)):
        inputs = smoothed({"emotion_labels": labels}, {"emotion": list("abc")}, EPSILON)
        loss = classification_loss(logits, inputs["emotion_labels"])
        torch.testing.assert_close(loss, torch.tensor(expected))
        present = labels if labels.dim() == 1 else labels.clamp(min=0)
        torch_s = F.cross_entropy(logits, present, label_smoothing=EPSILON, reduction="none")
        torch.testing.assert_close(loss[[0, 2]], torch_s[[0, 2]])


def test_none_is_the_very_same_batch():
    inputs = {"emotion_labels": torch.tensor([0])}
    assert smoothed(inputs, LABELS, 0.0) is inputs


def test_each_task_is_smoothed_over_its_own_classes_and_no_transcript(tmp_path):
    made = noise_trainer(tmp_path, per_device_train_batch_size=N, label_smoothing_factor=EPSILON)
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    with torch.no_grad():
        plain = made.model.train()(**{name: values for name, values in batch.items() if name != "row"})
    weights, expected = loss_weights(made.model.config), 0.0
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
    made.create_optimizer_and_scheduler(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), 1, made.args.device)
    made.current_gradient_accumulation_steps = 1
    assert made.training_step(made.model, batches[0], counts).item() == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_dev_is_not_smoothed(tmp_path):
    losses = []
    for epsilon in (0.0, EPSILON):
        made = noise_trainer(tmp_path, label_smoothing_factor=epsilon)
        losses.append(made.evaluate(made.train_dataset)["eval_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
