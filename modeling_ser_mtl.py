"""Multi-task speech emotion recognition on a pretrained speech encoder, in one self-contained file.

The method of "Enhancing two-stage finetuning for speech emotion recognition using adapters" (Gao, Shi, Chu, Kawahara,
ICASSP 2024), with its equation numbers: config, output, adapters, heads, losses, encoder families, model, loading.
Padding never changes an utterance's result, adapters are exact no-ops until they are trained, and every loss is kept as
one value per utterance, so that the mean over annotated utterances is exact for any batch.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from huggingface_hub.dataclasses import type_validator
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.wavlm.modeling_wavlm import WavLMAttention
from transformers.utils import ModelOutput, cached_file, find_adapter_config_file, logging

ATTENTION_PROJECTIONS = r".*layers\.\d+\.(attention|self_attn)\.(q_proj|k_proj|v_proj|out_proj|o_proj)"
"""Where LoRA goes: the four projections of every Transformer layer's attention, under each encoder's names."""
WRAPPERS = r"^(?:(?:module|model|_orig_mod|wav2vec2|hubert|wavlm|data2vec_audio|unispeech|unispeech_sat)\.)+"
"""Names that wrappers and models with a head put in front of an encoder's tensors."""


class SerMtlConfig(PreTrainedConfig):
    """The config of a `SerMtlModel`. A value that is unknown or makes no sense is a ValueError."""

    model_type = "ser_mtl"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 (transformers reads a plain class attribute)

    encoder_config: Any = None  # a config of transformers, or a dict with its `model_type`
    tasks: list[str] | None = None  # with a loss: "asr", and any with labels; without emotion, to prepare an encoder
    labels: dict[str, list[str]] | None = None  # classes of each classification task, in the order of its logits
    vocab_size: int | None = None  # characters of the CTC head; None for a model without one
    pad_token_id: int | None = 0  # CTC's blank
    embedding_dim: int = 256  # width of the task embeddings x
    aux_weight: float = 0.1  # weight of each task except emotion (eqs. 3 to 5)
    fusion: str = "none"  # "concat": the emotion classifier sees the embeddings of all tasks
    scl: str = "none"  # form of the self-contrastive loss, a key of `SCL_FORMS`
    scl_weight: float = 1.0
    bottleneck_dim: int | None = None  # width of the bottleneck adapters; None for a model without adapters
    layer_weights: bool = False  # heads see a learned average of all layers (Pepino et al. 2021)
    head_dropout: float = 0.0  # of the embeddings, before the classifiers
    temperature: float = 1.0  # divides emotion's logits, so that their softmax is calibrated; fitted on dev

    def __post_init__(self, **kwargs):
        self._check_types()
        if isinstance(self.encoder_config, dict):
            values = dict(self.encoder_config)
            try:
                self.encoder_config = AutoConfig.for_model(values.pop("model_type"), **values)
            except (KeyError, TypeError, StrictDataclassError) as error:
                raise ValueError(f"encoder_config: {type(error).__name__} {' '.join(str(error).split())}") from error
        self.tasks = ["emotion"] if self.tasks is None else self.tasks
        self.labels = dict(self.labels or {"emotion": ["angry", "happy", "neutral", "sad"]})
        self._check()
        if "id2label" not in kwargs and "emotion" in self.labels:  # under the names that pipelines read
            kwargs["id2label"] = dict(enumerate(self.labels["emotion"]))
            kwargs["label2id"] = {label: i for i, label in enumerate(self.labels["emotion"])}
        super().__post_init__(**kwargs)

    @property
    def classification_tasks(self) -> list[str]:
        """The tasks with a classification head."""
        return [task for task in self.tasks if task != "asr"]

    def _check_types(self) -> None:
        kinds = {**SerMtlConfig.__annotations__, "encoder_config": dict | PreTrainedConfig | None}
        for name, kind in kinds.items():
            try:
                type_validator(name, value := getattr(self, name), float | int if kind is float else kind)
            except TypeError as error:
                raise ValueError(f"{name} {value!r}: must be {getattr(kind, '__name__', kind)}") from error

    def _check(self) -> None:
        if not isinstance(self.tasks, list | tuple) or not self.tasks or len({*self.tasks}) < len(self.tasks):
            raise ValueError(f"tasks {self.tasks!r}: must be a list of different names")
        labels = {task: self.labels.get(task) or [] for task in self.classification_tasks}
        wrong = [task for task, names in labels.items() if not names or len({*names}) < len(names)]
        weight = 1 - (len(self.tasks) - 1) * self.aux_weight if "emotion" in self.tasks else 1
        family = getattr(self.encoder_config, "model_type", None)
        for refused, message in (
            (wrong, f"tasks {wrong}: must be 'asr' or have a list of different labels"),
            (family and family not in FAMILIES, f"encoder {family!r}: must be one of {', '.join(FAMILIES)}"),
            (self.fusion not in ("none", "concat"), f"fusion {self.fusion!r}: must be 'none' or 'concat'"),
            (self.scl not in ("none", *SCL_FORMS), f"scl {self.scl!r}: must be 'none' or one of {list(SCL_FORMS)}"),
            ({self.fusion, self.scl} != {"none"} and not ("emotion" in labels and len(labels) > 1),
             "fusion, scl: need emotion and another task with labels"),
            (not 0 < weight <= 1, f"aux_weight {self.aux_weight}: leaves emotion the weight {weight:g}"),
            (not 0 <= self.scl_weight < math.inf, f"scl_weight {self.scl_weight}: must not be negative or infinite"),
            (not 0 <= self.head_dropout < 1, f"head_dropout {self.head_dropout}: must be from 0 to less than 1"),
            (not 0 < self.temperature < math.inf, f"temperature {self.temperature}: must be above 0 and finite"),
            (min(self.embedding_dim, self.bottleneck_dim or 1, self.vocab_size or 1) < 1,
             "embedding_dim, bottleneck_dim, vocab_size: at least 1"),
        ):  # fmt: skip
            if refused:
                raise ValueError(message)


@dataclass
class SerMtlOutput(ModelOutput):
    """The output of `SerMtlModel`."""

    loss: Tensor | None = None  # weighted, a scalar, if labels were given
    logits: Tensor | None = None  # of emotion, calibrated: divided by the temperature, (batch, classes)
    task_logits: ModelOutput | None = None  # of each classification task, as they are trained, (batch, classes)
    asr_logits: Tensor | None = None  # (batch, frames, vocabulary)
    frame_lengths: Tensor | None = None  # real frames, (batch,)
    embeddings: ModelOutput | None = None  # x of each classification task, (batch, embedding_dim)
    losses: dict[str, Tensor] | None = None  # each loss of every utterance, (batch,), 0 where it is not annotated
    hidden_states: tuple[Tensor, ...] | None = None  # into the first layer and out of each, (batch, frames, d)


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero. A class of its own, so that `_init_weights` recognises it."""


class BottleneckAdapter(nn.Module):
    """Down, GELU, up, residual. Starts as the identity, exactly. (..., d) -> (..., d)."""

    def __init__(self, dim: int, bottleneck_dim: int):
        super().__init__()
        self.down = nn.Linear(dim, bottleneck_dim)
        self.up = ZeroLinear(bottleneck_dim, dim)

    def forward(self, hidden: Tensor) -> Tensor:
        """Add the bottleneck's output to its input."""
        return hidden + self.up(F.gelu(self.down(hidden)))


class BaseFingerprint(nn.Module):
    """A few values of every frozen tensor of the base, saved with the adapters, to detect a wrong base."""

    def __init__(self, size: int):
        super().__init__()
        self.register_buffer("values", torch.zeros(size))


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
    """The part of the emotion logits that comes from the other tasks' embeddings.

    A linear classifier on the concatenation [x_e, x_g, x_s] is a sum of one linear map per embedding. The map of x_e is
    the emotion head's own classifier, so that it carries over from stage 1; the others are here and start at zero.
    """

    def __init__(self, config: SerMtlConfig, classes: int):
        super().__init__()
        others = [task for task in config.classification_tasks if task != "emotion"]
        self.parts = nn.ModuleDict({task: ZeroLinear(config.embedding_dim, classes, bias=False) for task in others})

    def forward(self, embeddings: dict[str, Tensor]) -> Tensor:
        """Embeddings (batch, n) by task -> summand of the emotion logits (batch, classes)."""
        return sum(part(embeddings[task]) for task, part in self.parts.items())


class LayerWeights(nn.Module):
    """A learned average of the layers' outputs, each first normalised to mean 0 and variance 1 in every frame."""

    def __init__(self, layers: int):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(layers))

    def forward(self, outputs: list[Tensor]) -> Tensor:
        """(batch, frames, d) of each layer -> (batch, frames, d). The weights are a softmax, equal at the start."""
        weights = self.weights.softmax(dim=0)
        return sum(w * F.layer_norm(out, out.shape[-1:]) for w, out in zip(weights, outputs, strict=True))


def masked_mean(frames: Tensor, frame_mask: Tensor) -> Tensor:
    """Mean over real frames: (batch, frames, d), (batch, frames) bool -> (batch, d). Summed in float32."""
    mask = frame_mask.unsqueeze(-1)
    total = frames.masked_fill(~mask, 0).sum(dim=1, dtype=torch.float32)
    return (total / mask.sum(dim=1).clamp(min=1)).to(frames.dtype)


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each utterance (eq. 2), -sum over classes of target x log softmax(logits).

    (batch, classes) and labels, either (batch,) classes with -100 for "not annotated", or (batch, classes) shares
    that sum to 1, a row of -100 for "not annotated" -> (batch,), 0 where not annotated.
    """
    if labels.is_floating_point():
        return F.cross_entropy(logits.float(), labels.float().clamp(min=0), reduction="none")
    return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")


def ctc_loss(logits: Tensor, frame_lengths: Tensor, labels: Tensor, blank: int) -> Tensor:
    """CTC of each utterance, divided by its number of characters (eq. 1). In float32: it sums small probabilities.

    (batch, frames, vocabulary), (batch,), (batch, characters) padded with -100 -> (batch,). 0 for an utterance without
    characters, which is not annotated, and for one with more characters than frames, which CTC cannot align.
    """
    real = labels >= 0
    log_probabilities = logits.float().log_softmax(dim=-1).transpose(0, 1)
    arguments = (log_probabilities, labels.masked_fill(~real, blank), frame_lengths, real.sum(dim=1))
    loss = F.ctc_loss(*arguments, blank=blank, reduction="none", zero_infinity=True)
    return (loss / real.sum(dim=1).clamp(min=1)).masked_fill(~real.any(dim=1), 0)


SCL_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "norm": F.pairwise_distance,
    "cos": lambda a, b: -F.cosine_similarity(a, b, dim=-1),
}
"""Forms of the self-contrastive loss of two embeddings, (batch, n) each -> (batch,): eq. 6 with the plus signs its text
calls for (as printed, minimising it would push the embeddings apart), and eq. 7."""


def self_contrastive_loss(embeddings: list[Tensor], form: str) -> Tensor:
    """Pull the task embeddings of an utterance together: the sum over all pairs, (batch, n) each -> (batch,)."""
    return sum(SCL_FORMS[form](a, b) for a, b in combinations([embedding.float() for embedding in embeddings], 2))


def loss_weights(config: SerMtlConfig) -> dict[str, float]:
    """Weight of each loss (eqs. 3 to 5): 1 - k a for emotion, a for each of the k other tasks, and SCL's own.

    Without emotion all tasks weigh the same, together 1.
    """
    auxiliary = [task for task in config.tasks if task != "emotion"]
    if "emotion" not in config.tasks:
        return dict.fromkeys(auxiliary, 1 / len(auxiliary))
    weights = {"emotion": 1 - len(auxiliary) * config.aux_weight} | dict.fromkeys(auxiliary, config.aux_weight)
    return weights | ({} if config.scl == "none" else {"scl": config.scl_weight})


def annotated(task: str, labels: Tensor) -> Tensor:
    """Which utterances have a label of the task: (batch,), or rows of characters or shares -> (batch,) bool."""
    return (labels >= 0).any(dim=1) if task == "asr" or labels.is_floating_point() else labels >= 0


def loss_counts(config: SerMtlConfig, labels: dict[str, Tensor], utterances: Tensor) -> dict[str, Tensor]:
    """Number of utterances that each loss is a mean over: a task's annotated ones; for the other losses, all."""
    others = [name for name in loss_weights(config) if name not in config.tasks]
    return {task: annotated(task, rows).sum() for task, rows in labels.items()} | dict.fromkeys(others, utterances)


def weighted_loss(config: SerMtlConfig, losses: dict[str, Tensor], counts: dict[str, Tensor | int]) -> Tensor:
    """Sum over losses of weight x (sum of the utterances' losses / number of utterances in `counts`)."""
    weights = loss_weights(config)
    counts = {name: torch.as_tensor(counts[name], device=loss.device).clamp(min=1) for name, loss in losses.items()}
    return sum(weights[name] * loss.sum() / counts[name] for name, loss in losses.items())


@dataclass(frozen=True)
class Family:
    """Where an encoder family of transformers has its parts, and what sets it apart from wav2vec 2.0."""

    front_end: tuple[str, ...] = ("feature_extractor",)  # modules of the front end
    stack: str = "encoder"  # module that holds the layers; the encoder itself if empty
    feed_forward: str = "feed_forward"  # module of a layer
    stacked_positions: bool = False  # several position convolutions, into which padding would leak
    position_bias: bool = False  # the first layer makes a bias for all; attention never calls its projections
    rotary: bool = False  # rotary positions, no feature projection, no norm before the first layer


FAMILIES = {
    "wav2vec2": Family(),
    "hubert": Family(),
    "wavlm": Family(position_bias=True),
    "data2vec-audio": Family(stacked_positions=True),
    "unispeech": Family(),
    "unispeech-sat": Family(),
    "moonshine": Family(("conv1", "groupnorm", "conv2", "conv3"), stack="", feed_forward="mlp", rotary=True),
}
"""The supported encoders of raw waveforms, by `model_type`."""


class LinearWavLMAttention(WavLMAttention):
    """WavLM's attention, calling its projections: the stock one only reads their weights and would miss LoRA."""

    def torch_multi_head_self_attention(self, hidden: Tensor, mask: Tensor, bias: Tensor) -> tuple[Tensor, None]:
        """(batch, frames, d), (batch, frames) bool, (batch x heads, frames, frames) -> (batch, frames, d)."""
        batch, frames, dim = hidden.shape
        heads = (batch, frames, self.num_heads, self.head_dim)
        projections = (self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (projection(hidden).view(heads).transpose(1, 2) for projection in projections)
        bias = bias.view(batch, self.num_heads, frames, frames).to(query.dtype)
        bias = bias if mask is None else bias.masked_fill(~mask[:, None, None, :], float("-inf"))
        dropout = self.dropout if self.training else 0.0
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout)
        return self.out_proj(context.transpose(1, 2).reshape(batch, frames, dim)), None


def speech_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """The randomly initialised encoder of `config`; of an encoder-decoder model, the encoder half."""
    model = AutoModel.from_config(config)
    encoder = model.get_encoder() if config.is_encoder_decoder else model
    for layer in encoder.encoder.layers if FAMILIES[config.model_type].position_bias else ():
        old = layer.attention
        sizes = (old.embed_dim, old.num_heads, old.dropout, old.num_buckets, old.max_distance)
        layer.attention = LinearWavLMAttention(*sizes, hasattr(old, "rel_attn_embed"))
    return encoder


def front_end(encoder: PreTrainedModel, family: Family, waveforms: Tensor) -> Tensor:
    """(batch, samples) -> (batch, frames, channels)."""
    if not family.rotary:
        return encoder.feature_extractor(waveforms).transpose(1, 2)
    hidden = encoder.groupnorm(torch.tanh(encoder.conv1(waveforms.unsqueeze(1))))
    return F.gelu(encoder.conv3(F.gelu(encoder.conv2(hidden)))).transpose(1, 2)


def add_positions(encoder: PreTrainedModel, family: Family, hidden: Tensor, frame_mask: Tensor) -> Tensor:
    """Input of the first layer of a Transformer with position convolutions, (batch, frames, d)."""
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
    mask = frame_mask[:, None, None, :]  # one row for all frames
    if encoder.config._attn_implementation != "sdpa":
        names = {"config": encoder.config, "inputs_embeds": hidden, "attention_mask": frame_mask}
        # Never skipped: to find out whether there is padding, the host would have to wait for the device.
        mask = create_bidirectional_mask(**names, allow_is_bidirectional_skip=False)
    if not family.rotary:
        return {"attention_mask": mask}
    ids, device = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0), hidden.device.type
    # In the type of the products: rotations in float32 would make queries and keys float32 as well.
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    rotary = encoder.rotary_emb(hidden.to(dtype), position_ids=ids)
    return {"attention_mask": mask, "position_ids": ids, "position_embeddings": rotary}


class SerMtlModel(PreTrainedModel):
    """A speech encoder with a CTC head, a head for each classification task, and adapters if the config has them."""

    config_class = SerMtlConfig
    base_model_prefix = "ser_mtl"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    accepts_loss_kwargs = False  # else the Trainer takes the loss to be scaled for accumulation by the model
    spec_augment: Callable[[Tensor, Tensor], Tensor] | None = None  # in training, of what enters the Transformer

    def __init__(self, config: SerMtlConfig):
        super().__init__(config)
        if "asr" in config.tasks and not config.vocab_size:
            raise ValueError("tasks 'asr': needs vocab_size")
        self.family = FAMILIES[config.encoder_config.model_type]
        self.encoder = speech_encoder(config.encoder_config)
        dim, layers = config.encoder_config.hidden_size, self.transformer_layers()
        classes = {task: len(config.labels[task]) for task in config.classification_tasks}
        self.heads = nn.ModuleDict({task: TaskHead(config, dim, n) for task, n in classes.items()})
        self.ctc_head = nn.Linear(dim, config.vocab_size) if config.vocab_size else None
        self.fusion = Fusion(config, classes["emotion"]) if config.fusion == "concat" else None
        if config.bottleneck_dim:
            # Beside the encoder, not in it: inside, the encoder's own initialisation would overwrite the zeros.
            self.layer_adapters = nn.ModuleList(BottleneckAdapter(dim, config.bottleneck_dim) for _ in layers)
            for index, layer in enumerate(layers):
                getattr(layer, self.family.feed_forward).register_forward_hook(partial(self._adapt, index))
            self.fingerprint = BaseFingerprint(8 * sum(1 for _ in self.encoder.parameters()))
        self.layer_weights = LayerWeights(len(layers) + 1) if config.layer_weights else None
        self.register_load_state_dict_pre_hook(_refuse_wrong_base)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, BaseFingerprint | LayerWeights):
            init.zeros_(module.values if isinstance(module, BaseFingerprint) else module.weights)
        elif isinstance(module, nn.Linear):
            init.zeros_(module.weight) if isinstance(module, ZeroLinear) else init.xavier_uniform_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)

    def _adapt(self, index: int, module: nn.Module, args: tuple, output: Tensor) -> Tensor:
        return self.layer_adapters[index](output)

    def get_input_embeddings(self) -> None:
        """None: waveforms are not looked up in a table. PEFT asks."""

    def front_end_modules(self) -> list[nn.Module]:
        """Modules of the convolutional front end, in the order of the data."""
        return [module for name in self.family.front_end for module in getattr(self.encoder, name).modules()]

    def front_end_parameters(self) -> list[nn.Parameter]:
        """Parameters of the convolutional front end, which finetuning usually leaves as they are."""
        return [p for module in self.front_end_modules() for p in module.parameters(recurse=False)]

    def transformer_layers(self) -> nn.ModuleList:
        """The Transformer layers, first to last."""
        return self.encoder.get_submodule(self.family.stack).layers

    def convolutions(self) -> list[tuple[int, int]]:
        """Kernel size and stride of each convolution of the front end."""
        return [(c.kernel_size[0], c.stride[0]) for c in self.front_end_modules() if isinstance(c, nn.Conv1d)]

    def frame_lengths(self, sample_lengths: Tensor) -> Tensor:
        """Number of frames that the front end makes of so many samples, at least 1. (batch,) -> (batch,)."""
        for kernel, stride in self.convolutions():
            sample_lengths = (sample_lengths - kernel) // stride + 1
        return sample_lengths.clamp(min=1)

    def extract_features(self, input_values: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the front end: (batch, samples) at 16 kHz and the mask of real samples -> features, real frames (batch,).

        Features are (batch, frames, channels). A front end that normalises over time sees each utterance alone.
        """
        mask = torch.ones_like(input_values, dtype=torch.long) if attention_mask is None else attention_mask
        lengths = mask.sum(dim=1).long()
        field = reduce(lambda n, c: (n - 1) * c[1] + c[0], self.convolutions()[::-1], 1)
        waveforms = F.pad(input_values, (0, max(0, field - input_values.shape[1])))
        trained = torch.is_grad_enabled() and any(p.requires_grad for p in self.front_end_parameters())
        with torch.set_grad_enabled(trained):
            if any(isinstance(module, nn.GroupNorm) for module in self.front_end_modules()):
                alone = zip(waveforms, lengths.clamp(min=field).tolist(), strict=True)
                rows = [front_end(self.encoder, self.family, row[None, :n])[0] for row, n in alone]
                features = nn.utils.rnn.pad_sequence(rows, batch_first=True)
            else:
                features = front_end(self.encoder, self.family, waveforms)
        return features, self.frame_lengths(lengths)

    def encode(self, features: Tensor, frame_lengths: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Run the Transformer: features (batch, frames, channels) -> f (batch, frames, d), real frames, hidden states.

        f is the output of the last layer, after the final norm if there is one; with `layer_weights`, the average.
        """
        encoder, family = self.encoder, self.family
        frame_mask = torch.arange(features.shape[1], device=features.device) < frame_lengths.unsqueeze(1)
        hidden = features if family.rotary else encoder.feature_projection(features)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        if self.training and self.spec_augment is not None:
            hidden = self.spec_augment(hidden, frame_lengths)
        states = [hidden if family.rotary else add_positions(encoder, family, hidden, frame_mask)]
        arguments = layer_arguments(encoder, family, states[0], frame_mask)
        for layer in self.transformer_layers():
            output = layer(states[-1], **arguments)
            if family.position_bias:
                output, arguments["position_bias"] = output
            states.append(output)
        last_norm = family.rotary or getattr(encoder.config, "do_stable_layer_norm", False)
        frames = encoder.get_submodule(family.stack).layer_norm(states[-1]) if last_norm else states[-1]
        return frames if self.layer_weights is None else self.layer_weights(states), frame_mask, tuple(states)

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        frame_lengths: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        **task_labels: Tensor | None,
    ) -> SerMtlOutput | tuple:
        """Run all heads on waveforms, (batch, samples) with a mask of real samples, or on features.

        `features` and `frame_lengths` are those of `extract_features`. `<task>_labels` are (batch,), -100 for "not
        annotated", or soft ones as `classification_loss` takes them; `asr_labels` (batch, characters), padded with
        -100. `labels` are emotion's.
        """
        if labels is not None and task_labels.setdefault("emotion_labels", labels) is not labels:
            raise TypeError("forward() got labels and emotion_labels, which are the same")
        targets = {task: task_labels.pop(f"{task}_labels", None) for task in {**self.config.labels, "asr": None}}
        if task_labels:
            raise TypeError(f"forward() got an unexpected keyword argument {next(iter(task_labels))!r}")
        if features is None:
            features, frame_lengths = self.extract_features(input_values, attention_mask)
        frames, frame_mask, states = self.encode(features, frame_lengths)
        outputs = {task: head(frames, frame_mask) for task, head in self.heads.items()}
        embeddings = ModelOutput({task: embedding for task, (embedding, _) in outputs.items()})
        logits = ModelOutput({task: logits for task, (_, logits) in outputs.items()})
        if self.fusion is not None:
            logits["emotion"] = logits["emotion"] + self.fusion(embeddings)
        asr_logits = None if self.ctc_head is None else self.ctc_head(frames)
        states = states if output_hidden_states else None
        calibrated = logits["emotion"] / self.config.temperature if "emotion" in logits else None
        output = SerMtlOutput(None, calibrated, logits, asr_logits, frame_lengths, embeddings, None, states)
        if targets := {task: targets[task] for task in self.config.tasks if targets[task] is not None}:
            output.losses = self._losses(output, targets)
            counts = loss_counts(self.config, targets, torch.full((), len(frames), device=frames.device))
            output.loss = weighted_loss(self.config, output.losses, counts)
        return output if return_dict in (None, True) else output.to_tuple()

    def _losses(self, output: SerMtlOutput, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each loss of every utterance, (batch,)."""
        logits, blank = output.task_logits, self.config.pad_token_id
        losses = {task: classification_loss(logits[task], rows) for task, rows in targets.items() if task != "asr"}
        if "asr" in targets:
            losses["asr"] = ctc_loss(output.asr_logits, output.frame_lengths, targets["asr"], blank)
        if self.config.scl != "none":
            losses["scl"] = self_contrastive_loss(list(output.embeddings.values()), self.config.scl)
        return losses

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, *args, config: SerMtlConfig | None = None, **kwargs):
        """Load a model, an adapter (with the base it names), or, given `config`, a stock encoder under new heads.

        `revision` is that of an adapter, not of its base. A base that the adapter was not trained on is a ValueError.
        """
        name, hub = str(pretrained_model_name_or_path), _hub_arguments(kwargs)
        adapter = kwargs.pop("adapter_kwargs", None) or {}
        if "_adapter_model_path" in adapter:  # an Auto class has put the base, as of today, in the adapter's place
            return cls._from_adapter(adapter["_adapter_model_path"], kwargs | {"revision": adapter.get("revision")})
        if find_adapter_config_file(name, **hub) is not None:
            return cls._from_adapter(name, kwargs)
        known = AutoConfig.from_pretrained(name, trust_remote_code=False, **hub) if config is not None else None
        if known is None or known.model_type == cls.config_class.model_type:
            with torch.device("meta"):  # of what it lacks, new tasks and adapters are not its own
                own = set(cls(cls.config_class.from_pretrained(name, **hub)).state_dict())
            return _loaded_whole(partial(super().from_pretrained, name, *args, config=config), own, kwargs)
        model = cls(config)
        half = "encoder." if config.encoder_config.is_encoder_decoder else ""
        # Some checkpoints lack the mask embedding, which matters in training alone.
        own = {f"{half}{key}" for key in model.encoder.state_dict()} - {"masked_spec_embed"}
        arguments = {"config": config.encoder_config, "dtype": torch.float32, "trust_remote_code": False}
        load = partial(AutoModel.from_pretrained, name, **arguments)
        stock = _loaded_whole(load, own, hub)
        model.encoder.load_state_dict((stock.get_encoder() if half else stock).state_dict())
        model.name_or_path = name
        return model

    @classmethod
    def _from_adapter(cls, name: str, arguments: dict) -> "SerMtlModel":
        from peft import PeftConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict

        hub = _hub_arguments(arguments)
        peft_config = PeftConfig.from_pretrained(name, **hub)
        if peft_config.target_modules != ATTENTION_PROJECTIONS:  # any other pattern could take for ever to match
            raise ValueError("target_modules: are not those of adapters of this project")
        config = cls.config_class.from_pretrained(name, **hub)
        # The very commit that the adapter was trained on, whatever has become of the base since.
        arguments = arguments | {"revision": peft_config.revision}
        model = cls.from_pretrained(peft_config.base_model_name_or_path, config=config, **arguments)
        inject_adapter_in_model(peft_config, model)
        model.peft_config, model._hf_peft_config_loaded = {"default": peft_config}, True
        weights = load_file(cached_file(name, "adapter_model.safetensors", **hub), device=str(model.device))
        # PEFT's names are those inside a PeftModel; here the adapters are in the model itself.
        weights = {key.removeprefix("base_model.model."): value for key, value in weights.items()}
        own = get_peft_model_state_dict(model, save_embedding_layers=False).keys()
        _refuse_lost(sorted(own - weights.keys()), len(own), sorted(weights.keys() - own))
        set_peft_model_state_dict(model, weights)
        return model.eval()

    def base_fingerprint(self) -> Tensor:
        """Eight values of each of the encoder's own tensors, in float32: shape (8 x tensors,)."""
        tensors = [p.detach().flatten() for name, p in self.encoder.named_parameters() if "lora_" not in name]
        picks = [torch.linspace(0, t.numel() - 1, 8, device=t.device).round().long() for t in tensors]
        return torch.cat([t[i].float() for t, i in zip(tensors, picks, strict=True)])


def _loaded_whole(load: Callable, own: set[str], arguments: dict) -> Any:
    """What `load` loads. If its checkpoint does not hold the `own` tensors in their shapes, a ValueError."""
    names = {WRAPPERS: "", **(arguments.get("key_mapping") or {})}
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # no report on what the checkpoint lacks by design: heads, a decoder
    try:
        more = {"output_loading_info": True, "ignore_mismatched_sizes": True, "key_mapping": names}
        model, info = load(**arguments | more)
    finally:
        logging.set_verbosity(verbosity)
    mismatched = [] if arguments.get("ignore_mismatched_sizes") else info["mismatched_keys"]
    shapes = {key: f"{key} of {tuple(there)} for {tuple(here)}" for key, there, here in mismatched}
    lost = [shapes.get(key, key) for key in sorted(own & {*shapes, *info["missing_keys"]})]
    others = sorted({*info["unexpected_keys"]} - own)
    _refuse_lost(lost, len(own), others)
    if further := [key for key in others if re.sub(r"\blayers\.\d+", "layers.0", key) in own]:
        raise ValueError(f"{len(further)} tensors are of layers that the config does not have ({_listed(further)})")
    return (model, info) if arguments.get("output_loading_info") else model


def _refuse_lost(lost: list[str], total: int, others: list[str]) -> None:
    """Raise if tensors are not in a checkpoint, which holds `others`: they would stay random, without a word."""
    if lost:
        there = f"; {len(others)} there are of no use ({_listed(others)})" if others else ""
        raise ValueError(f"{len(lost)} of {total} tensors are missing or of another shape ({_listed(lost)}){there}")


def _listed(names: list[str]) -> str:
    return ", ".join(names if len(names) < 6 else [*names[:2], "...", *names[-2:]])


def _refuse_wrong_base(model: SerMtlModel, state: dict, prefix: str, *_) -> None:
    """Before adapter weights are loaded: raise if this model is not the base that they were trained on."""
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


def _hub_arguments(arguments: dict) -> dict:
    names = ("revision", "token", "cache_dir", "force_download", "local_files_only")
    return {name: arguments[name] for name in names if name in arguments}


AutoConfig.register(SerMtlConfig.model_type, SerMtlConfig, exist_ok=True)
SerMtlConfig.register_for_auto_class()
SerMtlModel.register_for_auto_class("AutoModelForAudioClassification")
