"""Linear probe first, then finetuning: the emotion head starts as a logistic regression on what it sees.

A new head would at first send random gradients through the encoder (Kumar et al. 2022, LP-FT).
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modeling_ser_mtl import SerMtlModel, TaskHead, masked_mean
from ser_mtl.errors import UserError
from ser_mtl.evaluation.line import choose, classifier
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.line import pooled_parts

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer


def start_from_probe(trainer: "SerMtlTrainer") -> None:
    """Set the emotion head of a model that has not trained yet. C is chosen as for the line.

    Every process does so: they need the same head, and the probe is the same everywhere.

    Raises:
        UserError: there is nothing to learn it from, or the head is too narrow.
    """
    parts = pooled_parts(trainer, _frames)
    if parts is None:
        raise UserError("--probe_start: needs training utterances of two emotions; drop it")
    c, layer, _ = choose(parts["train"], parts.get("dev"))
    scaler, regression = classifier(parts["train"], layer, c)
    head = unwrap(trainer.accelerator.unwrap_model(trainer.model)).heads["emotion"]
    head = head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head
    weight, bias = _by_class(regression.coef_, regression.intercept_, regression.classes_, trainer.labels["emotion"])
    weight = weight / scaler.scale_
    set_head(head, weight, bias - weight @ scaler.mean_)


def _frames(model: SerMtlModel, features: Tensor, lengths: Tensor) -> Tensor:
    """The mean over real frames of what the heads see, (batch, 1, d)."""
    frames, mask, _ = model.encode(features, lengths)
    return masked_mean(frames, mask)[:, None]


def _by_class(
    weight: np.ndarray, bias: np.ndarray, known: np.ndarray, labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, (classes, d), and biases, (classes,), in the order of the labels; one absent from train is unlikely."""
    if len(known) == 2:  # scikit-learn keeps the difference alone
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full_weight = np.zeros((len(labels), weight.shape[1]))
    full_bias = np.full(len(labels), bias.min() - 1)
    places = [labels.index(name) for name in known]
    full_weight[places], full_bias[places] = weight, bias
    return full_weight, full_bias


@torch.no_grad()
def set_head(head: TaskHead, weight: np.ndarray, bias: np.ndarray) -> None:
    """Make a head's logits those of a linear classifier on the mean of what it sees.

    The first dimensions of the embedding x become the classes' logits, without bias; the others stay random, and the
    classifier does not look at them yet.

    Raises:
        UserError: the embedding has fewer dimensions than there are classes.
    """
    classes = len(weight)
    if head.projection.out_features < classes:
        raise UserError(f"--probe_start: needs --embedding_dim of at least {classes}, the number of emotions")
    head.projection.weight[:classes] = torch.from_numpy(weight)
    head.projection.bias[:classes] = 0
    head.classifier.weight.zero_()
    head.classifier.weight[:, :classes] = torch.eye(classes)
    head.classifier.bias.copy_(torch.from_numpy(bias))
