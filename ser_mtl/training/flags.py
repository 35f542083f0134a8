"""Every flag of transformers' `TrainingArguments` either works or is refused in one line.

A flag that is accepted and does nothing is worse than one that does not exist. So each field is in one of the three
tables below, and `tests/training/test_flags.py` fails for a field of a new release that is in none; until it is added,
it is refused.
"""

import os
from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import MISSING, Field, fields
from typing import Any

from transformers import Trainer, TrainingArguments
from transformers.integrations import get_available_reporting_integrations

from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS

WORKS = {
    "output_dir", "num_train_epochs", "max_steps", "learning_rate", "warmup_steps", "weight_decay", "adam_beta1",
    "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor", "gradient_accumulation_steps", "seed",
    "data_seed", "per_device_train_batch_size", "per_device_eval_batch_size", "eval_accumulation_steps",
    "torch_empty_cache_steps", "activation_checkpointing", "gradient_checkpointing", "bf16", "fp16", "tf32",
    "use_cpu", "logging_strategy", "logging_steps", "logging_first_step", "log_on_each_node", "log_level",
    "log_level_replica", "disable_tqdm", "report_to", "run_name", "project", "trackio_space_id",
    "trackio_bucket_id", "trackio_static_space_id", "eval_strategy", "eval_steps", "eval_delay", "eval_on_start",
    "save_strategy", "save_steps", "save_total_limit", "load_best_model_at_end", "metric_for_best_model",
    "greater_is_better", "do_eval", "resume_from_checkpoint", "enable_jit_checkpoint", "push_to_hub", "hub_token",
    "hub_model_id", "hub_private_repo", "skip_memory_metrics", "dataloader_num_workers", "dataloader_pin_memory",
    "dataloader_multiprocessing_context", "dataloader_persistent_workers", "dataloader_prefetch_factor",
    "ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_timeout",
}  # fmt: skip
"""Flags that do what transformers says, with the values that `ser_mtl.training.arguments` accepts."""

PASSED_ON = {
    "lr_scheduler_type", "lr_scheduler_kwargs", "optim", "optim_args", "optim_target_modules",
    "activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "accelerator_config",
    "ddp_backend", "ddp_static_graph", "full_determinism", "torch_compile",
    "torch_compile_backend", "torch_compile_mode",
}  # fmt: skip
"""Flags whose values other libraries check when training starts; their errors are turned into one line."""

_OF_TEXT = "is for language models"
_NO_SHARDING = "each process holds the whole model; use DistributedDataParallel, that is, no such flag"
REFUSED = {
    "average_tokens_across_devices": "every loss is an exact mean over all devices, always",
    "bf16_full_eval": "an evaluation has the precision of the training: --bf16",
    "fp16_full_eval": "an evaluation has the precision of the training: --fp16",
    "use_liger_kernel": _OF_TEXT,
    "liger_kernel_config": _OF_TEXT,
    "use_cache": _OF_TEXT,
    "neftune_noise_alpha": "adds noise to embeddings of tokens, and a speech encoder has none; see --mask_time_prob",
    "auto_find_batch_size": "would change the utterances of an update; set --per_device_train_batch_size and "
    "--gradient_accumulation_steps",
    "logging_nan_inf_filter": "would hide a loss that is not finite; the run stops there instead",
    "include_num_input_tokens_seen": _OF_TEXT,
    "prediction_loss_only": "metrics need the predictions",
    "eval_do_concat_batches": "metrics need the predictions of all batches together",
    "eval_use_gather_object": "predictions are tensors",
    "include_for_metrics": "metrics need no more than the predictions",
    "batch_eval_metrics": "UA is a mean over the whole set, not over its batches",
    "save_only_model": "a run could not be resumed without its optimizer",
    "save_on_each_node": "the nodes must share the folder of the run",
    "hub_strategy": "a finished run is published in one commit",
    "hub_always_push": "a finished run is published in one commit",
    "hub_revision": "a run is published on the main branch",
    "ignore_data_skip": "a resumed run trains on the rest of its epoch",
    "restore_callback_states_from_checkpoint": "the states that matter are always restored",
    "parallelism_config": _NO_SHARDING,
    "fsdp": _NO_SHARDING,
    "fsdp_config": _NO_SHARDING,
    "deepspeed": _NO_SHARDING,
    "dataloader_drop_last": "would leave test utterances out of the metrics; drop it",
    "dataloader_in_order": "the seed determines the order of the batches",
    "remove_unused_columns": "the collator needs all columns",
    "label_names": "rows come back beside the predictions",
    "train_sampling_strategy": "batches are always groups of similar length",
    "length_column_name": "lengths are taken from the audio",
    "debug": "the run stops by itself where a loss or a gradient is not finite",
    "do_train": "the scripts always train; drop it",
    "do_predict": "the scripts always predict the test fold; drop it",
    "local_rank": "accelerate launch sets it; drop it",
}  # fmt: skip
"""Flags that must keep their default, and why."""

DERIVED = {"do_eval", "load_best_model_at_end", "greater_is_better"}
"""Flags that follow from others; every `args.json` has them."""


def default_of(one: Field) -> Any:
    """The default of a dataclass field."""
    return one.default_factory() if one.default_factory is not MISSING else one.default


def _is_nothing(value: Any) -> bool:
    """Whether a parser, a file or transformers means by this value that a flag is not set. Zero is a value."""
    return value is None or value is False or value in ("", "no", [], {})


def changed(args: Any, names: Iterable[str]) -> dict[str, Any]:
    """The flags of a dataclass among `names` that are not at their default, with their values."""
    chosen = set(names)
    values = {one.name: (getattr(args, one.name), default_of(one)) for one in fields(args) if one.name in chosen}
    return {
        name: value
        for name, (value, default) in values.items()
        if value != default and not (_is_nothing(value) and _is_nothing(default))
    }


def flags_to_blame(args: TrainingArguments) -> str:
    """The flags in use that only other libraries check, as the beginning of a message; empty if there are none."""
    passed_on = changed(args, PASSED_ON).items()
    words = [f"--{name} {_value(value)}" for name, value in passed_on if not _settled(name, value)]
    return f"{' '.join(words)}: " if words else ""


def _settled(name: str, value: Any) -> bool:
    """Whether this project, not the user, has set a flag."""
    return name == "accelerator_config" and (value == {"non_blocking": True} or not isinstance(value, dict | str))


def refuse_idle_flags(args: TrainingArguments) -> None:
    """Refuse the flags that would have no effect, or a harmful one.

    Args:
        args: a subclass of `TrainingArguments`, before its own `__post_init__` has changed the values.

    Raises:
        UserError: names the flag and the reason.
    """
    of_transformers = {one.name for one in fields(TrainingArguments)}
    for name, value in changed(args, of_transformers - WORKS - PASSED_ON).items():
        reason = REFUSED.get(name, "is new in transformers, and this project does not know what it would do; drop it")
        raise UserError(f"--{name} {value}: {reason}")
    refuse_without(args, _NEEDS)
    _check_trackers(args)


Needs = tuple[tuple[str, ...], Callable[[Any], bool], str]
"""Flags that do nothing without another one: their names, whether that one is set, and its name."""


def refuse_without(arguments: Any, needs: Iterable[Needs]) -> None:
    """Refuse the flags of a dataclass that do nothing without another.

    Raises:
        UserError: names both.
    """
    for names, works, needed in needs:
        if (idle := changed(arguments, names)) and not works(arguments):
            name, value = next(iter(idle.items()))
            raise UserError(f"--{name} {value}: does nothing without {needed}; add that or drop --{name}")


def _check_trackers(args: TrainingArguments) -> None:
    there = get_available_reporting_integrations()
    for name in _trackers(args):
        if name not in (*there, "all", "none"):
            raise UserError(
                f"--report_to {name}: is not installed, or not known to transformers; installed: "
                f"{', '.join(there) or 'none'}"
            )


def _trackers(args: TrainingArguments) -> list[str]:
    return [args.report_to] if isinstance(args.report_to, str) else list(args.report_to or [])


def _tracks(*names: str) -> Callable[[TrainingArguments], bool]:
    return lambda args: bool({*_trackers(args)} - {"none"}) if not names else bool({*_trackers(args)} & {*names, "all"})


def _value(choice: Any) -> str:
    """A choice, which may be a string or a member of an enumeration, as a string."""
    return str(getattr(choice, "value", choice))


def _low_rank(args: TrainingArguments) -> bool:
    return _value(args.optim).startswith(("galore", "apollo"))


def _follows_dev(args: TrainingArguments) -> bool:
    return args.lr_scheduler_type in ("reduce_lr_on_plateau", "greedy")


def _several_processes(args: TrainingArguments) -> bool:
    return int(os.environ.get("WORLD_SIZE", 1)) > 1


_NEEDS: list[Needs] = [
    (("logging_steps",), lambda args: args.logging_strategy == "steps", "--logging_strategy steps"),
    (("eval_steps",), lambda args: args.eval_strategy == "steps", "--eval_strategy steps"),
    (("save_steps",), lambda args: args.save_strategy == "steps", "--save_strategy steps"),
    (("eval_delay", "do_eval"), lambda args: args.eval_strategy != "no", "--eval_strategy epoch or steps"),
    (("warmup_steps",), lambda args: not (_follows_dev(args) or args.lr_scheduler_type == "constant"),
     "a schedule that warms up, such as --lr_scheduler_type constant_with_warmup"),
    (("lr_scheduler_kwargs",), lambda args: not _value(args.lr_scheduler_type).startswith("constant"),
     "an --lr_scheduler_type that has arguments"),
    (("early_stopping_patience",), lambda args: args.selection != "last", "--selection dev or oracle"),
    (("metric_for_best_model", "greater_is_better"), lambda args: args.selection != "last" or _follows_dev(args),
     "--selection dev or oracle"),
    (("optim_target_modules",), _low_rank, "--optim galore_adamw or apollo_adamw"),
    (("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs"),
     lambda args: args.activation_checkpointing or args.gradient_checkpointing, "--activation_checkpointing"),
    (("run_name",), _tracks(), "--report_to"),
    (("project", "trackio_space_id", "trackio_bucket_id", "trackio_static_space_id"), _tracks("trackio"),
     "--report_to trackio"),
    (("hub_model_id",), lambda args: args.push_to_hub, "--push_to_hub"),
    (("dataloader_persistent_workers", "dataloader_prefetch_factor", "dataloader_multiprocessing_context"),
     lambda args: args.dataloader_num_workers > 0, "--dataloader_num_workers of at least 1"),
    (("ddp_find_unused_parameters", "ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_timeout", "ddp_backend",
      "ddp_static_graph"), _several_processes, "several processes (accelerate launch --num_processes 2)"),
]  # fmt: skip

ADAPTERS: Needs = (
    ("lora_rank", "lora_alpha", "bottleneck_dim"), lambda stage: stage.trainable == "adapters", "--trainable adapters"
)  # fmt: skip
SCL: Needs = (("scl_weight",), lambda stage: stage.scl != "none", "--scl cos or norm")
AUXILIARY: Needs = (
    ("aux_weight",), lambda stage: "emotion" in stage.tasks and len(stage.tasks) > 1, "emotion and another of --tasks"
)  # fmt: skip
CTC: Needs = (("ctc_scale",), lambda stage: "asr" in stage.tasks, "asr among --tasks")
WEIGHTS: Needs = (
    ("class_weights",), lambda stage: any(TASKS[task].kind == "classes" for task in stage.tasks), "a task with classes"
)  # fmt: skip
CORPUS: list[Needs] = [
    (("distinct_speakers",), lambda corpus: len(set(corpus.data_dir or [])) > 1, "several folders in --data_dir"),
    (("no_check_counts",), lambda corpus: corpus.corpus not in ("folder", "hub", "demo"),
     "a --corpus whose counts are published, such as iemocap"),
]  # fmt: skip


def refuse_idle_optimizer_flags(args: TrainingArguments, model: Any) -> None:
    """Refuse a setting that the chosen optimizer never reads, such as `--adam_beta1` with SGD.

    Raises:
        UserError: names both flags.
    """
    settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    if {"params", "model", "optimizer_dict"} & set(settings[1]):  # hold tensors, which do not compare
        return
    defaults = {one.name: default_of(one) for one in fields(args)}
    for name, value in changed(args, ("adam_beta1", "adam_beta2", "adam_epsilon", "optim_args")).items():
        without = copy(args)
        setattr(without, name, defaults[name])
        if Trainer.get_optimizer_cls_and_kwargs(without, model) == settings:
            raise UserError(
                f"--{name} {value}: --optim {_value(args.optim)} does not read it; drop it, or use another --optim"
            )
