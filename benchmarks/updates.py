"""The cost of an update on a GPU, computed without one: operations and bytes, counted on tensors without data.

Even then torch's autocast and backward pass require a real GPU. So the tensors are on the CPU, `GpuAutocast` casts
them as autocast would, and attention is the kernel for GPUs.
"""

import math
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.weak import WeakIdKeyDictionary
from transformers import PreTrainedConfig

from benchmarks.measuring import resident_bytes
from benchmarks.workload import CHARACTERS_A_SECOND, EMOTIONS
from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.training.adapters import attach_adapters, freeze_for_full_finetuning, unwrap

FRAMES_A_SECOND = 50
LABELS = {"emotion": [*EMOTIONS], "gender": ["female", "male"], "style": ["improvised", "scripted"]}
METHODS: dict[int, dict] = {
    1: {"tasks": ["emotion", "asr"]},
    2: {"tasks": ["emotion", "gender", "style"], "bottleneck_dim": 64, "fusion": "concat", "scl": "cos"},
}
"""The proposed system: settings of each stage that differ from the defaults of the config."""
CHARACTERS = 32


@dataclass(frozen=True)
class Update:
    """One update: `steps` batches of `batch` utterances of `frames` frames.

    Attributes:
        stage: 1 or 2.
        batch: utterances per batch.
        frames: frames per utterance.
        dtype: of the products; float32 for no autocast.
        checkpointing: whether activations are recomputed in the backward pass.
        steps: batches per update; more than two take no more memory than two.
    """

    stage: int
    batch: int
    frames: int
    dtype: torch.dtype = torch.bfloat16
    checkpointing: bool = False
    steps: int = 1


@dataclass(frozen=True)
class Cost:
    """The cost of an update.

    Attributes:
        flops: operations of its forward and backward passes.
        weights: bytes of parameters, frozen or not.
        trained: bytes of the gradients and of what AdamW keeps.
        saved: bytes that autograd keeps of a batch for the backward pass, without parameters.
        peak: largest number of bytes of all tensors at one time, without the libraries' own memory.
    """

    flops: int
    weights: int
    trained: int
    saved: int
    peak: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and their peak."""

    def __init__(self):
        super().__init__()
        self.bytes = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        """Run an operation and count the memory of its outputs."""
        out = function(*args, **kwargs or {})
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self.note(tensor)
        return out

    def note(self, tensor: Tensor) -> None:
        """Count the memory of a tensor once, until it is freed."""
        memory = tensor.untyped_storage()
        if memory not in self._known:
            size = self._known[memory] = memory.nbytes()
            self.bytes += size
            self.peak = max(self.peak, self.bytes)
            weakref.finalize(memory, self._forget, size)

    def _forget(self, size: int) -> None:
        self.bytes -= size


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd saves in forward passes, each storage once, without parameters."""

    def __init__(self, model: nn.Module):
        self.bytes, self._known = 0, {id(p.untyped_storage()): p for p in model.parameters()}
        super().__init__(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        memory = tensor.untyped_storage()
        if id(memory) not in self._known:
            self._known[id(memory)] = tensor  # kept alive: a freed id may be given to other memory
            self.bytes += memory.nbytes()
        return tensor

    def forget(self) -> None:
        """Release the saved tensors."""
        self._known.clear()


class _Ctc(torch.autograd.Function):
    """Takes the memory of torch's CTC, a table of (batch, frames, 2 x characters + 1), without reading values."""

    @staticmethod
    def forward(ctx, log_probabilities: Tensor, characters: int) -> Tensor:
        frames, batch, _ = log_probabilities.shape
        ctx.save_for_backward(log_probabilities, log_probabilities.new_empty(batch, frames, 2 * characters + 1))
        return log_probabilities.sum(dim=(0, 2))

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        log_probabilities, table = ctx.saved_tensors
        torch.empty_like(table)
        return torch.empty_like(log_probabilities), None


def ctc_without_data(log_probabilities: Tensor, targets: Tensor, *_, **__) -> Tensor:
    """Stand in for torch's CTC, which reads its lengths as numbers: (frames, batch, characters) -> (batch,)."""
    return _Ctc.apply(log_probabilities, targets.shape[1])


def model_of(encoder: PreTrainedConfig, stage: int) -> nn.Module:
    """The untrained model of a stage on an encoder, its frozen weights frozen."""
    config = SerMtlConfig(encoder_config=encoder, labels=LABELS, vocab_size=CHARACTERS, **METHODS[stage])
    with torch.device("meta"):
        model = SerMtlModel(config).to("meta")  # transformers makes the mask embedding on the CPU, whatever the device
        if stage == 2:
            return attach_adapters(model, "base", 64, 64)
    freeze_for_full_finetuning(model, train_front_end=False)
    return model


def with_empty_weights(model: nn.Module) -> nn.Module:
    """The model with uninitialised weights on the current device."""
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(torch.empty(weight.shape), weight.requires_grad))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, torch.empty(buffer.shape, dtype=buffer.dtype))
    return model


def batch_of(update: Update, channels: int) -> dict[str, Tensor]:
    """A batch as the Trainer's collator makes it: features of the frozen front end, and labels."""
    batch = {
        "features": torch.randn(update.batch, update.frames, channels),
        "frame_lengths": torch.full((update.batch,), update.frames),
    }
    batch |= {f"{task}_labels": torch.zeros(update.batch, dtype=torch.long) for task in METHODS[update.stage]["tasks"]}
    if "asr_labels" in batch:
        characters = max(1, CHARACTERS_A_SECOND * update.frames // FRAMES_A_SECOND)
        batch["asr_labels"] = torch.ones(update.batch, characters, dtype=torch.long)
    return batch


class GpuAutocast(TorchFunctionMode):
    """Casts as autocast on a GPU does: products in half precision, norms and losses in float32; attention fused."""

    PRODUCTS = (F.linear, F.conv1d, torch.conv1d, torch.matmul, Tensor.matmul, Tensor.__matmul__, torch.bmm)
    EXACT = (F.layer_norm, F.softmax, F.log_softmax, Tensor.softmax, Tensor.log_softmax, F.cross_entropy,
             F.cosine_similarity, Tensor.sum, torch.sum)  # fmt: skip

    def __init__(self, dtype: torch.dtype):
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, function, types, args=(), kwargs=None):
        """Run a torch function on inputs cast as autocast would cast them."""
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return efficient_attention(*(self.lower(x) for x in args[:3]), **kwargs)
        if function is F.dropout:
            return dropout(*args, **kwargs)
        if function in self.PRODUCTS:
            args = [self.lower(x) for x in args]
        elif function in self.EXACT:
            args = [x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in args]
        return function(*args, **kwargs)

    def lower(self, value: object) -> object:
        """A float32 tensor in half precision; anything else as it is."""
        floats = isinstance(value, Tensor) and value.dtype == torch.float32
        return value.to(self.dtype) if floats else value


def dropout(hidden: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Dropout as on a GPU, which keeps a byte per value."""
    return torch.native_dropout(hidden, p, True)[0] if training and p else hidden


def operations_of_convolution_backward(
    grad_shape: list[int], _: list[int], weight_shape: list[int], *args, **__
) -> int:
    """Operations of a convolution's gradients; torch's own formula ignores the groups."""
    wanted = args[7]
    return sum(wanted[:2]) * 2 * math.prod(grad_shape) * math.prod(weight_shape[1:])


def efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor,
    dropout_p: float = 0.0,
    scale: float | None = None,
    **_,
) -> Tensor:
    """The kernel that a GPU uses with a mask, which it copies in half precision."""
    frames = attn_mask.shape[-1]
    bias = torch.where(attn_mask, 0.0, -torch.inf).to(query.dtype)
    if frames % 8:  # rows of whole eights
        bias = F.pad(bias, (0, -frames % 8))[..., :frames]
    bias = bias.expand(-1, query.shape[1], -1, -1)
    run = torch.ops.aten._scaled_dot_product_efficient_attention
    return run(query, key, value, bias, torch.is_grad_enabled(), dropout_p, scale=scale)[0]


def run(
    model: nn.Module, batch: dict[str, Tensor], update: Update, precision: Callable[[], AbstractContextManager]
) -> int:
    """Run the passes of an update; the bytes that the last forward pass saved."""
    saved = 0
    for _ in range(update.steps):
        with precision():
            found = SavedBytes(model)
            with found:
                loss = model(**batch).loss
            saved = found.bytes
            found.forget()
            loss.backward()
    return saved


def cost_of(encoder: PreTrainedConfig, update: Update, on_cpu: bool = False) -> Cost:
    """The cost of an update on a GPU, or on a CPU with its own kernels."""
    precision = partial(GpuAutocast, update.dtype)
    if on_cpu:
        precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=update.dtype != torch.float32)
    model = model_of(encoder, update.stage).train()
    if update.checkpointing:
        # A `TorchFunctionMode` is off within a backward pass unless it is entered there.
        again = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), precision())}
        unwrap(model).activation_checkpointing_enable(again)
    fake, ctc = FakeTensorMode(), patch.object(F, "ctc_loss", ctc_without_data)
    with fake, ctc, LiveBytes() as living:
        model, batch = with_empty_weights(model), batch_of(update, encoder.conv_dim[-1])
        trained = [p for p in model.parameters() if p.requires_grad]
        state = [torch.zeros_like(p) for p in trained for _ in range(2)]  # of AdamW
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        size = sum(p.numel() * p.element_size() for p in trained)
        living.peak = living.bytes
        saved = run(model, batch, update, precision)
        del state
    formulas = {torch.ops.aten.convolution_backward: operations_of_convolution_backward}
    # Operations in a second run: its hooks keep recomputed activations alive.
    with fake, ctc, FlopCounterMode(display=False, custom_mapping=formulas) as flops:
        run(model, batch, update, precision)
    return Cost(flops.get_total_flops(), weights, 3 * size, saved, living.peak)


def measured_peak(encoder: PreTrainedConfig, update: Update) -> int:
    """Peak bytes of an update's tensors, measured on this CPU.

    The process must set `MALLOC_MMAP_THRESHOLD_`, so that freed memory is returned to the system.
    """
    model = with_empty_weights(model_of(encoder, update.stage).train())
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.01)
    if update.checkpointing:
        unwrap(model).activation_checkpointing_enable()
    state = [torch.ones_like(p) for p in model.parameters() if p.requires_grad for _ in range(2)]
    precision = partial(torch.autocast, "cpu", torch.bfloat16, enabled=update.dtype != torch.float32)
    run(model, batch_of(replace(update, batch=1, frames=40), encoder.conv_dim[-1]), update, precision)  # loads code
    model.zero_grad()
    before = resident_bytes("VmRSS") - sum(t.numel() * t.element_size() for t in [*model.parameters(), *state])
    batch = batch_of(update, encoder.conv_dim[-1])
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    run(model, batch, update, precision)
    return resident_bytes("VmHWM") - before
