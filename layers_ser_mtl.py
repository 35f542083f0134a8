"""What task heads see of an encoder's layers: their mean over time, an average of the layers, or their statistics.

This file travels to the Hub beside the method and needs nothing else of this project.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def masked_mean(frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean over real frames: (batch, frames, d), (batch, frames) bool -> (batch, d). Summed in float32."""
    mask = frame_mask.unsqueeze(-1)
    total = frames.masked_fill(~mask, 0).sum(dim=1, dtype=torch.float32)
    return (total / mask.sum(dim=1).clamp(min=1)).to(frames.dtype)


class LayerWeights(nn.Module):
    """A learned average of the layers' outputs, each first normalised to mean 0 and variance 1 in every frame."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """(batch, frames, d) of each layer -> (batch, frames, d). The weights are a softmax, equal at the start."""
        weights = self.weights.softmax(dim=0)
        return sum(w * F.layer_norm(out, out.shape[-1:]) for w, out in zip(weights, outputs, strict=True))


def layer_statistics(outputs: tuple[Tensor, ...], frame_mask: Tensor) -> Tensor:
    """Mean and standard deviation over real frames of each layer, normalised as in `LayerWeights`, side by side.

    (batch, frames, d) of each layer -> (batch, 1, 2 x layers x d): what heads see as a single frame.
    """
    normed = [F.layer_norm(out.float(), out.shape[-1:]) for out in outputs]
    means = [masked_mean(out, frame_mask) for out in normed]
    squares = [masked_mean(out.square(), frame_mask) for out in normed]
    deviations = [(m2 - m.square()).clamp(min=1e-6).sqrt() for m, m2 in zip(means, squares, strict=True)]
    return torch.cat(means + deviations, dim=-1).unsqueeze(1).to(outputs[0].dtype)
