"""Checks of a saved model's files before transformers and PEFT read them.

Both read them unchecked: a wrong type fails far from its file, a size may exceed any memory, and a pattern of names may
take forever to match. Adapters of this project have one pattern: it is compared, not run.
"""

from typing import Annotated, Any, Literal, NotRequired, Required

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import LocalEntryNotFoundError
from pydantic import AfterValidator, Field
from transformers import CONFIG_MAPPING
from transformers.utils import cached_file
from transformers.utils.hub import extract_commit_hash
from typing_extensions import TypedDict

from modeling_ser_mtl import ATTENTION_PROJECTIONS, SerMtlConfig
from ser_mtl.errors import UserError
from ser_mtl.files import read_json
from ser_mtl.model.base import base_of

_MOST_PARAMETERS = 10**10  # of an encoder's layers; the largest public speech encoders have two billion
_DEEPEST = 4  # adapters on adapters on ...

Size = Annotated[int, Field(ge=1, le=2**16)]
Sizes = Annotated[list[Size], Field(min_length=1, max_length=64)]
Vocabulary = Annotated[int, Field(ge=1, le=2**20)]
Probability = Annotated[float, Field(ge=0, le=1)]
Layers = Annotated[int, Field(ge=1, le=512)]


class _Kind(TypedDict):
    model_type: str


class _EncoderConfig(TypedDict, total=False):
    model_type: Required[str]
    _name_or_path: str | None
    hidden_size: Size
    intermediate_size: Size
    num_hidden_layers: Layers
    encoder_num_hidden_layers: Layers
    decoder_num_hidden_layers: Layers
    encoder_layers: Layers
    decoder_layers: Layers
    num_attention_heads: Size
    d_model: Size
    encoder_attention_heads: Size
    decoder_attention_heads: Size
    encoder_ffn_dim: Size
    decoder_ffn_dim: Size
    num_mel_bins: Size
    max_source_positions: Vocabulary
    max_target_positions: Vocabulary
    vocab_size: Vocabulary | None
    max_position_embeddings: Vocabulary
    num_buckets: Vocabulary
    conv_dim: Sizes
    conv_kernel: Sizes
    conv_stride: Sizes
    dropout: Probability
    hidden_dropout: Probability
    attention_dropout: Probability
    activation_dropout: Probability
    feat_proj_dropout: Probability
    layerdrop: Probability
    mask_time_prob: Probability
    mask_feature_prob: Probability
    num_conv_pos_embeddings: Size
    num_conv_pos_embedding_groups: Size


def _small_enough(config: dict) -> dict:
    layers = max(value for name, value in {"layers": 1, **config}.items() if name.endswith("layers"))
    width = config.get("hidden_size", config.get("d_model", 1))
    inner = config.get("intermediate_size", config.get("encoder_ffn_dim", 1))
    if layers * (4 * width * width + 2 * width * inner) > _MOST_PARAMETERS:
        raise ValueError(f"must be a model of fewer than {_MOST_PARAMETERS // 10**9} billion parameters")
    return config


EncoderConfig = Annotated[_EncoderConfig, AfterValidator(_small_enough)]
"""The part of an encoder's `config.json` that is checked."""


class MethodConfig(TypedDict):
    """The checked part of the `config.json` of a model of this project; `SerMtlConfig` checks the rest itself."""

    encoder_config: EncoderConfig
    embedding_dim: NotRequired[Size]
    bottleneck_dim: NotRequired[Size | None]
    vocab_size: NotRequired[Vocabulary | None]
    labels: NotRequired[dict[str, list[str]]]
    value_scales: NotRequired[dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]] | None]
    temperature: NotRequired[Annotated[float, Field(gt=0, le=1e6)]]


Names = list[Annotated[str, Field(min_length=1)]]
Nothing = dict[str, Any] | list | Literal[False] | None


def _empty(value: Any) -> Any:
    if value:
        raise ValueError("must be empty in adapters of this project")
    return value


Empty = Annotated[Nothing, AfterValidator(_empty)]


class AdapterConfig(TypedDict):
    """The part of `adapter_config.json` that is checked."""

    peft_type: Literal["LORA"]
    base_model_name_or_path: Annotated[str, Field(min_length=1)]
    revision: NotRequired[str | None]
    r: Size
    lora_alpha: Annotated[float, Field(ge=-1e6, le=1e6)]
    target_modules: Literal[ATTENTION_PROJECTIONS, "all-linear"] | Names  # type: ignore[valid-type]
    modules_to_save: NotRequired[Names | None]
    rank_pattern: NotRequired[Empty]  # patterns of names too
    alpha_pattern: NotRequired[Empty]
    layers_pattern: NotRequired[Empty]
    exclude_modules: NotRequired[Empty]
    target_parameters: NotRequired[Empty]
    layers_to_transform: NotRequired[Empty]
    layer_replication: NotRequired[Empty]
    megatron_config: NotRequired[Empty]  # names a module, which would be imported


class _Preprocessor(TypedDict, total=False):
    feature_extractor_type: str | None
    processor_class: str | None
    sampling_rate: Annotated[int, Field(ge=1, le=10**6)]
    feature_size: Size
    padding_value: Annotated[float, Field(ge=-1e6, le=1e6)]
    do_normalize: bool
    return_attention_mask: bool


class _Processor(TypedDict, total=False):
    feature_extractor: _Preprocessor


class _Index(TypedDict):
    weight_map: dict[str, Annotated[str, Field(pattern=r"^[^/\\]+$")]]


_Ids = dict[str, Annotated[int, Field(ge=0, le=2**20)]]
SCHEMAS: dict[str, Any] = {
    "vocab.json": _Ids,
    "added_tokens.json": _Ids,
    "tokenizer_config.json": dict,
    "special_tokens_map.json": dict,
    "preprocessor_config.json": _Preprocessor,
    "processor_config.json": _Processor,
    "model.safetensors.index.json": _Index,
    "adapter_config.json": AdapterConfig,
}


def check_saved(model: str, revision: str | None = None, base: str | None = None) -> None:
    """Check the JSON files of a model, and of those under its adapters.

    Args:
        model: folder or Hub id.
        revision: on the Hub.
        base: folder or Hub id under its adapters, if they do not name it.

    Raises:
        UserError: a file is damaged, or the model is of an earlier system.
        OSError: there is no such model.
        ValueError: it needs code of its own. Both are for `hub_errors` to turn into a line.
    """
    names = [model]
    while True:
        config = _config_of(names[-1], revision)
        commit = extract_commit_hash(config, None)
        found = {name: file_of(names[-1], name, revision, commit) for name in SCHEMAS}
        for name, file in found.items():
            if file is not None:
                read_json(file, SCHEMAS[name])
        if config:
            kind = read_json(config, _Kind)
            if "research" in kind:
                raise UserError(
                    f"{names[-1]}: has the {kind['research']}, of an earlier system, and cannot be used alone"
                )
            if "auto_map" in kind and kind["model_type"] not in CONFIG_MAPPING:
                raise ValueError(f"{names[-1]}: would need trust_remote_code")
            read_json(config, MethodConfig if kind["model_type"] == SerMtlConfig.model_type else EncoderConfig)
        if found["adapter_config.json"] is None:
            return
        adapter = read_json(found["adapter_config.json"])
        below = base_of(names[-1], base) or adapter["base_model_name_or_path"]
        names, revision, base = [*names, below], None if base else adapter.get("revision"), None
        if len(names) > _DEEPEST:
            raise UserError(f"{names[0]}: its adapters are stacked on {', '.join(names[1:])}, ...; name a merged model")


def file_of(model: str, name: str, revision: str | None = None, commit: str | None = None) -> str | None:
    """The path of a model's file, from its folder or the Hub; None if it has no such file.

    With `commit`, what the cache knows of that commit is taken without asking the Hub.
    """
    return cached_file(model, name, revision=revision, _commit_hash=commit, _raise_exceptions_for_missing_entries=False)


def _config_of(model: str, revision: str | None) -> str | None:
    """The path of a model's `config.json`; None if it has none, as foreign adapters.

    Raises:
        OSError: the Hub cannot be reached and the cache does not have the model. Without this, each further file would
            be asked for in vain too, for half a minute.
    """
    try:
        return cached_file(model, "config.json", revision=revision)
    except OSError as error:
        unreachable = isinstance(error.__cause__, LocalEntryNotFoundError)
        if unreachable and not isinstance(try_to_load_from_cache(model, "adapter_config.json", revision=revision), str):
            raise
        return None
