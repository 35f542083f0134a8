"""Multi-task speech emotion recognition on a pretrained speech encoder, in one self-contained file.

The method is that of "Enhancing two-stage finetuning for speech emotion recognition using adapters" (Gao, Shi, Chu,
Kawahara, ICASSP 2024); the equation numbers below are the paper's. From bottom to top: `SerMtlConfig`,
`SerMtlOutput`, the adapters, the heads, the losses, `SerMtlModel`.

What is special:
- The encoder is any raw-waveform encoder of transformers: wav2vec 2.0 / XLS-R, HuBERT, WavLM, data2vec-audio, and the
  encoder half of Moonshine. It is run in two parts, the convolutional front end and the Transformer, so that a frozen
  front end can be computed once for each utterance (`extract_features`) and passed in again (`features=`).
- Padding never changes an utterance's result: means are over real frames, and a front end that normalises over time
  sees each utterance alone.
- The adapters are exact no-ops until trained: the model with new adapters computes what it computed without them.
- Every loss is kept as one value an utterance, so that the mean over annotated utterances is exact for any batch,
  accumulation or number of processes.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from itertools import combinations
from types import MethodType

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AttentionInterface, AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.utils import ModelOutput, cached_file, find_adapter_config_file, logging

CLASSIFICATION_TASKS = ("emotion", "gender", "style")
ATTENTION_PROJECTIONS = r".*layers\.\d+\.(attention|self_attn)\.(q_proj|k_proj|v_proj|out_proj|o_proj)"
"""Where LoRA goes: the four projections of every Transformer layer's attention, under each encoder's names."""
PLAIN_ATTENTION_FRAMES = 400
"""Up to so many frames, attention in bfloat16 is faster on a CPU as plain products: four times with 150 of them."""
FAMILIES = ("wav2vec2", "hubert", "wavlm", "data2vec-audio", "unispeech", "unispeech-sat", "moonshine")
TILE, TILE_STEP = 150, 10
"""Frames that a frozen front end makes at a time on a CPU, and the step to which the last ones are rounded up."""


# ---------------------------------------------------------------------------------------------------------- config


class SerMtlConfig(PreTrainedConfig):
    """What a `SerMtlModel` is.

    `tasks` are those that have a loss; a classification task has a head where it is in `tasks`, the CTC head exists
    where `vocab_size` is set. Without emotion among the tasks, the model only prepares its encoder for another stage.
    `labels` names the classes of each classification task in the order of its logits.
    `fusion` is "concat" (the emotion classifier sees x_e, x_g and x_s) or "none"; `scl` is "cos" (eq. 7), "norm"
    (eq. 6) or "none". `bottleneck_dim` is the width of the adapters after each feed-forward and of those of the
    tasks; None means a model without adapters. `layer_weights` gives the heads a learned average of all layers'
    outputs, and two more layers of their own, for an encoder that is not trained (Pepino et al. 2021).
    `temperature` was fitted on the development set after training, and is 1 where there was none. The model does not
    apply it, its logits stay as they were trained: who wants calibrated probabilities of emotion takes
    softmax(logits / temperature).
    """

    model_type = "ser_mtl"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 (transformers reads a plain class attribute)

    encoder_config: dict | PreTrainedConfig | None = None
    tasks: list[str] | None = None
    labels: dict[str, list[str]] | None = None
    vocab_size: int | None = None
    pad_token_id: int | None = 0
    embedding_dim: int = 256
    aux_weight: float = 0.1
    fusion: str = "none"
    scl: str = "none"
    scl_weight: float = 1.0
    bottleneck_dim: int | None = None
    layer_weights: bool = False
    head_dropout: float = 0.0
    temperature: float = 1.0

    def __post_init__(self, **kwargs):
        if isinstance(self.encoder_config, dict):
            values = dict(self.encoder_config)
            self.encoder_config = AutoConfig.for_model(values.pop("model_type"), **values)
        self.tasks = list(self.tasks or ["emotion"])
        self.labels = dict(self.labels or {"emotion": ["angry", "happy", "neutral", "sad"]})
        if "id2label" not in kwargs and "emotion" in self.labels:  # under the names that pipelines read
            kwargs["id2label"] = dict(enumerate(self.labels["emotion"]))
            kwargs["label2id"] = {label: i for i, label in enumerate(self.labels["emotion"])}
        super().__post_init__(**kwargs)

    @property
    def classification_tasks(self) -> list[str]:
        """The tasks that have a classification head, in a fixed order."""
        return [task for task in CLASSIFICATION_TASKS if task in self.tasks]


@dataclass
class TaskEmbeddings(ModelOutput):
    """x_e, x_g and x_s of the tasks that have a head, (batch, embedding_dim) each.

    An output of its own and no dict, which the pipelines of transformers cannot take apart into utterances.
    """

    emotion: Tensor | None = None
    gender: Tensor | None = None
    style: Tensor | None = None


@dataclass
class SerMtlOutput(ModelOutput):
    """What `SerMtlModel` returns.

    `loss` is the weighted loss (a scalar, where labels were given); `losses` holds each task's loss for every
    utterance, (batch,), zero where it is not annotated. `logits` are emotion's, (batch, classes);
    `asr_logits` (batch, frames, vocabulary) with `frame_lengths` (batch,) real frames.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    gender_logits: Tensor | None = None
    style_logits: Tensor | None = None
    asr_logits: Tensor | None = None
    frame_lengths: Tensor | None = None
    embeddings: TaskEmbeddings | None = None
    losses: dict[str, Tensor] | None = None


# ------------------------------------------------------------------------------------------------ adapters and heads


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero. A class of its own, so that `_init_weights` can tell it from the others."""


class BottleneckAdapter(nn.Module):
    """Down, GELU, up, residual. Starts as the identity, exactly. (..., d) -> (..., d)."""

    def __init__(self, dim: int, bottleneck_dim: int):
        super().__init__()
        self.down = nn.Linear(dim, bottleneck_dim)
        self.up = ZeroLinear(bottleneck_dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Add what the bottleneck makes of `hidden` to it."""
        return hidden + self.up(F.gelu(self.down(hidden)))


class TaskHead(nn.Module):
    """One classification task: adapter, mean over real frames, FC layer (giving x), linear classifier.

    With `layer_weights`: two layers with ReLU on every frame, mean over real frames (giving x), linear classifier.
    """

    def __init__(self, config: SerMtlConfig, dim: int, classes: int):
        super().__init__()
        n = config.embedding_dim
        if config.layer_weights:
            self.adapter = nn.Sequential(nn.Linear(dim, n), nn.ReLU(), nn.Linear(n, n), nn.ReLU())
            self.projection = nn.Identity()
        else:
            self.adapter = BottleneckAdapter(dim, config.bottleneck_dim) if config.bottleneck_dim else nn.Identity()
            self.projection = nn.Linear(dim, n)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(n, classes)

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, d) and (batch, frames) bool -> embedding x (batch, n) and logits (batch, classes)."""
        embedding = self.projection(masked_mean(self.adapter(frames), frame_mask))
        return embedding, self.classifier(self.dropout(embedding))


class Fusion(nn.Module):
    """What x_g and x_s add to the emotion logits.

    A linear classifier on the concatenation [x_e, x_g, x_s] is the sum of one linear map for each part. The part of
    x_e is the emotion head's own classifier, so that it carries over from stage 1; the others are here and start at
    zero.
    """

    def __init__(self, config: SerMtlConfig, classes: int):
        super().__init__()
        others = [task for task in config.classification_tasks if task != "emotion"]
        self.parts = nn.ModuleDict({task: ZeroLinear(config.embedding_dim, classes, bias=False) for task in others})

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Embeddings (batch, n) by task -> summand of the emotion logits (batch, classes)."""
        return sum(part(embeddings[task]) for task, part in self.parts.items())


class LayerWeights(nn.Module):
    """A learned average of the layers' outputs, each first brought to mean 0 and variance 1 in every frame."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """(batch, frames, d) of each layer -> (batch, frames, d). The weights are a softmax, all equal at the start."""
        weights = self.weights.softmax(dim=0)
        return sum(w * F.layer_norm(out, out.shape[-1:]) for w, out in zip(weights, outputs, strict=True))


class BaseFingerprint(nn.Module):
    """A few values of every frozen tensor of the base, saved with the adapters, by which a wrong base is known."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("values", torch.zeros(size))


def masked_mean(frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean over real frames: (batch, frames, d), (batch, frames) bool -> (batch, d). Summed in float32."""
    mask = frame_mask.unsqueeze(-1)
    total = frames.masked_fill(~mask, 0).sum(dim=1, dtype=torch.float32)
    return (total / mask.sum(dim=1).clamp(min=1)).to(frames.dtype)


# ------------------------------------------------------------------------------------------------------------ losses


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each utterance (eq. 2), -sum over classes of target x log softmax(logits).

    (batch, classes) and labels, either (batch,) classes with -100 for "not annotated", or (batch, classes) shares
    that sum to 1, a row of -100 for "not annotated" -> (batch,), 0 where not annotated.
    """
    if labels.is_floating_point():
        return F.cross_entropy(logits.float(), labels.float().clamp(min=0), reduction="none")
    return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")


def ctc_loss(logits: Tensor, frame_lengths: Tensor, labels: Tensor, blank: int) -> Tensor:
    """CTC of each utterance, divided by its number of characters (eq. 1).

    (batch, frames, vocabulary), (batch,), (batch, characters) padded with -100 -> (batch,). An utterance without
    characters is not annotated: 0. So is one with more characters than frames, which CTC cannot align.
    """
    real = labels >= 0
    target_lengths = real.sum(dim=1)
    # float32, since CTC sums many small probabilities
    log_probabilities = logits.float().log_softmax(dim=-1).transpose(0, 1)
    loss = F.ctc_loss(
        log_probabilities,
        labels.masked_fill(~real, blank),
        frame_lengths,
        target_lengths,
        blank=blank,
        reduction="none",
        zero_infinity=True,
    )
    return (loss / target_lengths.clamp(min=1)).masked_fill(target_lengths == 0, 0)


def self_contrastive_loss(embeddings: list[Tensor], form: str) -> Tensor:
    """Pull the task embeddings of an utterance together: (batch, n) each -> (batch,).

    "norm" is the sum of the Euclidean distances of all pairs (eq. 6, with the plus signs its text calls for: as
    printed, minimising it would push them apart); "cos" is minus the sum of the cosines (eq. 7).
    """
    pairs = list(combinations([embedding.float() for embedding in embeddings], 2))
    if form == "norm":
        return sum(F.pairwise_distance(a, b) for a, b in pairs)
    return -sum(F.cosine_similarity(a, b, dim=-1) for a, b in pairs)


def annotated(task: str, labels: Tensor) -> Tensor:
    """Which utterances carry a label of the task: (batch,), or rows of characters or shares -> (batch,) bool."""
    return (labels >= 0).any(dim=1) if task == "asr" or labels.is_floating_point() else labels >= 0


def task_weights(config: SerMtlConfig) -> dict[str, float]:
    """Weight of each loss (eqs. 3 to 5): 1 - k a for emotion, a for each of the k auxiliary tasks, and SCL's own.

    Without emotion all tasks weigh the same, together 1.
    """
    auxiliary = [task for task in config.tasks if task != "emotion"]
    if "emotion" not in config.tasks:
        return dict.fromkeys(auxiliary, 1 / len(auxiliary))
    weights = {"emotion": 1 - len(auxiliary) * config.aux_weight}
    weights |= dict.fromkeys(auxiliary, config.aux_weight)
    return weights | ({} if config.scl == "none" else {"scl": config.scl_weight})


def weighted_loss(config: SerMtlConfig, losses: dict[str, Tensor], counts: dict[str, Tensor | int]) -> Tensor:
    """Sum over tasks of weight x (sum of the utterances' losses / number of annotated ones, given in `counts`)."""
    weights = task_weights(config)
    return sum(
        weights[task] * loss.sum() / torch.as_tensor(counts[task], device=loss.device).clamp(min=1)
        for task, loss in losses.items()
    )


# --------------------------------------------------------------------------------------------------------- front end


def strided_convolution(hidden: Tensor, conv: nn.Conv1d) -> Tensor:
    """Same as `conv`, with channels last: (batch, positions, channels) -> (batch, new positions, new channels).

    As a matrix product. The layer norm and the GELU that follow then work on contiguous channels, which on a CPU takes
    half the time of convolving with channels first, or less.
    """
    windows = hidden.unfold(1, conv.kernel_size[0], conv.stride[0]).transpose(2, 3).flatten(2)
    return F.linear(windows, conv.weight.permute(0, 2, 1).flatten(1), conv.bias)


def tile_layer(layer: nn.Module) -> Callable[[Tensor], Tensor]:
    """Same as a layer of a front end (convolution, layer norm, activation), prepared for many tiles on a CPU.

    (1, channels, 1, positions) -> (1, new channels, 1, new positions), channels last in memory. With weights that have
    a mean of 0 over the new channels, whatever the convolution makes has one, too: of the layer norm only a division
    by the root mean square is left, which takes half as long.
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


# ---------------------------------------------------------------------------------------------------------- attention


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
    """Attention as plain products, in the type of its inputs, with a mask that is added.

    (batch, heads, frames, head_dim) each -> (batch, frames, heads, head_dim), and no weights.

    transformers' own ("eager") has Moonshine's softmax in float32. The largest tensors of a step are then written and
    read twice more, for nothing: torch sums a softmax in float32 by itself.
    """
    weights = query @ key.transpose(2, 3) * scaling + attention_mask
    weights = F.dropout(weights.softmax(dim=-1), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), None


AttentionInterface.register("ser_mtl_plain", plain_attention)


# -------------------------------------------------------------------------------------------------------- SpecAugment


def span_mask(lengths: Tensor, size: int, probability: float, span: int, min_spans: int) -> Tensor:
    """Random spans of `span` positions, covering about `probability` of each row's first `lengths` positions.

    (batch,) -> (batch, size) bool. As in transformers' wav2vec2, but without leaving the device, and a row too short
    for a span gets none.
    """
    positions = torch.arange(size, device=lengths.device)
    allowed = positions <= (lengths - span).unsqueeze(1)
    wanted = (probability * lengths / span + torch.rand(lengths.shape, device=lengths.device)).floor()
    wanted = wanted.clamp(min=min_spans).minimum(lengths // span)
    scores = torch.rand(allowed.shape, device=lengths.device).masked_fill(~allowed, -1)
    rank = scores.argsort(dim=1, descending=True).argsort(dim=1)
    starts = (allowed & (rank < wanted.unsqueeze(1))).cumsum(dim=1)
    return starts > F.pad(starts, (span, 0))[:, :size]


# ------------------------------------------------------------------------------------------------------------- model


def speech_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The randomly initialised encoder of `config`; of an encoder-decoder model the encoder half."""
    model = AutoModel.from_config(config)
    return model.get_encoder() if config.is_encoder_decoder else model


class SerMtlModel(PreTrainedModel):
    """A speech encoder with a CTC head, a head for each classification task, and adapters where the config has them."""

    config_class = SerMtlConfig
    base_model_prefix = "ser_mtl"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    # The Trainer would else take `loss` to be scaled for gradient accumulation by the model itself.
    accepts_loss_kwargs = False

    def __init__(self, config: SerMtlConfig):
        super().__init__(config)
        self.encoder = speech_encoder(config.encoder_config)
        dim = config.encoder_config.hidden_size
        classes = {task: len(config.labels[task]) for task in config.classification_tasks}
        self.heads = nn.ModuleDict({task: TaskHead(config, dim, n) for task, n in classes.items()})
        self.ctc_head = nn.Linear(dim, config.vocab_size) if config.vocab_size else None
        self.fusion = Fusion(config, classes["emotion"]) if config.fusion == "concat" else None
        if config.bottleneck_dim:
            self._add_layer_adapters(dim)
            self.fingerprint = BaseFingerprint(8 * sum(1 for _ in self.encoder.parameters()))
        if config.layer_weights:
            layers = self.transformer_layers()
            self.layer_weights = LayerWeights(len(layers) + 1)
            for layer in layers:
                layer.register_forward_hook(_keep_output)
        front_end = self._front_end_modules()
        self._front_end_normalises_over_time = any(isinstance(module, nn.GroupNorm) for module in front_end)
        convolutions = [module for module in front_end if isinstance(module, nn.Conv1d)]
        self._kernels_and_strides = [(conv.kernel_size[0], conv.stride[0]) for conv in convolutions]
        if config.encoder_config.model_type == "wavlm":
            _let_wavlm_attention_call_its_projections(self.encoder)
        elif hasattr(self.encoder, "feature_projection"):
            for layer in self.transformer_layers():
                layer.register_forward_pre_hook(_take_layer_mask, with_kwargs=True)
        if config.encoder_config.model_type == "data2vec-audio":
            for layer in self.encoder.encoder.pos_conv_embed.layers:
                layer.register_forward_pre_hook(_silence_padding)
        self.register_load_state_dict_pre_hook(_refuse_wrong_base)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, ZeroLinear):
            init.zeros_(module.weight)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
        elif isinstance(module, BaseFingerprint):
            init.zeros_(module.values)
        elif isinstance(module, LayerWeights):
            init.zeros_(module.weights)
        if isinstance(module, nn.Linear) and module.bias is not None:
            init.zeros_(module.bias)

    # ------------------------------------------------------------------------------------------- loading

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config: SerMtlConfig | None = None, **kwargs):
        """Load a model, an adapter (with the base it names), or, given `config`, a stock encoder under new heads.

        Args:
            pretrained_model_name_or_path: folder or Hub id of one of the three.
            config: needed for a stock encoder; for a model it replaces the saved config.
            **kwargs: as for every `from_pretrained`; `revision` is that of an adapter, not of its base.

        Raises:
            ValueError: the adapter was trained on another base than the one it names.
        """
        name = str(pretrained_model_name_or_path)
        from_auto = kwargs.pop("adapter_kwargs", None) or {}
        if "_adapter_model_path" in from_auto:  # an Auto class has put the base, as of today, in the adapter's place
            return cls._from_adapter(from_auto["_adapter_model_path"], kwargs | {"revision": from_auto.get("revision")})
        if find_adapter_config_file(name, **_hub_arguments(kwargs)) is not None:
            return cls._from_adapter(name, kwargs)
        saved = AutoConfig.from_pretrained(name, **_hub_arguments(kwargs)) if config is not None else None
        if saved is not None and saved.model_type != cls.config_class.model_type:
            return cls._from_encoder(name, config, **_hub_arguments(kwargs))
        with _without_load_report() if config is not None else nullcontext():
            return super().from_pretrained(name, *args, config=config, **kwargs)

    @classmethod
    def _from_encoder(cls, name: str, config: SerMtlConfig, **hub_arguments) -> "SerMtlModel":
        model = cls(config)
        with _without_load_report():
            stock = AutoModel.from_pretrained(name, config=config.encoder_config, dtype=torch.float32, **hub_arguments)
        stock = stock.get_encoder() if config.encoder_config.is_encoder_decoder else stock
        model.encoder.load_state_dict(stock.state_dict())
        model.name_or_path = name
        return model

    @classmethod
    def _from_adapter(cls, name: str, arguments: dict) -> "SerMtlModel":
        from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

        hub_arguments = _hub_arguments(arguments)
        peft_config = PeftConfig.from_pretrained(name, **hub_arguments)
        config = cls.config_class.from_pretrained(name, **hub_arguments)
        # The very commit that the adapter was trained on, whatever has become of the base since.
        arguments = arguments | {"revision": peft_config.revision}
        model = cls.from_pretrained(peft_config.base_model_name_or_path, config=config, **arguments)
        inject_adapter_in_model(peft_config, model)
        model.peft_config, model._hf_peft_config_loaded = {"default": peft_config}, True
        weights = load_file(cached_file(name, "adapter_model.safetensors", **hub_arguments), device=str(model.device))
        # PEFT's names are those inside a PeftModel; here the adapters are in the model itself.
        set_peft_model_state_dict(model, {k.removeprefix("base_model.model."): w for k, w in weights.items()})
        return model.eval()

    def get_input_embeddings(self) -> None:
        """None: waveforms are not looked up in a table. PEFT asks."""

    def base_fingerprint(self) -> Tensor:
        """Eight values of each of the encoder's own tensors, in float32: shape (8 x tensors,)."""
        tensors = [p.detach().flatten() for name, p in self.encoder.named_parameters() if "lora_" not in name]
        picks = [torch.linspace(0, t.numel() - 1, 8, device=t.device).round().long() for t in tensors]
        return torch.cat([t[i].float() for t, i in zip(tensors, picks, strict=True)])

    # ---------------------------------------------------------------------------------------- the encoder

    def _front_end_modules(self) -> list[nn.Module]:
        """Modules of the convolutional front end, in the order of the data."""
        if hasattr(self.encoder, "feature_extractor"):
            return list(self.encoder.feature_extractor.modules())
        return [self.encoder.conv1, self.encoder.groupnorm, self.encoder.conv2, self.encoder.conv3]

    def front_end_parameters(self) -> list[nn.Parameter]:
        """Parameters of the convolutional front end, which finetuning usually leaves as they are."""
        return [p for module in self._front_end_modules() for p in module.parameters(recurse=False)]

    def transformer_layers(self) -> nn.ModuleList:
        """The Transformer layers, first to last."""
        return self.encoder.encoder.layers if hasattr(self.encoder, "feature_extractor") else self.encoder.layers

    def _add_layer_adapters(self, dim: int) -> None:
        layers = self.transformer_layers()
        # Beside the encoder, not in it: inside, the encoder's own initialisation would overwrite the zeros.
        self.layer_adapters = nn.ModuleList(
            BottleneckAdapter(dim, self.config.bottleneck_dim) for _ in range(len(layers))
        )
        for index, layer in enumerate(layers):
            feed_forward = layer.feed_forward if hasattr(layer, "feed_forward") else layer.mlp
            feed_forward.register_forward_hook(partial(_adapt_layer, self, index))

    def frame_lengths(self, sample_lengths: Tensor) -> Tensor:
        """Number of frames that the front end makes of so many samples, at least 1. (batch,) -> (batch,)."""
        for kernel, stride in self._kernels_and_strides:
            sample_lengths = (sample_lengths - kernel) // stride + 1
        return sample_lengths.clamp(min=1)

    def _receptive_field(self) -> tuple[int, int]:
        """Samples that make a frame, and samples from one frame to the next."""
        field, step = 1, 1
        for kernel, stride in self._kernels_and_strides:
            field += (kernel - 1) * step
            step *= stride
        return field, step

    def _convolve_in_tiles(self, utterances: list[Tensor]) -> list[Tensor]:
        """Same as `_convolve` of each utterance, (samples,) -> (frames, channels), where a frame needs no other.

        On a CPU: oneDNN prepares itself anew for each shape that it meets, of a GELU as well. So the utterances are
        laid end to end and cut into tiles of one length; frames that reach over an end are thrown away. It can go when
        oneDNN convolves shapes that it has not been prepared for (uxlfoundation/oneDNN#1099).
        """
        field, step = self._receptive_field()
        lengths = [max(len(utterance), field) for utterance in utterances]
        rooms = [-(-length // step) for length in lengths]  # in frames, with those thrown away
        pairs = zip(utterances, rooms, strict=True)
        samples = torch.cat([F.pad(utterance, (0, room * step - len(utterance))) for utterance, room in pairs])
        layers = [tile_layer(layer) for layer in self.encoder.feature_extractor.conv_layers]
        tiles = []
        for first in range(0, sum(rooms), TILE):
            count = min(TILE, -(-(sum(rooms) - first) // TILE_STEP) * TILE_STEP)
            size = (count - 1) * step + field
            part = samples[first * step : first * step + size]
            # With one channel only the strides say that it is the last one, and the convolution keeps to that.
            hidden = F.pad(part, (0, size - len(part))).view(1, 1, -1, 1).permute(0, 3, 1, 2)
            for run in layers:
                hidden = run(hidden)
            tiles.append(hidden[0, :, 0].T)
        frames = torch.cat(tiles)[: sum(rooms)].split(rooms)
        return [made[: (length - field) // step + 1] for made, length in zip(frames, lengths, strict=True)]

    def _convolve(self, waveform: Tensor) -> Tensor:
        """(batch, samples) -> (batch, frames, channels)."""
        waveform = F.pad(waveform, (0, max(0, self._receptive_field()[0] - waveform.shape[1])))
        encoder = self.encoder
        if hasattr(encoder, "feature_extractor"):
            hidden = waveform.unsqueeze(2)
            for layer in encoder.feature_extractor.conv_layers:
                hidden = strided_convolution(hidden, layer.conv)
                norm = getattr(layer, "layer_norm", nn.Identity())
                over_time = isinstance(norm, nn.GroupNorm)
                hidden = norm(hidden.transpose(1, 2)).transpose(1, 2) if over_time else norm(hidden)
                hidden = layer.activation(hidden)
            return hidden
        hidden = encoder.groupnorm(torch.tanh(encoder.conv1(waveform.unsqueeze(1))))
        return F.gelu(encoder.conv3(F.gelu(encoder.conv2(hidden)))).transpose(1, 2)

    def extract_features(self, input_values: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the convolutional front end.

        (batch, samples) at 16 kHz and the mask of real samples -> features (batch, frames, channels) and their real
        frames (batch,).
        """
        if attention_mask is None:
            sample_lengths = torch.full(input_values.shape[:1], input_values.shape[1], device=input_values.device)
        else:
            sample_lengths = attention_mask.sum(dim=1).long()
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.front_end_parameters())
        with torch.set_grad_enabled(trained):
            in_tiles = not (trained or self._front_end_normalises_over_time) and input_values.device.type == "cpu"
            if in_tiles or self._front_end_normalises_over_time:
                rows = [row[:n] for row, n in zip(input_values, sample_lengths.tolist(), strict=True)]
                rows = self._convolve_in_tiles(rows) if in_tiles else [self._convolve(row[None])[0] for row in rows]
                features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            else:
                features = self._convolve(input_values)
        return features, self.frame_lengths(sample_lengths)

    def encode(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Run the Transformer: features (batch, frames, channels) -> f (batch, frames, d), mask of real frames.

        With `layer_weights`, f is the learned average of what goes into the first layer and what comes out of each.
        """
        self._choose_attention(features)
        frame_mask = torch.arange(features.shape[1], device=features.device) < frame_lengths.unsqueeze(1)
        _PASS.set(ForwardPass(frame_mask))
        if hasattr(self.encoder, "feature_projection"):
            hidden = self.encoder.feature_projection(features)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden
            hidden = self._spec_augment(hidden, frame_lengths)
            if self.config.encoder_config.model_type == "wavlm":
                frames = self.encoder.encoder(hidden, attention_mask=frame_mask).last_hidden_state
            else:
                hidden = hidden.masked_fill(~frame_mask.unsqueeze(-1), 0)
                layer_mask = self._layer_mask(hidden, frame_mask)
                frames = self.encoder.encoder(hidden, layer_mask=layer_mask).last_hidden_state
        else:
            frames = self._moonshine_transformer(self._spec_augment(features, frame_lengths), frame_mask)
        if self.config.layer_weights:
            frames = self.layer_weights(_PASS.get().layer_outputs)
        _PASS.set(None)
        return frames, frame_mask

    def _choose_attention(self, features: Tensor) -> None:
        """In bfloat16 on a CPU, torch 2.11's fused attention is slower than in float32, plain products are faster.

        It can go when the fused kernel for bfloat16 (pytorch/pytorch#104863) makes use of AVX-512 BF16 as well.
        """
        if self.config.encoder_config.model_type == "wavlm" or features.device.type != "cpu":
            return
        plain = torch.is_autocast_enabled("cpu") and features.shape[1] <= PLAIN_ATTENTION_FRAMES
        wanted = "ser_mtl_plain" if plain else "sdpa"
        if self.encoder.config._attn_implementation != wanted:
            self.encoder.set_attn_implementation(wanted)

    def _layer_mask(self, hidden: Tensor, frame_mask: Tensor) -> Tensor:
        """The layers' attention mask, made here: the stock encoders wait for the device to see whether they need one.

        For fused and for plain attention one row, the same for every frame: (batch, 1, 1, frames).
        """
        implementation = self.encoder.config._attn_implementation
        if implementation == "sdpa":
            return frame_mask[:, None, None, :]
        if implementation == "ser_mtl_plain":
            added = torch.zeros_like(frame_mask, dtype=torch.bfloat16)
            return added.masked_fill_(~frame_mask, torch.finfo(torch.bfloat16).min)[:, None, None, :]
        return create_bidirectional_mask(
            config=self.encoder.config,
            inputs_embeds=hidden,
            attention_mask=frame_mask,
            allow_is_bidirectional_skip=False,
        )

    def _moonshine_transformer(self, hidden: Tensor, frame_mask: Tensor) -> Tensor:
        encoder = self.encoder
        mask = self._layer_mask(hidden, frame_mask)
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        # In the type of the products: in float32 they would make queries and keys float32 as well.
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        rotary = encoder.rotary_emb(hidden.to(dtype), position_ids=positions)
        for layer in encoder.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotary)
        return encoder.layer_norm(hidden)

    def _spec_augment(self, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        """Mask spans of frames and of channels while training, as far as the encoder's config says."""
        config = self.config.encoder_config
        if not (self.training and getattr(config, "apply_spec_augment", True)):
            return hidden
        if time_probability := getattr(config, "mask_time_prob", 0.0):
            mask = span_mask(
                frame_lengths,
                hidden.shape[1],
                time_probability,
                config.mask_time_length,
                config.mask_time_min_masks,
            )
            filler = getattr(self.encoder, "masked_spec_embed", None)
            filler = hidden.new_zeros(()) if filler is None else filler.to(hidden.dtype)
            hidden = torch.where(mask.unsqueeze(-1), filler, hidden)
        if channel_probability := getattr(config, "mask_feature_prob", 0.0):
            channels = torch.full_like(frame_lengths, hidden.shape[2])
            mask = span_mask(
                channels,
                hidden.shape[2],
                channel_probability,
                config.mask_feature_length,
                getattr(config, "mask_feature_min_masks", 0),  # WavLM's config has none
            )
            hidden = hidden.masked_fill(mask.unsqueeze(1), 0)
        return hidden

    # --------------------------------------------------------------------------------------------- forward

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        frame_lengths: Tensor | None = None,
        emotion_labels: Tensor | None = None,
        gender_labels: Tensor | None = None,
        style_labels: Tensor | None = None,
        asr_labels: Tensor | None = None,
    ) -> SerMtlOutput:
        """Run all heads on waveforms, or on the features that `extract_features` made of them.

        Args:
            input_values: (batch, samples), 16 kHz, as the encoder's feature extractor prepares them.
            attention_mask: (batch, samples), 1 for real samples; all are where it is missing.
            features: (batch, frames, channels), in place of `input_values`, with `frame_lengths` (batch,).
            frame_lengths: real frames of each row of `features`.
            emotion_labels: (batch,), -100 for "not annotated", or soft ones as `classification_loss` takes them;
                `gender_labels` and `style_labels` alike.
            gender_labels: see `emotion_labels`.
            style_labels: see `emotion_labels`.
            asr_labels: (batch, characters), padded with -100; a row of -100 alone is "not annotated".
        """
        if features is None:
            features, frame_lengths = self.extract_features(input_values, attention_mask)
        frames, frame_mask = self.encode(features, frame_lengths)
        outputs = {task: head(frames, frame_mask) for task, head in self.heads.items()}
        embeddings = {task: embedding for task, (embedding, _) in outputs.items()}
        logits = {task: logits for task, (_, logits) in outputs.items()}
        if self.fusion is not None:
            logits["emotion"] = logits["emotion"] + self.fusion(embeddings)
        asr_logits = self.ctc_head(frames) if self.ctc_head is not None else None
        labels = {
            "emotion": emotion_labels,
            "gender": gender_labels,
            "style": style_labels,
            "asr": asr_labels,
        }
        labels = {task: labels[task] for task in self.config.tasks if labels[task] is not None}
        losses = self._losses(logits, asr_logits, frame_lengths, embeddings, labels) if labels else None
        return SerMtlOutput(
            loss=weighted_loss(self.config, losses, self.count_annotated(labels)) if labels else None,
            logits=logits.get("emotion"),
            gender_logits=logits.get("gender"),
            style_logits=logits.get("style"),
            asr_logits=asr_logits,
            frame_lengths=frame_lengths,
            embeddings=TaskEmbeddings(**embeddings),
            losses=losses,
        )

    def _losses(
        self,
        logits: dict[str, Tensor],
        asr_logits: Tensor | None,
        frame_lengths: Tensor,
        embeddings: dict[str, Tensor],
        labels: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Each task's loss for every utterance, (batch,)."""
        losses = {task: classification_loss(logits[task], target) for task, target in labels.items() if task != "asr"}
        if "asr" in labels:
            losses["asr"] = ctc_loss(asr_logits, frame_lengths, labels["asr"], self.config.pad_token_id)
        if self.config.scl != "none":
            losses["scl"] = self_contrastive_loss(list(embeddings.values()), self.config.scl)
        return losses

    def count_annotated(self, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Number of utterances that each loss is a mean over: tensors by task -> scalars by loss."""
        counts = {task: annotated(task, target).sum() for task, target in labels.items()}
        if self.config.scl != "none":
            some = next(iter(labels.values()))
            counts["scl"] = torch.full((), some.shape[0], device=some.device)
        return counts


# ------------------------------------------------------------------------------------------------------------- hooks


def _adapt_layer(model: SerMtlModel, index: int, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return model.layer_adapters[index](output)


@dataclass
class ForwardPass:
    """What hooks know of the forward pass that they are called in, and leave for it."""

    frame_mask: Tensor
    layer_outputs: list[Tensor] = field(default_factory=list)


# Not in the model, which may answer in many threads; None while an encoder is called by itself.
_PASS: ContextVar[ForwardPass | None] = ContextVar("forward pass", default=None)


def _keep_output(module: nn.Module, args: tuple, output: Tensor | tuple) -> None:
    if under_way := _PASS.get():
        kept = under_way.layer_outputs
        # WavLM's layers return tuples.
        kept += ([] if kept else [args[0]]) + [output[0] if isinstance(output, tuple) else output]


def _take_layer_mask(module: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    # Handed through the stock encoder under a name that it does not know, past the mask that it would make.
    return args, kwargs | {"attention_mask": kwargs.pop("layer_mask", kwargs.get("attention_mask"))}


def _silence_padding(module: nn.Module, args: tuple) -> tuple | None:
    # data2vec-audio stacks five position convolutions; without this, padding leaks in from the second one on.
    if under_way := _PASS.get():
        return (args[0].masked_fill(~under_way.frame_mask.unsqueeze(1), 0), *args[1:])
    return None


def _refuse_wrong_base(model: SerMtlModel, state: dict, prefix: str, *_) -> None:
    """Before adapter weights are loaded: raise where this model is not the base that they were trained on."""
    if not any("modules_to_save" in name or "lora_" in name for name in state):
        return
    saved = next((value for name, value in state.items() if name.startswith(f"{prefix}fingerprint.")), None)
    if saved is None or not hasattr(model, "fingerprint"):
        raise ValueError(
            "this base has no places for the adapters: build it with the adapter's own config, "
            "SerMtlModel.from_pretrained(base, config=SerMtlConfig.from_pretrained(adapter))"
        )
    own = model.base_fingerprint()
    expected = saved.to(own.device, next(model.encoder.parameters()).dtype).float()
    if expected.shape != own.shape or not torch.equal(expected, own):
        raise ValueError("the adapter was trained on another base: the encoder's weights differ from the ones it knows")


def _let_wavlm_attention_call_its_projections(encoder: PreTrainedModel) -> None:
    """WavLM's attention reads the projections' weights and never calls them, so LoRA on them would do nothing."""
    for layer in encoder.encoder.layers:
        layer.attention.torch_multi_head_self_attention = MethodType(_wavlm_attention, layer.attention)


def _wavlm_attention(
    attention: nn.Module, hidden: Tensor, attention_mask: Tensor | None, gated_position_bias: Tensor
) -> tuple[Tensor, None]:
    """Same as WavLM's own: (batch, frames, d), mask (batch, frames), bias (batch x heads, frames, frames)."""
    batch, frames, dim = hidden.shape
    heads = (batch, frames, attention.num_heads, attention.head_dim)
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    query, key, value = (projection(hidden).view(heads).transpose(1, 2) for projection in projections)
    bias = gated_position_bias.view(batch, attention.num_heads, frames, frames).to(query.dtype)
    if attention_mask is not None:
        bias = bias.masked_fill(~attention_mask.bool()[:, None, None, :], float("-inf"))
    dropout = attention.dropout if attention.training else 0.0
    context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
    return attention.out_proj(context.transpose(1, 2).reshape(batch, frames, dim)), None


def _hub_arguments(arguments: dict) -> dict:
    """Those of `from_pretrained`'s arguments that say where on the Hub and how to look for files."""
    names = ("revision", "token", "cache_dir", "force_download", "local_files_only")
    return {name: arguments[name] for name in names if name in arguments}


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Keep quiet about what a checkpoint lacks where that is as it should be: new heads, or an unwanted decoder."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


AutoConfig.register(SerMtlConfig.model_type, SerMtlConfig, exist_ok=True)
SerMtlConfig.register_for_auto_class()
SerMtlModel.register_for_auto_class("AutoModelForAudioClassification")
