"""Flags: each of transformers' works or is refused in one line, and no odd value gets past the command line."""

from dataclasses import fields
from types import SimpleNamespace

import pytest
import torch
from helpers.tiny import check_one_line, run_flags, run_script
from helpers.trainers import noise_trainer
from transformers import TrainerState, TrainingArguments

from ser_mtl.errors import UserError
from ser_mtl.training import checks, flags
from ser_mtl.training.arguments import CorpusArguments, SerMtlArguments
from ser_mtl.training.beginning import Beginning
from ser_mtl.training.flags import PASSED_ON, REFUSED, WORKS, default_of
from ser_mtl.training.stage import Stage1, Stage2


def settings(**more) -> SerMtlArguments:
    return SerMtlArguments(**{"output_dir": "out", "use_cpu": True} | more)


# ------------------------------------------------------------------------------------------- every flag is decided


def test_every_flag_of_transformers_has_one_decision():
    decisions = [*WORKS, *PASSED_ON, *REFUSED]
    assert len(decisions) == len(set(decisions))
    assert {one.name for one in fields(TrainingArguments)} - set(decisions) == set()


@pytest.mark.parametrize("name", sorted(REFUSED.keys() & {one.name for one in fields(TrainingArguments)}))
def test_a_refused_flag_is_one_line_when_it_is_set(name):
    default = default_of(next(one for one in fields(SerMtlArguments) if one.name == name))
    value = (not default) if isinstance(default, bool) else "sequential" if "sampling" in name else "1"
    with pytest.raises(UserError, match=f"^--{name} [^\n]*$"):
        settings(**{name: value})


def test_a_refused_number_is_refused_as_zero_too():
    with pytest.raises(UserError, match="--neftune_noise_alpha 0"):
        settings(neftune_noise_alpha=0.0)


def test_a_flag_of_a_new_release_is_refused_until_it_is_decided(monkeypatch):
    monkeypatch.setattr(flags, "WORKS", WORKS - {"max_grad_norm"})
    with pytest.raises(UserError, match=r"--max_grad_norm 2\.0: is new in transformers"):
        settings(max_grad_norm=2.0)


@pytest.mark.parametrize(
    ("values", "needed"),
    [
        ({"logging_steps": 10}, "--logging_strategy steps"),
        ({"eval_steps": 10}, "--eval_strategy steps"),
        ({"save_steps": 10}, "--save_strategy steps"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 5}, "constant_with_warmup"),
        ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"a": 1}}, "--lr_scheduler_type"),
        ({"selection": "last", "metric_for_best_model": "emotion_wa"}, "--selection dev or oracle"),
        ({"selection": "last", "early_stopping_patience": 3}, "--selection dev or oracle"),
        ({"optim_target_modules": "all-linear"}, "--optim galore_adamw"),
        ({"activation_checkpointing_kwargs": {"offload": True}}, "--activation_checkpointing"),
        ({"run_name": "mine"}, "--report_to"),
        ({"project": "mine"}, "--report_to trackio"),
        ({"hub_model_id": "ada/model"}, "--push_to_hub"),
        ({"dataloader_persistent_workers": True}, "--dataloader_num_workers"),
        ({"dataloader_prefetch_factor": 2}, "--dataloader_num_workers"),
        ({"selection": "last", "greater_is_better": True}, "--selection dev or oracle"),
        ({"ddp_timeout": 60}, "several processes"),
        ({"ddp_find_unused_parameters": True}, "several processes"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_flag_that_does_nothing_without_another_names_it(values, needed):
    with pytest.raises(UserError, match=f"does nothing without .*{needed}"):
        settings(**values)


@pytest.mark.parametrize(
    ("make", "values", "needed"),
    [
        (Stage1, {"lora_rank": 8}, "--trainable adapters"),
        (Stage1, {"trainable": "heads", "bottleneck_dim": 8}, "--trainable adapters"),
        (Stage1, {"scl_weight": 0.5}, "--scl cos"),
        (Stage2, {"scl": "none", "scl_weight": 0.5}, "--scl cos"),
        (Stage2, {"tasks": ["emotion"], "aux_weight": 0.2}, "another of --tasks"),
        (Stage2, {"ctc_scale": "batch"}, "asr among --tasks"),
        (
            CorpusArguments,
            {"fold": 1, "corpus": "folder", "data_dir": ["a"], "distinct_speakers": True},
            "several folders",
        ),
        (
            CorpusArguments,
            {"fold": 1, "corpus": "folder", "data_dir": ["a"], "no_check_counts": True},
            "counts are publ",
        ),
    ],
    ids=str,
)
def test_a_flag_of_the_method_or_corpus_that_does_nothing_is_refused(make, values, needed):
    with pytest.raises(UserError, match=f"^--{list(values)[-1]} .*does nothing without .*{needed}"):
        make(**values)


def test_flags_that_do_something_pass(monkeypatch):
    args = settings()
    args.ddp_timeout = 60
    ddp = [need for need in flags._NEEDS if "ddp_timeout" in need[0]]
    with pytest.raises(UserError, match="several processes"):
        flags.refuse_without(args, ddp)
    monkeypatch.setenv("WORLD_SIZE", "2")
    flags.refuse_without(args, ddp)
    Stage1(trainable="adapters", lora_rank=8)
    Stage2(scl_weight=0.5, aux_weight=0.2)
    CorpusArguments(fold=1, corpus="folder", data_dir=["a", "b"], distinct_speakers=True)
    CorpusArguments(fold=1, no_check_counts=True)


def test_workers_that_cannot_inherit_the_corpus_are_refused():
    with pytest.raises(UserError, match=r"--dataloader_multiprocessing_context spawn: .*use fork"):
        settings(dataloader_multiprocessing_context="spawn", dataloader_num_workers=1)


def test_a_tracker_that_is_not_installed_is_named():
    with pytest.raises(UserError, match="--report_to no_such_tracker: is not installed"):
        settings(report_to="no_such_tracker")


@pytest.mark.parametrize(
    ("values", "idle"),
    [
        ({"optim": "sgd", "adam_beta1": 0.8}, "adam_beta1"),
        ({"optim": "sgd", "optim_args": "speed=3"}, "optim_args"),
        ({"optim_args": "beta3=0.9"}, "optim_args"),
    ],
    ids=str,
)
def test_a_setting_that_the_optimizer_never_reads_is_refused(tmp_path, values, idle):
    with pytest.raises(UserError, match=f"--{idle} .*does not read it"):
        noise_trainer(tmp_path, **values).create_optimizer()


# ----------------------------------------------------------------------------------------------------- odd values


ODD = [
    *(("adam_epsilon", value) for value in (-1, 0, float("nan"))),
    *(("data_seed", value) for value in (-1, 2**32)),
    *(("num_train_epochs", value) for value in (0, float("inf"), float("nan"), 1e300)),
    *(("max_steps", value) for value in (0, -2)),
    *(("learning_rate", value) for value in (-1, float("inf"), 1e300)),
    *(("dataloader_num_workers", value) for value in (-1, 100_000)),
    *(("eval_accumulation_steps", value) for value in (0, -1)),
    *(("label_smoothing_factor", value) for value in (-0.1, 1)),
    ("max_grad_norm", -1), ("weight_decay", -1), ("warmup_steps", -1), ("warmup_steps", float("nan")),
    ("save_minutes", float("inf")), ("save_total_limit", 0), ("ddp_timeout", 10**12), ("seed", 2**32),
    ("logging_strategy", "daily"), ("eval_strategy", "daily"), ("lr_scheduler_type", "straight"), ("optim", "mine"),
    ("accelerator_config", {"no_such": 1}), ("accelerator_config", {"even_batches": False}),
    ("dataloader_multiprocessing_context", "threads"),
    ("learning_rate", "fast"), ("run_name", ""), ("output_dir", ""), ("hub_token", "a\0b"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), ODD)
def test_an_odd_value_is_named_with_what_the_flag_takes(name, value):
    with pytest.raises(UserError, match=f"^--{name}[^\n]*$"):
        settings(**{name: value})


@pytest.mark.parametrize("name", ["embedding_dim", "lora_rank", "lora_alpha", "bottleneck_dim"])
@pytest.mark.parametrize("value", [0, -1, 1_000_000_000])
def test_a_width_that_is_none_is_named(name, value):
    with pytest.raises(UserError, match=f"--{name} {value}"):
        Stage1(**{name: value})


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_a_weight_that_is_none_is_named(value):
    with pytest.raises(UserError, match="--scl_weight"):
        Stage2(scl_weight=value)


@pytest.mark.parametrize("make", [lambda: Stage2(stage1=""), lambda: Stage1(encoder=""), lambda: Stage1(tasks=[""]),
                                  lambda: CorpusArguments(fold=1, corpus="folder", data_dir=[""])])  # fmt: skip
def test_a_name_that_is_empty_is_not_the_default(make):
    with pytest.raises(UserError, match="is empty"):
        make()


@pytest.mark.parametrize("name", ["fusion", "scl"])
def test_what_needs_two_tasks_is_refused_with_one(name):
    value = {"fusion": "concat", "scl": "cos"}[name]
    for stage in (Stage1, Stage2):
        with pytest.raises(UserError, match=f"--{name} {value}: needs emotion and another task"):
            stage(tasks=["emotion"], **{name: value})
    assert (Stage2().fusion, Stage2().scl) == ("concat", "cos")
    assert (Stage2(tasks=["emotion"]).fusion, Stage2(tasks=["emotion"]).scl) == ("none", "none")


@pytest.mark.parametrize(
    "folder", ["/proc/x", "/dev/null/x", "a" * 300, "there/" + "b" * 300], ids=lambda folder: folder[:12]
)
def test_a_folder_that_cannot_be_made_is_named(tmp_path, monkeypatch, good_corpus, encoder, folder):
    monkeypatch.chdir(tmp_path)
    ended = run_script("run_stage1", run_flags(good_corpus, folder, encoder=encoder))
    check_one_line(ended, "run_stage1", "--output_dir", "name another")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", ["{bad", '{"a": }', '{"a": NaN}'])
def test_a_dict_that_is_not_json_names_its_flag(text):
    with pytest.raises(UserError, match=r"--lr_scheduler_kwargs .*is not JSON"):
        settings(lr_scheduler_kwargs=text)


# ------------------------------------------------------------------------------ nothing is written before it starts


@pytest.mark.parametrize(
    "values",
    [
        {"lr_scheduler_kwargs": {"no_such": 1}},
        {"lr_scheduler_type": "cosine_with_min_lr"},
        {"torch_compile_backend": "no_such"},
        {"optim": "galore_adamw", "optim_target_modules": "all-linear"},  # not installed
        {"optim": "sgd", "optim_args": "momentum"},
        {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"no_such": 1}},
    ],
    ids=str,
)
def test_a_flag_that_fails_as_training_starts_leaves_no_folder(tmp_path, values):
    with pytest.raises(UserError, match=f"--{next(iter(values))}.*training cannot start with it: [^\n]+$"):
        noise_trainer(tmp_path / "a/b", **values).train()
    assert not (tmp_path / "a/b/run").exists()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eval_strategy": "steps", "eval_steps": 100, "save_strategy": "steps", "save_steps": 100}, "no evaluation"),
        ({"eval_delay": 5}, "no evaluation before the last update, 6"),
        ({"warmup_steps": 99}, "--warmup_steps 99: 99 updates are more than the run has, 6"),
    ],
    ids=str,
)
def test_what_would_come_after_the_last_update_is_refused(values, said):
    args, state = settings(**values), TrainerState(max_steps=6, num_train_epochs=2, eval_steps=100)
    with pytest.raises(UserError, match=said):
        Beginning(lambda: None, args).on_train_begin(args, state, None)
    Beginning(lambda: None, settings()).on_train_begin(settings(), state, None)


# ------------------------------------------------------------------------------------------------------- precision


def device_settings(monkeypatch, native: bool, **values) -> SimpleNamespace:
    """What is settled on a machine with a GPU that has bfloat16 in hardware, or only emulates it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or native)
    made = SimpleNamespace(**{"use_cpu": False, "fp16": False, "bf16": None} | values)
    SerMtlArguments._settle_precision(made)  # type: ignore[arg-type]
    return made


def test_bfloat16_is_the_default_where_the_hardware_has_it(monkeypatch):
    assert device_settings(monkeypatch, native=True).bf16 is True
    assert device_settings(monkeypatch, native=False).bf16 is False
    assert device_settings(monkeypatch, native=True, use_cpu=True).bf16 is False


def test_fp16_takes_the_place_of_the_default(monkeypatch):
    made = device_settings(monkeypatch, native=True, fp16=True)
    assert (made.fp16, made.bf16) == (True, False)


def test_the_precision_of_accelerate_launch_takes_the_place_of_the_default(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    made = device_settings(monkeypatch, native=True)
    assert (made.fp16, made.bf16) == (True, False)
    with pytest.raises(UserError, match="--mixed_precision fp16"):
        device_settings(monkeypatch, native=True, use_cpu=True)


def test_a_flag_wins_over_the_precision_of_accelerate_launch(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert settings().bf16 is True
    assert settings(bf16=False).mixed_precision == "no"


def test_fp16_on_a_cpu_is_refused():
    with pytest.raises(UserError, match="--fp16: needs a GPU"):
        settings(fp16=True)


def test_a_number_that_nobody_checked_is_at_least_finite():
    own = {one.name for one in fields(SerMtlArguments) if one.type is float}
    checked = {*checks._ABOVE_ZERO, *checks._RANGES, *checks._PROBABILITIES}
    for name in own - checked - REFUSED.keys():
        with pytest.raises(UserError, match=f"--{name}"):
            settings(**{name: float("nan")})
