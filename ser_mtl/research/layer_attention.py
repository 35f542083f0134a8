"""Attention over the layers of a frozen encoder, after Ioannides et al. 2023; most sizes are ours."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_ser_mtl import SerMtlModel, masked_mean
from ser_mtl.research.heads import EmotionHead

MOST_HEADS = 8


class AllLayers(nn.Module):
    """Every layer's output side by side, in place of the learned average of the layers."""

    def forward(self, states: list[Tensor]) -> Tensor:
        """(batch, frames, d) of the first layer's input, left out, and of each layer -> (batch, frames, layers, d).

        Each is normalised to mean 0 and variance 1 in every frame, as for the learned average.
        """
        return torch.stack([F.layer_norm(state, state.shape[-1:]) for state in states[1:]], dim=2)


class LayerAttention(EmotionHead):
    """The mean over time of every layer; self-attention between them; mean over layers, FC layer (x), classifier.

    Needs a model with `layer_weights`, which it replaces by `AllLayers`.
    """

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__(model, classes, normalise)
        dim = model.config.encoder_config.hidden_size
        model.layer_weights = AllLayers()
        heads = next(n for n in range(MOST_HEADS, 0, -1) if dim % n == 0)
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.projection = nn.Linear(dim, model.config.embedding_dim)
        self.dropout = nn.Dropout(model.config.head_dropout)
        self.classifier = nn.Linear(model.config.embedding_dim, classes)
        self._received: list[Tensor] = []

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, layers, d) and (batch, frames) bool -> embedding (batch, n), logits (batch, classes)."""
        layers = masked_mean(frames.flatten(2), frame_mask).unflatten(1, frames.shape[2:])
        attended, weights = self.attention(layers, layers, layers)  # weights: mean over heads, (batch, to, from)
        if not self.training:
            self._received += weights.mean(dim=1).float().cpu()
        embedding = self.projection(attended.mean(dim=1))
        return embedding, self.classifier(self.dropout(embedding))

    def record(self) -> dict | None:
        """The share of attention that each layer receives, mean over queries, heads and test utterances."""
        received, self._received = self._received, []
        if not received:
            return None
        return {"layers": [round(share, 4) for share in torch.stack(received).mean(dim=0).tolist()]}
