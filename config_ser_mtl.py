"""The base class of `SerMtlConfig`, with transformers 4.50 and every newer version: types, labels, format.

The config itself is in `modeling_ser_mtl.py`. This file travels to the Hub beside it and needs nothing else of this
project.
"""

import math
from collections.abc import Iterable
from copy import deepcopy
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin

from transformers import AutoConfig, PretrainedConfig
from transformers.utils.versions import require_version

require_version("transformers>=4.50")

FORMAT = 1
"""The format that `save_pretrained` writes. Code that changes it raises this number and still reads older formats."""

PIPELINES = {
    "speech-emotion": {"impl": "pipeline_ser_mtl.SpeechEmotionPipeline", "pt": ["AutoModelForAudioClassification"]}
}
"""The tasks of `transformers.pipeline` that a saved model comes with code for."""

LABEL_NAMES = ("labels", "id2label", "label2id", "num_labels")
"""The arguments of a config that give labels."""
_OF_TRANSFORMERS = {"torch_dtype", "attn_implementation", "experts_implementation", "auto_map", "_commit_hash"}
"""Arguments that transformers passes to a config although they are not among its attributes."""


def _fits(value: Any, kind: Any) -> bool:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any or origin is ClassVar:
        return True
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inner)
    if origin is list:
        return isinstance(value, list | tuple) and all(_fits(item, inner[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_fits(k, inner[0]) and _fits(v, inner[1]) for k, v in value.items())
    if kind in (int, float):
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, type(None) if kind is None else kind)


_ID2LABEL = dict[int | str, str] | None
_MOST_LABELS = 10_000


class BaseConfig(PretrainedConfig):
    """A config as in transformers 5.4 and later, a dataclass of the annotated fields, with any version from 4.50 on."""

    if not hasattr(PretrainedConfig, "__post_init__"):

        def __init__(self, **kwargs):
            vars(self).update({name: kwargs.pop(name, getattr(self, name)) for name in type(self).__annotations__})
            self.__post_init__(**kwargs)

        def __post_init__(self, **kwargs):
            own = dict(vars(self))
            super().__init__(**kwargs)
            vars(self).update(own)  # transformers 4 has values of its own for pad_token_id and temperature

    @staticmethod
    def refuse_unknown(arguments: dict) -> None:
        """Refuse an argument that transformers does not know either, and set our pipelines in place of a file's.

        The values of a file may come from another release of transformers, and are let through.
        """
        stock, from_file = PretrainedConfig(), "transformers_version" in arguments or "model_type" in arguments
        unknown = [name for name in arguments if not hasattr(stock, name) and name not in _OF_TRANSFORMERS]
        arguments.pop("format", None)
        arguments["custom_pipelines"] = deepcopy(PIPELINES)  # `transformers.pipeline` changes it
        if not isinstance(arguments.get("auto_map"), dict | None):
            raise ValueError(f"auto_map {arguments['auto_map']!r}: must be a dict")
        if unknown and not from_file:
            raise ValueError(f"{', '.join(unknown)}: unknown to SerMtlConfig and to transformers")

    def check_types(self, kinds: dict[str, Any]) -> None:
        """Check the values against their annotations; a wrong one is a ValueError."""
        for name, kind in kinds.items():
            if not _fits(value := getattr(self, name), kind):
                number = {int, float} & {kind, *get_args(kind)}
                raise ValueError(
                    f"{name} {value!r}: must be {'a number' if number else getattr(kind, '__name__', kind)}"
                )

    @staticmethod
    def encoder_config_of(values: Any, families: Iterable[str]) -> PretrainedConfig | None:
        """The encoder's config, built from a dict if need be; a wrong one is a ValueError."""
        if values is None or isinstance(values, PretrainedConfig):
            return values
        if not isinstance(values, dict):
            raise ValueError(f"encoder_config {values!r}: must be a config or a dict")
        values = dict(values)
        family = values.pop("model_type", None)
        if not isinstance(family, str) or family not in families:
            raise ValueError(f"encoder {family!r}: must be one of {', '.join(families)}")
        try:
            return AutoConfig.for_model(family, **values)
        except Exception as error:  # whatever the class makes of a wrong type
            raise ValueError(f"encoder_config: {' '.join(str(error).split())!r}") from error

    def emotion_labels(self, kwargs: dict) -> list[str] | None:
        """The labels of emotion: ours, or those under one of transformers' names for them, which must agree.

        The names of transformers are taken out of `kwargs`. None for a model without emotion.
        """
        kinds = {"id2label": _ID2LABEL, "label2id": dict[str, int] | None, "num_labels": int | None}
        given = {}
        for name, kind in kinds.items():  # in this order: transformers counts id2label for num_labels
            given[name] = kwargs.pop(name) if name in kwargs else getattr(self, name, None)
            if not _fits(given[name], kind):
                raise ValueError("id2label, label2id, num_labels: must be dicts and a number")
        id2label, label2id, num_labels = given.values()
        if not -1 < (num_labels or 0) <= _MOST_LABELS:
            raise ValueError(f"num_labels {num_labels}: must be from 0 to {_MOST_LABELS}")
        for numbers in ([*map(int, id2label or ())], [*(label2id or {}).values()]):
            if sorted(numbers) != [*range(len(numbers))]:
                raise ValueError(f"id2label, label2id: {numbers} must be 0, 1, 2 and so on, each once")
        indices = label2id or {}
        by_name = [(self.labels or {}).get("emotion"), sorted(indices, key=indices.__getitem__)]
        by_name.append([id2label[i] for i in sorted(id2label, key=int)] if id2label else None)
        names = [list(labels) for labels in by_name if labels]
        if any(labels != names[0] for labels in names) or (names and num_labels not in (None, len(names[0]))):
            raise ValueError(f"labels, id2label, label2id, num_labels: disagree ({names}, {num_labels})")
        if names or ((self.labels or self.value_scales) and "emotion" not in self.tasks):
            return names[0] if names else None
        return [f"LABEL_{i}" for i in range(num_labels)] if num_labels else ["angry", "happy", "neutral", "sad"]

    def check_label_names(self) -> None:
        """Raise ValueError if emotion's labels have been changed in `labels` or `id2label` alone."""
        if "emotion" in self.labels and [*self.id2label.values()] != self.labels["emotion"]:
            raise ValueError(f"labels {self.labels}, id2label {self.id2label}: disagree")

    def impossible_scales(self) -> list[str]:
        """The tasks in `value_scales` that have labels, or whose scale is not a mean and a positive deviation."""
        scales, others = self.value_scales or {}, {"asr", "emotion", *self.labels}

        def is_scale(scale: list[float]) -> bool:
            return len(scale) == 2 and all(map(math.isfinite, scale)) and scale[1] > 0

        return [task for task, scale in scales.items() if task in others or not is_scale(scale)]

    @classmethod
    def from_dict(cls, config_dict: dict, **kwargs):
        """As in transformers. Labels given under one of `LABEL_NAMES` replace the saved ones under all."""
        _check_format(config_dict.get("format", 1))
        config_dict = {name: value for name, value in config_dict.items() if name != "format"}
        given = {name: value for name in LABEL_NAMES if (value := kwargs.pop(name, None)) is not None}
        labels = dict(config_dict.get("labels") or {})
        if given and given != {"num_labels": len(labels.get("emotion", []))}:
            config_dict = {name: value for name, value in config_dict.items() if name not in LABEL_NAMES}
            if {*given} != {"labels"}:
                labels.pop("emotion", None)
            own = given.get("labels", {})
            config_dict |= given | {"labels": labels | own if isinstance(own, dict) else own}
        return super().from_dict(config_dict, **kwargs)

    def to_diff_dict(self) -> dict:
        """The values that `save_pretrained` writes."""
        return super().to_diff_dict() | {"format": FORMAT, "custom_pipelines": PIPELINES}


def _check_format(format: int) -> None:
    if format > FORMAT:
        raise ValueError(
            f"the model has format {format}, and this modeling_ser_mtl.py reads up to {FORMAT}: take a newer one; "
            "an adapter runs the one of its base, so publish that again, or pass code_revision="
        )
