"""The encoders that a `SerMtlModel` can stand on: where each family of transformers has its parts, and how it differs.

This file travels to the Hub beside the method and needs nothing else of this project.
"""

from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import signature

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel
from transformers.audio_utils import mel_filter_bank
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

WINDOW, HOP = 400, 160
"""Samples at 16 kHz of a window of Whisper's spectrogram, and from one window to the next."""


@dataclass(frozen=True)
class Family:
    """Where an encoder family of transformers has its parts, and what sets it apart from wav2vec 2.0."""

    front_end: tuple[str, ...] = ("feature_extractor",)  # modules of the front end
    # Module that holds the layers. Empty for the encoder half of an encoder-decoder model, which holds them itself, has
    # no feature projection, ends in a norm, and names its attention self_attn.
    stack: str = "encoder"
    feed_forward: str = "feed_forward"  # module of a layer
    stacked_positions: bool = False  # several position convolutions, into which padding would leak
    position_bias: bool = False  # the first layer makes a bias for all; attention never calls its projections
    rotary: bool = False  # rotary positions
    log_mel: bool = False  # log-mel spectrograms before the convolutions, and a table of positions

    def convolutions(self, encoder: PreTrainedModel) -> list[tuple[int, int]]:
        """Kernel size, less the padding, and stride of each convolution of the front end."""
        modules = [module for name in self.front_end for module in getattr(encoder, name).modules()]
        sizes = [(c.kernel_size[0] - 2 * c.padding[0], c.stride[0]) for c in modules if isinstance(c, nn.Conv1d)]
        return [(HOP, HOP), *sizes] if self.log_mel else sizes

    def longest_input(self, encoder: PreTrainedModel) -> int | None:
        """Samples of the longest utterance that the encoder has positions for; None for any length."""
        return encoder.embed_positions.num_embeddings * 2 * HOP if self.log_mel else None


FAMILIES = {
    "wav2vec2": Family(),
    "hubert": Family(),
    "wavlm": Family(position_bias=True),
    "data2vec-audio": Family(stacked_positions=True),
    "unispeech": Family(),
    "unispeech-sat": Family(),
    "moonshine": Family(("conv1", "groupnorm", "conv2", "conv3"), stack="", feed_forward="mlp", rotary=True),
    "whisper": Family(("conv1", "conv2"), stack="", feed_forward="fc2", log_mel=True),
}
"""The supported encoders of raw waveforms, by `model_type`."""

_WHISPER_TAKES = signature(WhisperEncoderLayer.forward).parameters


class LinearWavLMAttention(WavLMAttention):
    """WavLM's attention, calling its projections: the stock one only reads their weights and would miss LoRA."""

    def torch_multi_head_self_attention(self, hidden: Tensor, mask: Tensor, bias: Tensor, *_) -> tuple[Tensor, Tensor]:
        """(batch, frames, d), (batch, frames) bool, (batch x heads, frames, frames) -> (batch, frames, d)."""
        batch, frames, dim = hidden.shape
        heads = (batch, frames, self.num_heads, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (projection(hidden).view(heads).transpose(1, 2) for projection in projections)
        bias = bias.view(batch, self.num_heads, frames, frames).to(query.dtype)
        bias = bias if mask is None else bias.masked_fill(~mask[:, None, None, :], float("-inf"))
        dropout, weights = self.dropout if self.training else 0.0, None
        if self.config._attn_implementation == "eager":
            weights = (query @ key.transpose(2, 3) * self.scaling + bias).softmax(dim=-1)
            context = F.dropout(weights, dropout) @ value
        else:
            context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(context.transpose(1, 2).reshape(batch, frames, dim)), weights


class RealGroupNorm(nn.GroupNorm):
    """A group norm over the real positions of each utterance alone, if they are told."""

    def forward(self, hidden: Tensor, real: Tensor | None = None) -> Tensor:
        """(batch, channels, positions), real positions (batch,) -> the same shape."""
        if real is None:
            return super().forward(hidden)
        groups = hidden.float().unflatten(1, (self.num_groups, -1))
        mask = (torch.arange(hidden.shape[2], device=real.device) < real.unsqueeze(1))[:, None, None]
        count = real[:, None, None, None] * groups.shape[2]
        centred = groups - (groups * mask).sum(dim=(2, 3), keepdim=True) / count
        variance = (centred * mask).square().sum(dim=(2, 3), keepdim=True) / count
        normal = (centred * (variance + self.eps).rsqrt()).flatten(1, 2).to(hidden.dtype)
        return normal * self.weight[:, None] + self.bias[:, None]


def speech_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """The randomly initialised encoder of `config`; of an encoder-decoder model, the encoder half alone."""
    if config.is_encoder_decoder:
        with torch.device("meta"):  # the decoder may be the larger half
            half = type(AutoModel.from_config(config).get_encoder())
        encoder = half._from_config(config)
    else:
        encoder = AutoModel.from_config(config)
    for module in encoder.modules():
        if isinstance(module, nn.GroupNorm):
            module.__class__ = RealGroupNorm
    if FAMILIES[config.model_type].log_mel:
        # Not a buffer: Whisper's checkpoints hold none.
        filters = mel_filter_bank(WINDOW // 2 + 1, config.num_mel_bins, 0.0, 8000.0, 16_000, "slaney", "slaney")
        encoder.mel_filters = torch.from_numpy(filters.T).float().unsqueeze(2)
    for layer in encoder.encoder.layers if FAMILIES[config.model_type].position_bias else ():
        old = layer.attention
        sizes = (old.embed_dim, old.num_heads, old.dropout, old.num_buckets, old.max_distance)
        layer.attention = LinearWavLMAttention(*sizes, hasattr(old, "rel_attn_embed"))
        layer.attention.config = encoder.config
    return encoder


def front_end(encoder: PreTrainedModel, family: Family, waveforms: Tensor, lengths: Tensor) -> Tensor:
    """Features: (batch, samples), real samples (batch,), enough for a frame each -> (batch, frames, channels)."""
    kernel, stride = family.convolutions(encoder)[0]
    real = (lengths - kernel) // stride + 1
    if family.log_mel:
        if encoder.mel_filters.device != waveforms.device:  # copied once, and not in every step
            encoder.mel_filters = encoder.mel_filters.to(waveforms.device)
        hidden = log_mel(waveforms, lengths, encoder.mel_filters).to(encoder.conv1.weight.dtype)
        mask = (torch.arange(hidden.shape[2], device=real.device) < real.unsqueeze(1)).unsqueeze(1)
        hidden = F.gelu(encoder.conv1(hidden * mask)) * mask  # zeros, as the convolutions pad
        return F.gelu(encoder.conv2(hidden)).transpose(1, 2)
    if family.rotary:
        hidden = encoder.groupnorm(torch.tanh(encoder.conv1(waveforms.unsqueeze(1))), real)
        return F.gelu(encoder.conv3(F.gelu(encoder.conv2(hidden)))).transpose(1, 2)
    first, *others = encoder.feature_extractor.conv_layers
    if not isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
        return encoder.feature_extractor(waveforms).transpose(1, 2)

    def first_layer(hidden: Tensor) -> Tensor:
        return first.activation(first.layer_norm(first.conv(hidden), real))

    checkpointed = getattr(first, "gradient_checkpointing", False) and first.training
    run = partial(first._gradient_checkpointing_func, first_layer) if checkpointed else first_layer
    hidden = run(waveforms.unsqueeze(1))
    for layer in others:
        hidden = layer(hidden)
    return hidden.transpose(1, 2)


def log_mel(waveforms: Tensor, lengths: Tensor, filters: Tensor) -> Tensor:
    """Whisper's spectrogram of each utterance alone, in float32, as its feature extractor makes it without padding.

    (batch, samples), real samples (batch,), (bins, frequencies, 1) -> (batch, bins, windows), one for each whole hop.
    Either end of an utterance is padded with its mirror image. Values more than 80 dB below the loudest one are raised
    to that floor.
    """
    device, last = waveforms.device, (lengths - 1).unsqueeze(1)
    windows = waveforms.shape[1] // HOP
    places = (torch.arange(windows * HOP + WINDOW - HOP, device=device) - WINDOW // 2).abs()
    reflected = waveforms.float().gather(1, (last - (last - places).abs()).clamp(min=0))
    autocast = torch.is_autocast_enabled(device.type)
    with torch.autocast(device.type, enabled=False) if autocast else nullcontext():
        spectrum = torch.fft.rfft(reflected.unfold(1, WINDOW, HOP) * torch.hann_window(WINDOW, device=device))
        power = (spectrum.real.square() + spectrum.imag.square()).transpose(1, 2)
        # A convolution, for the sake of models in 8 bits, where matrix products lose what is quiet.
        mel = F.conv1d(power, filters).clamp(min=1e-10).log10()
    real = torch.arange(windows, device=device) < (lengths // HOP).unsqueeze(1)
    loudest = mel.masked_fill(~real.unsqueeze(1), -torch.inf).amax(dim=(1, 2), keepdim=True)
    return (mel.maximum(loudest - 8) + 4) / 4


def add_positions(encoder: PreTrainedModel, family: Family, hidden: Tensor, frame_mask: Tensor) -> Tensor:
    """Input of the first layer, (batch, frames, d), with positions unless the layers make them.

    Raises:
        ValueError: more frames than an encoder has positions for.
    """
    if family.rotary:
        return hidden
    if family.log_mel:
        most = encoder.embed_positions.num_embeddings
        if not torch.compiler.is_compiling() and hidden.shape[1] > most:
            raise ValueError(f"{hidden.shape[1]} frames: this encoder has positions for {most} ({most / 50:g} seconds)")
        positions = encoder.embed_positions(torch.arange(hidden.shape[1], device=hidden.device))
        return F.dropout(hidden + positions, encoder.dropout, encoder.training)
    stack, real = encoder.encoder, frame_mask.unsqueeze(1)
    hidden = hidden.masked_fill(~real.transpose(1, 2), 0)
    if family.stacked_positions:
        positions = hidden.transpose(1, 2)
        for convolution in stack.pos_conv_embed.layers:
            positions = convolution(positions.masked_fill(~real, 0))
        hidden = hidden + positions.transpose(1, 2)
    else:
        hidden = hidden + stack.pos_conv_embed(hidden)
    pre_norm = getattr(encoder.config, "do_stable_layer_norm", False)
    return stack.dropout(hidden if pre_norm else stack.layer_norm(hidden))


def layer_arguments(encoder: PreTrainedModel, family: Family, hidden: Tensor, frame_mask: Tensor) -> dict:
    """Keyword arguments of every layer: its attention mask, and positions."""
    if family.position_bias:
        return {"attention_mask": frame_mask, "position_bias": None}
    mask = frame_mask[:, None, None, :].expand(-1, -1, hidden.shape[1], -1)
    if encoder.config._attn_implementation == "eager":
        mask = torch.zeros_like(mask, dtype=hidden.dtype).masked_fill(~mask, torch.finfo(hidden.dtype).min)
    elif encoder.config._attn_implementation != "sdpa":
        from transformers.masking_utils import create_bidirectional_mask  # transformers 4.50 has none

        mask = create_bidirectional_mask(encoder.config, hidden, frame_mask)
    if family.log_mel and "layer_head_mask" in _WHISPER_TAKES:  # transformers 4
        return {"attention_mask": mask, "layer_head_mask": None}
    if not family.rotary:
        return {"attention_mask": mask}
    ids, device = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0), hidden.device.type
    # In the type of the products: rotations in float32 would make queries and keys float32 as well.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    rotary = encoder.rotary_emb(hidden.to(dtype), position_ids=ids)
    return {"attention_mask": mask, "position_ids": ids, "position_embeddings": rotary}
