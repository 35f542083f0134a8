"""Multi-task speech emotion recognition on a pretrained speech encoder.

The method of "Enhancing two-stage finetuning for speech emotion recognition using adapters" (Gao, Shi, Chu, Kawahara,
ICASSP 2024), with its equation numbers: config, output, adapters, heads, losses, model. The file travels to the Hub
with the other `*_ser_mtl.py` beside it; the nine need nothing else of this project.

Padding never changes an utterance's result, adapters are exact no-ops until they are trained, and every loss is kept as
one value per utterance, so that the mean over annotated utterances is exact for any batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from itertools import combinations
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoFeatureExtractor, AutoTokenizer, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
from transformers.utils import ModelOutput

try:
    from transformers import initialization as init
except ImportError:  # transformers 4
    from torch.nn import init

try:  # in a repository of the Hub, and in its copies here, the nine files are a package
    from .answers_ser_mtl import infer  # noqa: F401 (files that travel are those named here)
    from .config_ser_mtl import BaseConfig
    from .encoders_ser_mtl import FAMILIES, add_positions, front_end, layer_arguments, speech_encoder
    from .layers_ser_mtl import LayerWeights, layer_statistics, masked_mean
    from .loading_ser_mtl import BaseFingerprint, ByTask, LoadableModel, refuse_wrong_base
    from .pipeline_ser_mtl import SpeechEmotionPipeline  # noqa: F401
    from .recordings_ser_mtl import SAMPLING_RATE  # noqa: F401
    from .segments_ser_mtl import Segment  # noqa: F401
except ImportError:
    try:  # in a clone or a wheel, top-level modules; imports outside a `try`, transformers 4 takes for missing packages
        from config_ser_mtl import BaseConfig
        from encoders_ser_mtl import FAMILIES, add_positions, front_end, layer_arguments, speech_encoder
        from layers_ser_mtl import LayerWeights, layer_statistics, masked_mean
        from loading_ser_mtl import BaseFingerprint, ByTask, LoadableModel, refuse_wrong_base
    except ImportError:
        raise

ATTENTION_PROJECTIONS = r".*layers\.\d+\.(attention|self_attn)\.(q_proj|k_proj|v_proj|out_proj|o_proj)"
"""Where LoRA goes: the four projections of every Transformer layer's attention, under each encoder's names."""
CTC_SCALES = ("characters", "utterance", "batch")  # mean over utterances, per character or whole; sum over the batch


class SerMtlConfig(BaseConfig):
    """The config of a `SerMtlModel`. A value that is unknown or makes no sense is a ValueError."""

    model_type = "ser_mtl"
    sub_configs = {"encoder_config": AutoConfig}  # noqa: RUF012 (transformers reads a plain class attribute)

    encoder_config: Any = None  # a config of transformers, or a dict with its `model_type`
    tasks: list[str] | None = None  # with a loss: "asr", and any with labels or a scale; emotion may be missing
    labels: dict[str, list[str]] | None = None  # classes of each classification task, in the order of its logits
    value_scales: dict[str, list[float]] | None = None  # mean and standard deviation of each value task in training
    vocab_size: int | None = None  # characters of the CTC head; None for a model without one
    pad_token_id: int | None = 0  # CTC's blank
    embedding_dim: int = 256  # width of the task embeddings x
    aux_weight: float = 0.1  # weight of each task except emotion (eqs. 3 to 5)
    ctc_scale: str = "characters"  # one of `CTC_SCALES`
    fusion: str = "none"  # "concat": the emotion classifier sees the embeddings of all tasks
    scl: str = "none"  # form of the self-contrastive loss, a key of `SCL_FORMS`
    scl_weight: float = 1.0
    bottleneck_dim: int | None = None  # width of the bottleneck adapters; None for a model without adapters
    layer_weights: bool = False  # heads see a learned average of all layers
    layer_statistics: bool = False  # heads see the mean and standard deviation over time of all layers, side by side
    frame_heads: bool | None = None  # two layers on every frame before the mean (Pepino et al. 2021); as layer_weights
    head_dropout: float = 0.0  # of the embeddings, before the classifiers
    temperature: float = 1.0  # divides emotion's logits, so that their softmax is calibrated; fitted on dev

    def __post_init__(self, **kwargs):
        self.refuse_unknown(kwargs)
        self.check_types(SerMtlConfig.__annotations__)
        self.encoder_config = self.encoder_config_of(self.encoder_config, FAMILIES)
        self.tasks = ["emotion"] if self.tasks is None else self.tasks
        emotions = self.emotion_labels(kwargs)
        self.frame_heads = self.layer_weights if self.frame_heads is None else self.frame_heads
        self.labels = dict(self.labels or {}) | ({"emotion": emotions} if emotions else {})
        self._check()
        super().__post_init__(**kwargs)
        if emotions:  # under the names that pipelines read
            self.id2label = dict(enumerate(emotions))
            self.label2id = {label: i for i, label in enumerate(emotions)}

    @property
    def classification_tasks(self) -> list[str]:
        """The tasks with a classification head."""
        return [task for task in self.tasks if task not in {"asr", *(self.value_scales or {})}]

    @property
    def value_tasks(self) -> list[str]:
        """The tasks whose head gives one value."""
        return [task for task in self.tasks if task in (self.value_scales or {})]

    def standardised(self, task: str, values: Tensor) -> Tensor:
        """Values of a task with mean 0 and standard deviation 1 in training, as its head gives them."""
        mean, deviation = self.value_scales[task]
        return (values.float() - mean) / deviation

    def _check(self) -> None:
        if not isinstance(self.tasks, list | tuple) or not self.tasks or len({*self.tasks}) < len(self.tasks):
            raise ValueError(f"tasks {self.tasks!r}: must be a list of different names")
        labels = {task: self.labels.get(task) or [] for task in self.classification_tasks}
        values = self.impossible_scales()
        wrong = [task for task, names in labels.items() if not names or len({*names}) < len(names)]
        weight = emotion_weight(self.tasks, self.aux_weight)
        family = getattr(self.encoder_config, "model_type", None)
        for refused, message in (
            (wrong, f"tasks {wrong}: must be 'asr' or have a list of different labels, or a scale"),
            (values, f"value_scales of {values}: must be [mean, standard deviation above 0], of tasks without labels"),
            (family and family not in FAMILIES, f"encoder {family!r}: must be one of {', '.join(FAMILIES)}"),
            (self.layer_statistics and (self.layer_weights or self.frame_heads),
             "layer_statistics: takes the place of layer_weights and frame_heads"),
            (self.fusion not in ("none", "concat"), f"fusion {self.fusion!r}: must be 'none' or 'concat'"),
            (self.scl not in ("none", *SCL_FORMS), f"scl {self.scl!r}: must be 'none' or one of {list(SCL_FORMS)}"),
            ({self.fusion, self.scl} != {"none"} and not ("emotion" in labels and len(labels) > 1),
             "fusion, scl: need emotion and another task with labels"),
            (not 0 < weight <= 1, f"aux_weight {self.aux_weight}: leaves emotion the weight {weight:g}"),
            (self.ctc_scale not in CTC_SCALES, f"ctc_scale {self.ctc_scale!r}: must be one of {list(CTC_SCALES)}"),
            (not 0 <= self.scl_weight < math.inf, f"scl_weight {self.scl_weight}: must not be negative or infinite"),
            (not 0 <= self.head_dropout < 1, f"head_dropout {self.head_dropout}: must be from 0 to less than 1"),
            (not 0 < self.temperature < math.inf, f"temperature {self.temperature}: must be above 0, and finite"),
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
    task_logits: ByTask | None = None  # of each classification task, as they are trained, (batch, classes)
    asr_logits: Tensor | None = None  # (batch, frames, vocabulary)
    frame_lengths: Tensor | None = None  # real frames, (batch,)
    embeddings: ByTask | None = None  # x of each task with a head, (batch, embedding_dim)
    losses: dict[str, Tensor] | None = None  # each loss of every utterance, (batch,), 0 where it is not annotated
    hidden_states: tuple[Tensor, ...] | None = None  # into the first layer and out of each, (batch, frames, d)
    attentions: tuple[Tensor, ...] | None = None  # weights of each layer, (batch, heads, frames, frames)
    task_values: ByTask | None = None  # of each value task, on the scale of its annotations, (batch,)


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


class TaskHead(nn.Module):
    """One task: adapter, mean over real frames, FC layer (giving x), linear classifier, of one output for a value.

    With `frame_heads`: two layers with ReLU on every frame, mean over real frames (giving x), linear classifier.
    """

    def __init__(self, config: SerMtlConfig, dim: int, classes: int):
        super().__init__()
        n = config.embedding_dim
        if config.frame_heads:
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


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each utterance (eq. 2), -sum over classes of target x log softmax(logits).

    (batch, classes) and labels, either (batch,) classes with -100 for "not annotated", or (batch, classes) shares
    that sum to 1, a row of -100 for "not annotated" -> (batch,), 0 where not annotated.
    """
    if labels.is_floating_point():
        return F.cross_entropy(logits.float(), labels.float().clamp(min=0), reduction="none")
    return F.cross_entropy(logits.float(), labels, ignore_index=-100, reduction="none")


def ctc_loss(logits: Tensor, frame_lengths: Tensor, labels: Tensor, blank: int, scale: str = "characters") -> Tensor:
    """CTC of each utterance, at the scale "characters" divided by their number. In float32, for small probabilities.

    (batch, frames, vocabulary), (batch,), (batch, characters) padded with -100 -> (batch,). 0 for an utterance without
    characters, which is not annotated, and for one with more characters than frames, which CTC cannot align.
    """
    real = labels >= 0
    log_probabilities = logits.float().log_softmax(dim=-1).transpose(0, 1)
    arguments = (log_probabilities, labels.masked_fill(~real, blank), frame_lengths, real.sum(dim=1))
    loss = F.ctc_loss(*arguments, blank=blank, reduction="none", zero_infinity=True)
    return (loss / (real.sum(dim=1).clamp(min=1) if scale == "characters" else 1)).masked_fill(~real.any(dim=1), 0)


def concordance_sums(config: SerMtlConfig, task: str, values: Tensor, labels: Tensor) -> Tensor:
    """What `concordance_loss` needs of an update: (batch,) each -> (6,), to be added up over its batches.

    They are, over annotated utterances, their number and the sums of x, x^2, y, y^2 and (x - y)^2.
    """
    x, y = (config.standardised(task, v) for v in (values.detach(), labels))
    terms = torch.stack([torch.ones_like(x), x, x.square(), y, y.square(), (x - y).square()])
    return terms.masked_fill(~labels.isfinite(), 0).sum(dim=1)


def concordance_loss(
    config: SerMtlConfig, task: str, values: Tensor, labels: Tensor, sums: Tensor | None = None
) -> Tensor:
    """(x - y)^2 / D of each utterance, whose mean over the annotated ones is 1 - CCC: (batch,) each -> (batch,).

    x are predicted values and y annotated ones, NaN for "not annotated", both standardised, which leaves the CCC as it
    is. D = var x + var y + (mean x - mean y)^2 (Lin 1989) of the whole update, from its `concordance_sums`; by default,
    of the batch. The gradient is that of 1 - CCC: D's is in it too. 0 throughout if the update's y are all the same.
    """
    sums = concordance_sums(config, task, values, labels) if sums is None else sums
    x, y = config.standardised(task, values), config.standardised(task, labels).nan_to_num()
    mean_x, x2, mean_y, y2, error = (sums[1:] / sums[0].clamp(min=1)).unbind()
    varies = y2 - mean_y.square() > 1e-5 * y2
    d = torch.where(varies, x2 + y2 - 2 * mean_x * mean_y, 1)
    surrogate = x.square() - 2 * mean_y * x  # its mean has D's gradient
    loss = ((x - y).square() - error / d * (surrogate - surrogate.detach())) / d
    return torch.where(varies & labels.isfinite(), loss, 0)


SCL_FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "norm": F.pairwise_distance,
    "cos": lambda a, b: -F.cosine_similarity(a, b, dim=-1),
}
"""Forms of the self-contrastive loss of two embeddings, (batch, n) each -> (batch,): eq. 6 with the plus signs its text
calls for (as printed, minimising it would push the embeddings apart), and eq. 7."""


def self_contrastive_loss(embeddings: list[Tensor], form: str) -> Tensor:
    """Pull the task embeddings of an utterance together: the sum over all pairs, (batch, n) each -> (batch,)."""
    return sum(SCL_FORMS[form](a, b) for a, b in combinations([embedding.float() for embedding in embeddings], 2))


def emotion_weight(tasks: Sequence[str], aux_weight: float) -> float:
    """Weight of emotion's loss beside those of the other tasks: 1 - k a. It must be above 0, and at most 1."""
    return 1 - (len(tasks) - 1) * aux_weight if "emotion" in tasks else 1.0


def loss_weights(config: SerMtlConfig) -> dict[str, float]:
    """Weight of each loss (eqs. 3 to 5): 1 - k a for emotion, a for the k others, SCL's own; 1 / k without emotion."""
    auxiliary = [task for task in config.tasks if task != "emotion"]
    if "emotion" not in config.tasks:
        return dict.fromkeys(auxiliary, 1 / len(auxiliary))
    weights = {"emotion": emotion_weight(config.tasks, config.aux_weight)} | dict.fromkeys(auxiliary, config.aux_weight)
    return weights | ({} if config.scl == "none" else {"scl": config.scl_weight})


def annotated(task: str, labels: Tensor) -> Tensor:
    """Which utterances have a label of the task: (batch,), or rows of characters or shares -> (batch,) bool."""
    if labels.is_floating_point() and labels.dim() == 1:
        return labels.isfinite()
    return (labels >= 0).any(dim=1) if task == "asr" or labels.is_floating_point() else labels >= 0


def loss_counts(config: SerMtlConfig, labels: dict[str, Tensor], utterances: Tensor) -> dict[str, Tensor]:
    """Number of utterances that each loss is a mean over: a task's annotated ones, else all; 0 for CTC as a sum."""
    counts = {task: annotated(task, rows).sum() for task, rows in labels.items()}
    counts |= {name: utterances for name in loss_weights(config) if name not in config.tasks}
    return counts | ({"asr": 0 * utterances} if config.ctc_scale == "batch" else {})


def weighted_loss(config: SerMtlConfig, losses: dict[str, Tensor], counts: dict[str, Tensor | int]) -> Tensor:
    """Sum over losses of weight x (sum of the utterances' losses / number of utterances in `counts`, at least 1)."""
    weights = loss_weights(config)
    counts = {name: torch.as_tensor(counts[name], device=loss.device).clamp(min=1) for name, loss in losses.items()}
    return sum(weights[name] * loss.sum() / counts[name] for name, loss in losses.items())


class SerMtlModel(LoadableModel):
    """A speech encoder with a CTC head, a head for each classification task, and adapters if the config has them."""

    config_class = SerMtlConfig
    base_model_prefix = "ser_mtl"
    main_input_name = "input_values"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    adapted_modules = ATTENTION_PROJECTIONS
    accepts_loss_kwargs = False  # else the Trainer takes the loss to be scaled for accumulation by the model
    spec_augment: Callable[[Tensor, Tensor], Tensor] | None = None  # in training, of what enters the Transformer

    def __init__(self, config: SerMtlConfig):
        super().__init__(config)
        config._check()  # again: transformers sets what `from_pretrained` is given after the config is made
        if "asr" in config.tasks and not config.vocab_size:
            raise ValueError("tasks 'asr': needs vocab_size")
        config.check_label_names()
        self.family = FAMILIES[config.encoder_config.model_type]
        self.encoder = speech_encoder(config.encoder_config)
        dim, layers = config.encoder_config.hidden_size, self.transformer_layers()
        classes = {task: len(config.labels[task]) for task in config.classification_tasks}
        outputs = classes | dict.fromkeys(config.value_tasks, 1)
        seen = 2 * (len(layers) + 1) * dim if config.layer_statistics else dim
        self.heads = nn.ModuleDict({task: TaskHead(config, seen, n) for task, n in outputs.items()})
        self.ctc_head = nn.Linear(dim, config.vocab_size) if config.vocab_size else None
        self.fusion = Fusion(config, classes["emotion"]) if config.fusion == "concat" else None
        if config.bottleneck_dim:
            # Beside the encoder, not in it: inside, the encoder's own initialisation would overwrite the zeros.
            self.layer_adapters = nn.ModuleList(BottleneckAdapter(dim, config.bottleneck_dim) for _ in layers)
            for index, layer in enumerate(layers):
                getattr(layer, self.family.feed_forward).register_forward_hook(partial(self._adapt, index))
            self.fingerprint = BaseFingerprint(8 * sum(1 for _ in self.encoder.parameters()))
        self.layer_weights = LayerWeights(len(layers) + 1) if config.layer_weights else None
        self.register_load_state_dict_pre_hook(refuse_wrong_base)
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

    def front_end_modules(self) -> list[nn.Module]:
        """Modules of the convolutional front end, in the order of the data."""
        return [module for name in self.family.front_end for module in getattr(self.encoder, name).modules()]

    def front_end_parameters(self) -> list[nn.Parameter]:
        """Parameters of the convolutional front end, which finetuning usually leaves as they are."""
        return [p for module in self.front_end_modules() for p in module.parameters(recurse=False)]

    def transformer_layers(self) -> nn.ModuleList:
        """The Transformer layers, first to last."""
        return self.encoder.get_submodule(self.family.stack).layers

    def has_last_norm(self) -> bool:
        """Whether a norm follows the last layer."""
        return not self.family.stack or getattr(self.encoder.config, "do_stable_layer_norm", False)

    def convolutions(self) -> list[tuple[int, int]]:
        """Kernel size and stride of each convolution of the front end."""
        return self.family.convolutions(self.encoder)

    def frame_lengths(self, sample_lengths: Tensor) -> Tensor:
        """Numbers of frames that the front end makes of these numbers of samples, at least 1: (batch,) -> (batch,)."""
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
            features = front_end(self.encoder, self.family, waveforms, lengths.clamp(min=field))
        return features, self.frame_lengths(lengths)

    def encode(self, features: Tensor, frame_lengths: Tensor, keep: bool = True) -> tuple[Tensor, Tensor, tuple]:
        """Run the Transformer: features (batch, frames, channels) -> f (batch, frames, d), real frames, hidden states.

        f is the last layer's output, after its norm if any; with `layer_weights`, the average.
        Without `keep`, only the last hidden state is returned, to save memory; `layer_weights` needs all.
        """
        encoder, family = self.encoder, self.family
        frame_mask = torch.arange(features.shape[1], device=features.device) < frame_lengths.unsqueeze(1)
        hidden = encoder.feature_projection(features) if family.stack else features
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        if self.training and self.spec_augment is not None:
            hidden = self.spec_augment(hidden, frame_lengths)
        states = [add_positions(encoder, family, hidden, frame_mask)]
        arguments = layer_arguments(encoder, family, states[0], frame_mask)
        for layer in self.transformer_layers():
            output = layer(states[-1], **arguments)
            if family.position_bias:
                arguments["position_bias"] = output[1]
            states = [*(states if keep else ()), output[0] if isinstance(output, tuple) else output]
        frames = encoder.get_submodule(family.stack).layer_norm(states[-1]) if self.has_last_norm() else states[-1]
        return frames if self.layer_weights is None else self.layer_weights(states), frame_mask, tuple(states)

    def seen_by_heads(self, frames: Tensor, frame_mask: Tensor, states: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Input of the task heads and its mask, from what `encode` returns. The CTC head sees f."""
        if not self.config.layer_statistics:
            return frames, frame_mask
        return layer_statistics(states, frame_mask), frame_mask[:, :1]

    def forward(
        self,
        input_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        frame_lengths: Tensor | None = None,
        labels: Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **annotations: Tensor | None,
    ) -> SerMtlOutput | tuple:
        """Run all heads on waveforms, (batch, samples) with a mask of real samples, or on features.

        `features` and `frame_lengths` are those of `extract_features`. `<task>_labels` are (batch,), -100 for "not
        annotated", or soft ones as `classification_loss` takes them; of values, with NaN; `asr_labels` (batch,
        characters), padded with -100. `labels` are emotion's.
        """
        if labels is not None and annotations.setdefault("emotion_labels", labels) is not labels:
            raise TypeError("forward() got labels and emotion_labels, which are the same")
        targets = {t: annotations.pop(f"{t}_labels", None) for t in {*self.config.labels, *self.config.tasks, "asr"}}
        if annotations:
            raise TypeError(f"forward() got an unexpected keyword argument {next(iter(annotations))!r}")
        if features is None:
            features, frame_lengths = self.extract_features(input_values, attention_mask)
        flags = {"output_hidden_states": output_hidden_states, "output_attentions": output_attentions}
        flags |= {"return_dict": return_dict}
        flags = {name: getattr(self.config, name) if flag is None else flag for name, flag in flags.items()}
        keep = flags["output_hidden_states"] or self.layer_weights is not None or self.config.layer_statistics
        with self._attentions(flags["output_attentions"]) as attentions:
            frames, frame_mask, states = self.encode(features, frame_lengths, keep)
        seen = self.seen_by_heads(frames, frame_mask, states)
        outputs = {task: head(*seen) for task, head in self.heads.items()}
        embeddings = ByTask(**{task: embedding for task, (embedding, _) in outputs.items()})
        logits = ByTask(**{task: outputs[task][1] for task in self.config.classification_tasks})
        if self.fusion is not None:
            logits["emotion"] = logits["emotion"] + self.fusion(embeddings)
        asr_logits = None if self.ctc_head is None else self.ctc_head(frames)
        states = states if flags["output_hidden_states"] else None
        calibrated = logits["emotion"] / self.config.temperature if "emotion" in logits else None
        output = SerMtlOutput(None, calibrated, logits, asr_logits, frame_lengths, embeddings, None, states)
        output.attentions = tuple(attentions) if flags["output_attentions"] else None
        if scales := {task: self.config.value_scales[task] for task in self.config.value_tasks}:
            values = {t: mean + std * outputs[t][1].squeeze(-1).float() for t, (mean, std) in scales.items()}
            output.task_values = ByTask(**values)
        if targets := {task: targets[task] for task in self.config.tasks if targets[task] is not None}:
            output.losses = self._losses(output, targets)
            counts = loss_counts(self.config, targets, torch.full((), len(frames), device=frames.device))
            output.loss = weighted_loss(self.config, output.losses, counts)
        return output if flags["return_dict"] else output.to_tuple()

    def _losses(self, output: SerMtlOutput, targets: dict[str, Tensor]) -> dict[str, Tensor]:
        """Each loss of every utterance, (batch,)."""
        logits, blank, scale = output.task_logits, self.config.pad_token_id, self.config.ctc_scale
        losses = {task: classification_loss(logits[task], rows) for task, rows in targets.items() if task in logits}
        for task in [task for task in self.config.value_tasks if task in targets]:
            losses[task] = concordance_loss(self.config, task, output.task_values[task], targets[task])
        if "asr" in targets:
            losses["asr"] = ctc_loss(output.asr_logits, output.frame_lengths, targets["asr"], blank, scale)
        if self.config.scl != "none":
            losses["scl"] = self_contrastive_loss([output.embeddings[task] for task in logits], self.config.scl)
        return losses


AutoConfig.register(SerMtlConfig.model_type, SerMtlConfig, exist_ok=True)
AutoFeatureExtractor.register(SerMtlConfig, Wav2Vec2FeatureExtractor, exist_ok=True)  # transformers 4.50 looks here
AutoTokenizer.register(SerMtlConfig, slow_tokenizer_class=Wav2Vec2CTCTokenizer, exist_ok=True)  # likewise
SerMtlConfig.register_for_auto_class()
SerMtlModel.register_for_auto_class("AutoModelForAudioClassification")
