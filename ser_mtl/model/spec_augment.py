"""SpecAugment: in training, spans of frames and of channels are masked at the input of the Transformer."""

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel


class SpecAugment:
    """Mask random spans with the probabilities and lengths of the encoder's own config.

    Args:
        encoder: its config gives the spans; masked frames become its mask embedding, or zero if it has none.
    """

    def __init__(self, encoder: PreTrainedModel):
        self.encoder = encoder

    def __call__(self, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        """(batch, frames, d) and real frames (batch,) -> (batch, frames, d)."""
        config = self.encoder.config
        if not getattr(config, "apply_spec_augment", True):
            return hidden
        if time_probability := getattr(config, "mask_time_prob", 0.0):
            spans = (time_probability, config.mask_time_length, config.mask_time_min_masks)
            mask = span_mask(frame_lengths, hidden.shape[1], *spans)
            filler = getattr(self.encoder, "masked_spec_embed", None)
            filler = hidden.new_zeros(()) if filler is None else filler.to(hidden.dtype)
            hidden = torch.where(mask.unsqueeze(-1), filler, hidden)
        if channel_probability := getattr(config, "mask_feature_prob", 0.0):
            channels = torch.full_like(frame_lengths, hidden.shape[2])
            # WavLM's config has no smallest number of masks.
            spans = (channel_probability, config.mask_feature_length, getattr(config, "mask_feature_min_masks", 0))
            hidden = hidden.masked_fill(span_mask(channels, hidden.shape[2], *spans).unsqueeze(1), 0)
        return hidden


def span_mask(lengths: Tensor, size: int, probability: float, span: int, min_spans: int) -> Tensor:
    """Random spans of `span` positions among each row's first `lengths` positions: (batch,) -> (batch, size) bool.

    A row of T positions gets min(max(floor(probability * T / span + u), min_spans), floor(T / span)) spans, with u
    uniform in [0, 1); they start at different positions and may overlap. So they cover about `probability` of a long
    row, and more of a row with probability * T / span < min_spans. As in transformers' wav2vec2, except that it runs on
    the device, has a u for each row, and gives no span to a row that is too short for one.
    """
    positions = torch.arange(size, device=lengths.device)
    allowed = positions <= (lengths - span).unsqueeze(1)
    wanted = (probability * lengths / span + torch.rand(lengths.shape, device=lengths.device)).floor()
    wanted = wanted.clamp(min=min_spans).minimum(lengths // span)
    scores = torch.rand(allowed.shape, device=lengths.device).masked_fill(~allowed, -1)
    rank = scores.argsort(dim=1, descending=True).argsort(dim=1)
    starts = (allowed & (rank < wanted.unsqueeze(1))).cumsum(dim=1)
    return starts > F.pad(starts, (span, 0))[:, :size]
