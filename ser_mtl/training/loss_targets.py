"""The targets of a training update: label smoothing and class weights, both exact over its batches and processes."""

from collections import Counter
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor

from ser_mtl.tasks import TASKS


def balanced_weights(train: Dataset, labels: dict[str, list[str]]) -> dict[str, dict[str, float]]:
    """The weight n / (K n_c) of each class of each task, as scikit-learn's "balanced".

    Of n annotated utterances in `train`, n_c have the class c; K classes occur. A class that does not occur weighs 1.
    """
    weights = {}
    for task, classes in labels.items():
        counts = Counter(train[TASKS[task].column])
        there = [counts[label] for label in classes if counts[label]]
        weights[task] = {c: sum(there) / (len(there) * counts[c]) if counts[c] else 1.0 for c in classes}
    return weights


class LossTargets:
    """Targets q of the classification tasks -> soft targets of their cross-entropy, with smoothing and class weights.

    With K classes, smoothing turns q into (1 - epsilon) q + epsilon / K (Szegedy et al. 2016, eq. 7). With class
    weights w, the loss of an update is

        sum over utterances and classes of (w x smoothed q x -log p) / sum over utterances and classes of (w x q),

    which is torch's `CrossEntropyLoss(weight=w, label_smoothing=epsilon)` on all its utterances at once. The Trainer
    divides by the number of annotated utterances, so the targets are scaled by that number over the sum of weights.

    Args:
        labels: the classes of each task.
        epsilon: the share that is spread over all classes.
        weights: of the classes of each task; empty for none.
        device: of the batches.
    """

    def __init__(
        self,
        labels: dict[str, list[str]],
        epsilon: float,
        weights: dict[str, dict[str, float]],
        device: torch.device | None = None,
    ):
        self.labels, self.epsilon = labels, epsilon
        self.weights = {task: torch.tensor([weights[task][c] for c in labels[task]], device=device) for task in weights}

    def __bool__(self) -> bool:
        return bool(self.epsilon or self.weights)

    def weight_sums(self, batches: Iterable[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The sum of the weights of the annotated utterances of these batches, by task."""
        sums = {task: weights.new_zeros(()) for task, weights in self.weights.items()}
        for batch in batches:
            for task, weights in self.weights.items():
                shares, missing = _shares(batch[f"{task}_labels"], len(weights))
                sums[task] = sums[task] + (shares * weights).masked_fill(missing[:, None], 0).sum()
        return sums

    def of_batch(self, batch: dict[str, Tensor], scales: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with the targets of its loss. An utterance that is not annotated stays so.

        Args:
            batch: `<task>_labels` as `modeling_ser_mtl.classification_loss` takes them.
            scales: the number of annotated utterances of the update over the sum of their weights, by task.
        """
        targets = {}
        for task, classes in self.labels.items():
            shares, missing = _shares(batch[f"{task}_labels"], len(classes))
            shares = (1 - self.epsilon) * shares + self.epsilon / len(classes)
            if task in self.weights:
                shares = shares * self.weights[task] * scales[task]
            targets[f"{task}_labels"] = shares.masked_fill(missing[:, None], -100.0)
        return {**batch, **targets}


def _shares(labels: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """(batch,) classes or (batch, classes) shares, -100 for "not annotated" -> shares, and which are missing."""
    if labels.is_floating_point():
        return labels.float(), (labels < 0).all(dim=-1)
    return F.one_hot(labels.clamp(min=0), classes).float(), labels < 0
