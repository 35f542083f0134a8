"""What is seen of an encoder's layers, and how they are checkpointed.

Task heads see their mean over time, an average of the layers, or their statistics; who asks for them, their attention.
This file travels to the Hub beside the method and needs nothing else of this project.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from inspect import signature
from threading import get_ident

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from transformers.utils import logging


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


class LayeredModel(PreTrainedModel):
    """What transformers asks of a model about its layers."""

    @contextmanager
    def _attentions(self, wanted: bool) -> Iterator[list[Tensor]]:
        """A list that each layer's attention weights are put into, if they are wanted; those of this thread alone."""
        if not wanted:
            yield []
            return
        if self.encoder.config._attn_implementation != "eager":
            logging.get_logger(__name__).warning_once(
                "output_attentions: are None, except with attn_implementation='eager'"
            )
        weights, thread = [], get_ident()

        def note(module: nn.Module, arguments: tuple, output: tuple) -> None:
            if get_ident() == thread:
                weights.append(output[1])

        modules = [layer.attention if self.family.stack else layer.self_attn for layer in self.transformer_layers()]
        hooks = [module.register_forward_hook(note) for module in modules]
        try:
            yield weights
        finally:
            for hook in hooks:
                hook.remove()

    def _set_gradient_checkpointing(self, *args, gradient_checkpointing_func: Callable = checkpoint, **kwargs):
        """As in transformers, but never re-entrant: that would stop gradients before adapters on a frozen encoder.

        And recompute without end in WavLM, whose layers pass on the position bias of the first one.

        Raises:
            TypeError: an argument is unknown to torch, which would hand it to the layers, and they ignore it.
        """
        given = getattr(gradient_checkpointing_func, "keywords", {})
        if unknown := given.keys() - {*signature(checkpoint).parameters, "preserve_rng_state"}:
            raise TypeError(f"{', '.join(sorted(unknown))}: unknown to torch.utils.checkpoint")
        plain = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(*args, gradient_checkpointing_func=plain, **kwargs)

    def enable_input_require_grads(self) -> None:
        """Nothing: transformers and PEFT ask for it because of re-entrant checkpoints."""

    def disable_input_require_grads(self) -> None:
        """Nothing, likewise."""
