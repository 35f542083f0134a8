"""The convolutional front end, faster on a CPU, with the same output as `SerMtlModel.extract_features`."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from modeling_ser_mtl import SerMtlModel

TILE, TILE_STEP = 150, 10
"""Frames that a frozen front end computes at a time; the last tile is rounded up to a multiple of the step."""


def fast_inputs(model: SerMtlModel, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Replace waveforms in the inputs of a model by their features, if that is faster.

    Args:
        model: not wrapped.
        inputs: keyword arguments of its forward pass.

    Returns:
        The inputs with `features` and `frame_lengths` in place of `input_values` and `attention_mask` on a CPU;
        unchanged elsewhere, and if there are features already.
    """
    if "input_values" not in inputs or inputs["input_values"].device.type != "cpu":
        return inputs
    others = {name: value for name, value in inputs.items() if name not in ("input_values", "attention_mask")}
    features, lengths = extract_features(model, inputs["input_values"], inputs.get("attention_mask"))
    return others | {"features": features, "frame_lengths": lengths}


def extract_features(model: SerMtlModel, waveforms: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """As `SerMtlModel.extract_features`; faster on a CPU.

    There, a frozen front end runs in tiles, and a trained one as matrix products. One that normalises over time gets
    each utterance alone. Moonshine's would gain nothing.
    """
    if waveforms.device.type != "cpu" or model.family.front_end != ("feature_extractor",):
        return model.extract_features(waveforms, mask)
    sizes = torch.full(waveforms.shape[:1], waveforms.shape[1]) if mask is None else mask.sum(dim=1).long()
    trained = torch.is_grad_enabled() and any(p.requires_grad for p in model.front_end_parameters())
    over_time = any(isinstance(module, nn.GroupNorm) for module in model.front_end_modules())
    lengths = model.frame_lengths(sizes)
    rows = [waveform[:size] for waveform, size in zip(waveforms, sizes.tolist(), strict=True)]
    with torch.set_grad_enabled(trained):
        if over_time:
            frames = [convolve(model, row[None])[0] for row in rows]
        elif trained:
            return convolve(model, waveforms), lengths
        else:
            frames = convolve_in_tiles(model, rows)
        return nn.utils.rnn.pad_sequence(frames, batch_first=True), lengths


def receptive_field(model: SerMtlModel) -> tuple[int, int]:
    """Samples of a frame's receptive field, and from one frame to the next."""
    field, step = 1, 1
    for kernel, stride in model.convolutions():
        field, step = field + (kernel - 1) * step, step * stride
    return field, step


# ---------------------------------------------------------------------------------------------------- matrix products


def convolve(model: SerMtlModel, waveforms: Tensor) -> Tensor:
    """The front end as matrix products: (batch, samples) -> (batch, frames, channels)."""
    field, _ = receptive_field(model)
    hidden = F.pad(waveforms, (0, max(0, field - waveforms.shape[1]))).unsqueeze(2)
    for layer in model.encoder.feature_extractor.conv_layers:
        hidden = strided_convolution(hidden, layer.conv)
        norm = getattr(layer, "layer_norm", nn.Identity())
        over_time = isinstance(norm, nn.GroupNorm)
        hidden = norm(hidden.transpose(1, 2)).transpose(1, 2) if over_time else norm(hidden)
        hidden = layer.activation(hidden)
    return hidden


def strided_convolution(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """Same as `conv`, with channels last: (batch, positions, channels) -> (batch, new positions, new channels).

    As a matrix product. The layer norm and the GELU that follow then work on contiguous channels, which on a CPU takes
    half the time of convolving with channels first, or less.
    """
    windows = hidden.unfold(1, conv.kernel_size[0], conv.stride[0]).transpose(2, 3).flatten(2)
    return F.linear(windows, conv.weight.permute(0, 2, 1).flatten(1), conv.bias)


# -------------------------------------------------------------------------------------------------------------- tiles


def convolve_in_tiles(model: SerMtlModel, utterances: list[Tensor]) -> list[Tensor]:
    """Same as `convolve` of each utterance, (samples,) -> (frames, channels), if no frame needs another.

    oneDNN compiles a kernel for each new shape, also of a GELU. So the utterances are concatenated and cut into tiles
    of one length; frames that span two utterances are discarded. Delete this when oneDNN handles new shapes without
    (uxlfoundation/oneDNN#1099).
    """
    field, step = receptive_field(model)
    lengths = [max(len(utterance), field) for utterance in utterances]
    rooms = [-(-length // step) for length in lengths]  # in frames, with the discarded ones
    pairs = zip(utterances, rooms, strict=True)
    samples = torch.cat([F.pad(utterance, (0, room * step - len(utterance))) for utterance, room in pairs])
    layers = [tile_layer(layer) for layer in model.encoder.feature_extractor.conv_layers]
    tiles = []
    for first in range(0, sum(rooms), TILE):
        count = min(TILE, -(-(sum(rooms) - first) // TILE_STEP) * TILE_STEP)
        size = (count - 1) * step + field
        part = samples[first * step : first * step + size]
        # With a single channel, only the strides tell the convolution that channels are last.
        hidden = F.pad(part, (0, size - len(part))).view(1, 1, -1, 1).permute(0, 3, 1, 2)
        for run in layers:
            hidden = run(hidden)
        tiles.append(hidden[0, :, 0].T)
    frames = torch.cat(tiles)[: sum(rooms)].split(rooms)
    return [made[: (length - field) // step + 1] for made, length in zip(frames, lengths, strict=True)]


def tile_layer(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Same as a layer of a front end (convolution, layer norm, activation), prepared for many tiles.

    (1, channels, 1, positions) -> (1, new channels, 1, new positions), channels last in memory. With weights that have
    mean 0 over the new channels, the convolution's output has mean 0 too: the layer norm then reduces to a division by
    the root mean square, which takes half as long.
    """
    conv, norm = layer.conv, layer.layer_norm
    weight = (conv.weight - conv.weight.mean(dim=0)).unsqueeze(2).contiguous(memory_format=torch.channels_last)
    bias = None if conv.bias is None else conv.bias - conv.bias.mean()

    def run(hidden: Tensor) -> Tensor:
        hidden = F.conv2d(hidden, weight, bias, stride=(1, conv.stride[0])).permute(0, 2, 3, 1)
        variance = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True).square() / conv.out_channels
        hidden *= (variance + norm.eps).rsqrt()
        torch.addcmul(norm.bias, hidden, norm.weight, out=hidden)
        return layer.activation(hidden).permute(0, 3, 1, 2)

    return run
