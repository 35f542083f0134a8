"""Attention in bfloat16 on a CPU as plain products: torch's fused kernel is slower there than in float32.

Delete this when the fused kernel for bfloat16 (pytorch/pytorch#104863) uses AVX-512 BF16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from modeling_ser_mtl import SerMtlModel

PLAIN_ATTENTION = "ser_mtl_plain"
LONGEST = 400
"""The most frames with which it is faster: four times as fast with 150. Longer utterances would also need memory."""


def choose_attention(model: SerMtlModel, frames: int) -> None:
    """Switch the encoder's attention to plain products if that is faster for this number of frames, else back.

    That is under autocast to bfloat16 on a CPU. An attention that the user chose is left as it is, and so is WavLM's.
    """
    used = model.encoder.config._attn_implementation
    if used not in ("sdpa", PLAIN_ATTENTION) or model.device.type != "cpu":
        return
    wanted = PLAIN_ATTENTION if torch.is_autocast_enabled("cpu") and frames <= LONGEST else "sdpa"
    if used != wanted:
        model.encoder.set_attn_implementation(wanted)


def plain_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float,
    dropout: float = 0.0,
    **_,
) -> tuple[Tensor, None]:
    """Attention as plain products, in the type of its inputs, with an additive mask.

    (batch, heads, frames, head_dim) each -> (batch, frames, heads, head_dim), and no weights.

    transformers' own ("eager") computes Moonshine's softmax in float32. The largest tensors of a step are then written
    and read two more times in vain: torch sums a softmax in float32 anyway.
    """
    weights = query @ key.transpose(2, 3) * scaling + attention_mask
    weights = F.dropout(weights.softmax(dim=-1), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


def plain_mask(attention_mask: Tensor, **_) -> Tensor:
    """Mask of real frames, (batch, frames) bool -> the additive mask, one row for all frames."""
    added = torch.zeros_like(attention_mask, dtype=torch.bfloat16)
    return added.masked_fill_(~attention_mask, torch.finfo(torch.bfloat16).min)[:, None, None, :]


AttentionInterface.register(PLAIN_ATTENTION, plain_attention)
AttentionMaskInterface.register(PLAIN_ATTENTION, plain_mask)
