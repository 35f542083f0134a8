"""Linear probing before finetuning (Kumar et al. 2022, LP-FT): the emotion head starts as a logistic regression.

A random head would at first send random gradients through the encoder.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from modeling_ser_mtl import SerMtlModel, TaskHead, masked_mean
from ser_mtl.corpora.augmentation import Augmented
from ser_mtl.errors import UserError
from ser_mtl.evaluation.line import Pooled, classifier
from ser_mtl.training.adapters import unwrap
from ser_mtl.training.line import pooled_layers

if TYPE_CHECKING:
    from ser_mtl.training.trainer import SerMtlTrainer

STRENGTH = 0.01
"""C of the logistic regression, scikit-learn's inverse strength of regularisation."""
COPIES = 3
"""Augmented copies of each utterance, as in the first epochs of training."""
MOST = 4000
"""The most utterances and copies that the probe is fitted on."""


def start_from_probe(trainer: "SerMtlTrainer") -> None:
    """Set the emotion head of an untrained model to the probe; without two emotions in train it stays random.

    Each process fits the probe, with the same result in all.

    Raises:
        UserError: the head is too narrow.
    """
    train = _training_set(trainer)
    if len(set(train.emotions)) < 2:
        return
    scaler, regression = classifier(train, 0, STRENGTH)
    head = unwrap(trainer.accelerator.unwrap_model(trainer.model)).heads["emotion"]
    head = head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head
    weight, bias = _by_class(regression.coef_, regression.intercept_, regression.classes_, trainer.labels["emotion"])
    weight = weight / scaler.scale_
    set_head(head, weight, bias - weight @ scaler.mean_)


def _training_set(trainer: "SerMtlTrainer") -> Pooled:
    """The heads' inputs for the training utterances with an emotion and, with augmentation, for changed copies."""
    rows = trainer.rows_of_parts["train"]
    emotions = np.array(trainer.corpus["emotion"][:], dtype=object)[np.asarray(rows["row"])]
    known = np.flatnonzero(emotions != None)  # noqa: E711 (of each element)
    known = np.sort(np.random.default_rng(0).permutation(known)[:MOST])
    rows, emotions = rows.select(known), emotions[known].astype(str)
    model = unwrap(trainer.accelerator.unwrap_model(trainer.model))
    precision = trainer.accelerator.autocast

    def seen(*inputs) -> Tensor:
        with precision():
            return seen_by_heads(*inputs)

    settings = trainer.data_collator, trainer.args.per_device_eval_batch_size, seen
    pooled = [pooled_layers(model, rows, *settings)] if len(known) else []
    if isinstance(training := trainer.train_dataset, Augmented):
        changed = Augmented(rows, training.transforms, training.seed, training.fits)
        for epoch in range(min(COPIES, MOST // max(1, len(known)) - 1)):
            changed.begin_epoch(epoch)
            pooled.append(pooled_layers(model, changed, *settings))
    emotions = np.tile(emotions, len(pooled))
    return Pooled(np.concatenate(pooled or [np.zeros((0, 1, 1))]), emotions, emotions)


def seen_by_heads(model: SerMtlModel, features: Tensor, lengths: Tensor) -> Tensor:
    """The mean over real frames of the heads' input, (batch, 1, d)."""
    return masked_mean(*model.seen_by_heads(*model.encode(features, lengths)))[:, None]


def _by_class(
    weight: np.ndarray, bias: np.ndarray, known: np.ndarray, labels: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Weights, (classes, d), and biases, (classes,), in the order of the labels; one absent from train is unlikely."""
    if len(known) == 2:  # scikit-learn keeps only the difference
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    full_weight = np.zeros((len(labels), weight.shape[1]))
    full_bias = np.full(len(labels), bias.min() - 1)
    places = [labels.index(name) for name in known]
    full_weight[places], full_bias[places] = weight, bias
    return full_weight, full_bias


@torch.no_grad()
def set_head(head: TaskHead, weight: np.ndarray, bias: np.ndarray) -> None:
    """Make a head's logits those of a linear classifier on its mean input.

    The first dimensions of the embedding x become the logits of the classes, without bias. The others stay random, and
    the classifier ignores them at first.

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
