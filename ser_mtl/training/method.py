"""The model of a run before training, and the config that its stage gives it."""

from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from peft import PeftModel
from transformers import PreTrainedConfig, Wav2Vec2CTCTokenizer, Wav2Vec2Processor
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError
from ser_mtl.training.stage import Stage


class Earlier(NamedTuple):
    """A model of this project that a run starts from, and the flag that names it."""

    flag: str
    model: str


@dataclass
class Start:
    """The model of a run before training, and what belongs to it.

    Attributes:
        model: with its frozen parts frozen.
        processor: feature extractor and tokenizer.
        labels: classes of each classification task.
        encoder: Hub id or folder of the original pretrained encoder.
        base_transcribes: whether the model under the adapters has a CTC head of its own.
        earlier: the model that training continues from; its training utterances must not be held out.
        new_heads: the tasks whose labels differ from the earlier model's.
    """

    model: SerMtlModel | PeftModel
    processor: Wav2Vec2Processor
    labels: dict[str, list[str]]
    encoder: str
    base_transcribes: bool = False
    earlier: Earlier | None = None
    new_heads: tuple[str, ...] = ()


def method_config(
    stage: Stage,
    labels: dict[str, list[str]],
    encoder_config: PreTrainedConfig,
    vocab_size: int | None,
    tokenizer: Wav2Vec2CTCTokenizer,
    scales: dict[str, list[float]] | None = None,
) -> SerMtlConfig:
    """The model's config: the stage's settings that it has too, under the same names, and those of the corpus.

    `scales` are those of `ser_mtl.corpora.targets.value_scales`.
    """
    known = {one.name for one in fields(SerMtlConfig)}
    method: dict[str, Any] = {name: value for name, value in asdict(stage).items() if name in known}
    method["bottleneck_dim"] = stage.bottleneck_dim if stage.trainable == "adapters" else None
    return SerMtlConfig(
        encoder_config=with_overrides(encoder_config, stage),
        labels=labels,
        value_scales=scales,
        vocab_size=vocab_size,
        pad_token_id=tokenizer.pad_token_id,
        frame_heads=stage.trainable == "heads",
        **method
        | {
            "layer_weights": bool(stage.layer_weights) or stage.trainable == "heads",
            "layer_statistics": bool(stage.layer_statistics),
        },
    )


def with_overrides(config: PreTrainedConfig, stage: Stage) -> PreTrainedConfig:
    """The encoder's config with layer drop off, and with the dropout and SpecAugment of the flags.

    Layer drop leaves parameters without a gradient, which training in several processes does not allow.
    """
    config.layerdrop = 0.0
    if stage.dropout is not None:
        for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
            setattr(config, name, stage.dropout)
        if hasattr(config, "dropout"):  # Whisper's name for the first
            config.dropout = stage.dropout
    if not getattr(config, "apply_spec_augment", True):  # Whisper: else turning it on would bring in its probabilities
        config.apply_spec_augment, config.mask_time_prob, config.mask_feature_prob = True, 0.0, 0.0
    for axis, probability in (("time", stage.mask_time_prob), ("feature", stage.mask_feature_prob)):
        if probability is not None:
            setattr(config, f"mask_{axis}_prob", probability)
            # Encoders without SpecAugment of their own (Moonshine) get wav2vec2's spans.
            for name, default in (("length", 10), ("min_masks", 0)):
                if not hasattr(config, f"mask_{axis}_{name}"):
                    setattr(config, f"mask_{axis}_{name}", default)
    return config


def commit_on_hub(model: str) -> str | None:
    """The commit of a repository whose config has been loaded; None for a folder."""
    return extract_commit_hash(cached_file(model, "config.json"), None)


def check_pretrained(model: SerMtlModel, what: str) -> None:
    """Check the weights of a model that training starts from.

    Raises:
        UserError: weights are not finite, or all matrices of the encoder are zero.
    """
    if bad := [name for name, weight in model.named_parameters() if not bool(weight.isfinite().all())]:
        raise UserError(f"{what}: {len(bad)} of its weights are not finite numbers, such as {bad[0]}; load it again")
    if not any(bool(weight.any()) for weight in model.encoder.parameters() if weight.ndim > 1):
        raise UserError(f"{what}: all weight matrices of its encoder are zero; load it again")
