"""Emotion heads of earlier systems, in place of a model's own, and the Trainer that puts them there."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import set_seed

from modeling_ser_mtl import SerMtlModel, SerMtlOutput, masked_mean
from ser_mtl.files import write_json, write_text
from ser_mtl.training.trainer import SerMtlTrainer


class EmotionHead(nn.Module):
    """A head with the inputs and outputs of a model's own emotion head.

    Its `forward` is (batch, frames, d) and (batch, frames) bool -> embedding (batch, n) and logits (batch, classes).

    Args:
        model: that the head will be part of; some heads use more of it than frames.
        classes: the number of emotions.
        normalise: whether the encoder expects waveforms with mean 0 and variance 1.
    """

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__()

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Prepare a batch for the model. Returns its inputs."""
        return inputs

    def loss(self, usual: Tensor, labels: Tensor) -> Tensor:
        """The loss of each utterance, (batch,), from that of the logits, and the labels of the batch."""
        return usual

    def record(self) -> dict | None:
        """The content of `emotion_head.json`, from the predictions since the last call; None for no such file."""
        return None


class MeanHead(EmotionHead):
    """Mean over real frames, then one linear layer (Cai et al. 2021)."""

    rectified = False  # a ReLU on every frame before the mean

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__(model, classes, normalise)
        self.dropout = nn.Dropout(model.config.head_dropout)
        self.linear = nn.Linear(model.config.encoder_config.hidden_size, classes)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """As `EmotionHead`; the mean is the embedding."""
        mean = masked_mean(F.relu(frames) if self.rectified else frames, frame_mask)
        return mean, self.linear(self.dropout(mean))


class RectifiedMeanHead(MeanHead):
    """Likewise, with a ReLU on every frame before the mean (Chen and Rudnicky 2023, V-FT)."""

    rectified = True


class FramesHead(RectifiedMeanHead):
    """Likewise, and emotion is learned on every frame as well (Chen and Rudnicky 2023, first step of P-TAPT)."""

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__(model, classes, normalise)
        dim = model.config.encoder_config.hidden_size
        self.of_frame = nn.Sequential(nn.Linear(dim, 128), nn.Tanh(), nn.Linear(128, classes))
        self._log_probabilities: Tensor | None = None

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Keep the mean of the frames' log-probabilities for the loss."""
        self._log_probabilities = masked_mean(self.of_frame(frames).float().log_softmax(dim=-1), frame_mask)
        return super().forward(frames, frame_mask)

    def loss(self, usual: Tensor, labels: Tensor) -> Tensor:
        """The usual loss, plus the mean over frames of the cross-entropy with the utterance's label."""
        return usual + mean_cross_entropy(self._log_probabilities, labels)


def mean_cross_entropy(log_probabilities: Tensor, labels: Tensor) -> Tensor:
    """The mean of the cross-entropies of the parts of an utterance, from the mean of their log-probabilities.

    (batch, classes) and labels as `modeling_ser_mtl.classification_loss` takes them -> (batch,), 0 where not annotated.
    """
    if not labels.is_floating_point():
        return F.nll_loss(log_probabilities, labels, ignore_index=-100, reduction="none")
    return -(labels.clamp(min=0) * log_probabilities).sum(dim=-1)


class HeadTrainer(SerMtlTrainer):
    """A `SerMtlTrainer` whose model has another emotion head.

    The model can only be used within its run: `ser_mtl.load` does not know the head, and the run cannot be published.

    Args:
        name: of the head in `HEADS`.
        head: its class.
        *args: as for `SerMtlTrainer`.
        **kwargs: likewise.
    """

    def __init__(self, name: str, head: type[EmotionHead], *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.research = f"emotion head {name}"
        normalise = self.start.processor.feature_extractor.do_normalize
        set_seed(self.args.seed)
        self.head = head(self.model, len(self.labels["emotion"]), normalise).to(self.args.device)
        self.model.heads["emotion"] = self.head
        self.model.config.research = self.research  # `check_saved` refuses it

    def _forward(self, model: nn.Module, inputs: dict[str, Tensor]) -> SerMtlOutput:
        with torch.no_grad():
            prepared = self.head.prepare(inputs)
        output = super()._forward(model, prepared)
        if output.losses and "emotion" in output.losses:
            output.losses["emotion"] = self.head.loss(output.losses["emotion"], inputs["emotion_labels"])
        return output

    def finish(self, leaks: dict | None = None) -> dict:
        """As in `SerMtlTrainer`, with a card that names the earlier system, and with `EmotionHead.record` in a file."""
        self.head.record()  # forget predictions before the test
        results = super().finish(leaks)
        if self.is_world_process_zero():
            folder = Path(self.args.output_dir)
            if record := self.head.record():
                write_json(folder / "emotion_head.json", record)
            write_text(folder / "README.md", CARD.format(what=self.research))
        return results


CARD = """\
# A run of an earlier system

This model has parts of an earlier system ({what}; see docs/earlier_systems.md) that `ser_mtl.load` does not know. It is
here for its results and predictions, and cannot be published.
"""
