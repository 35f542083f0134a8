"""The fields of the arguments, and the values that each may have."""

import math
import os
from dataclasses import field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ser_mtl.errors import UserError
from ser_mtl.training.flags import default_of


def flag(default: Any, text: str, **more: Any) -> Any:
    """A dataclass field whose help is `text`; `more` are further arguments of argparse, such as `choices`."""
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata={"help": text, **more})
    return field(default=default, metadata={"help": text, **more})


_ABOVE_ZERO = {
    **{"num_train_epochs": 1e6, "adam_epsilon": 1.0, "layer_decay": 1.0},
    **dict.fromkeys(("logging_steps", "eval_steps", "save_steps"), 1e9),
}
"""Largest value of numbers that must be above 0."""

_RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("learning_rate", "max_grad_norm"), (0, 1e30)),
    **dict.fromkeys(("weight_decay", "save_minutes", "scl_weight"), (0, 1e6)),
    **dict.fromkeys(("warmup_steps", "eval_delay", "min_updates"), (0, 1e9)),
    **dict.fromkeys(("seed", "data_seed"), (0, 2**32 - 1)),
    **dict.fromkeys(("embedding_dim", "lora_rank", "lora_alpha", "bottleneck_dim"), (1, 65_536)),
    **dict.fromkeys(("gradient_accumulation_steps", "per_device_eval_batch_size", "eval_accumulation_steps"), (1, 1e6)),
    **dict.fromkeys(("save_total_limit", "torch_empty_cache_steps", "ddp_bucket_cap_mb"), (1, 1e6)),
    "early_stopping_patience": (1, 1e6),
    "aux_weight": (0, 1),
    "per_device_train_batch_size": (0, 1e6),
    "dataloader_num_workers": (0, 256),
    "dataloader_prefetch_factor": (1, 1024),
    "ddp_timeout": (1, 1e7),
    "max_seconds": (0.1, 3600),
}
"""Smallest and largest value of numbers that would otherwise fail late, or exhaust the machine."""

_PROBABILITIES = (
    "dropout", "head_dropout", "mask_time_prob", "mask_feature_prob",
    "adam_beta1", "adam_beta2", "head_start", "label_smoothing_factor",
)  # fmt: skip
"""Shares, from 0 to less than 1."""


def check_values(arguments: Any) -> None:
    """Check every field by itself: types, choices, ranges of numbers, and empty strings.

    Raises:
        UserError: names the flag and the values that it takes.
    """
    annotations = get_type_hints(type(arguments))  # HfArgumentParser changes those of the fields
    for one in fields(arguments):
        value, annotation = getattr(arguments, one.name), annotations[one.name]
        if value == default_of(one) or (value is None and get_origin(annotation) is not Literal):
            continue
        if not isinstance(value, _classes_of(annotation)):
            raise UserError(f"--{one.name} {value!r}: must be {_in_words(annotation)}, not {type(value).__name__}")
        flag_and_value = f"--{one.name} {value!r}" if isinstance(value, str) else f"--{one.name} {value}"
        choices = one.metadata.get("choices") or (get_args(annotation) if get_origin(annotation) is Literal else ())
        if choices and value not in choices:
            raise UserError(f"{flag_and_value}: must be one of {', '.join(choices)}")
        if value == "" or (isinstance(value, list) and "" in value):
            raise UserError(f"--{one.name} '': is empty; give a value or drop it")
        if isinstance(value, str) and "\0" in value:
            raise UserError(f"--{one.name}: holds a NUL character")
        if wanted := _wanted_instead(one.name, value):
            raise UserError(f"{flag_and_value}: must be {wanted}")


def _classes_of(annotation: Any) -> tuple[type, ...]:
    """The classes of the values that a field with this annotation takes."""
    if get_origin(annotation) in (Union, UnionType):
        return tuple(one for option in get_args(annotation) for one in _classes_of(option))
    if annotation is Any or get_origin(annotation) is Literal:
        return (object,)
    known = get_origin(annotation) or annotation
    if not isinstance(known, type):
        return (object,)
    return {float: (float, int), str: (str, os.PathLike), list: (list, tuple)}.get(known, (known,))


def _in_words(annotation: Any) -> str:
    words = {"str": "text", "int": "a whole number", "float": "a number", "bool": "True or False", "list": "a list"}
    names = [one.__name__ for one in _classes_of(annotation) if one not in (os.PathLike, tuple)]
    names = [name for name in names if not (name == "int" and "float" in names)]
    return " or ".join("None" if name == "NoneType" else words.get(name, name) for name in names)


def _wanted_instead(name: str, value: Any) -> str | None:
    """The numbers that a field takes, in words; None if this is one of them."""
    if name not in {*_ABOVE_ZERO, *_RANGES, *_PROBABILITIES}:
        return "a finite number" if isinstance(value, float) and not math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if name in _PROBABILITIES:
        return None if 0 <= value < 1 else "a share, from 0 to less than 1"
    if name in _ABOVE_ZERO:
        return None if 0 < value <= _ABOVE_ZERO[name] else f"a number above 0, at most {_ABOVE_ZERO[name]:g}"
    least, most = _RANGES[name]
    if least <= value <= most:
        return None
    return f"at least {least}" if value < least else f"a number from {least} to {most:.10g}"


def local_or_hub(name: str) -> str:
    """A folder as an absolute path, so that it is found from anywhere; a Hub id as it is."""
    return str(Path(name).resolve() if Path(name).is_dir() else name)
