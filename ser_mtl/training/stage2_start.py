"""Where stage 2 starts: the model of stage 1, with new heads and adapters."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel
from transformers import AutoConfig
from transformers.utils import find_adapter_config_file

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.model.base import base_of
from ser_mtl.model.processor import load_processor
from ser_mtl.model.saved import check_saved
from ser_mtl.training.adapters import attach_adapters, continue_adapters, freeze_for_full_finetuning
from ser_mtl.training.earlier_run import check_finished, has_weights
from ser_mtl.training.flags import ADAPTERS, refuse_without
from ser_mtl.training.method import Earlier, Start, check_pretrained, commit_on_hub, method_config
from ser_mtl.training.stage import Stage2

_VIEWS = ("layer_weights", "layer_statistics")
"""Settings of the heads' input: in stage 2 as in stage 1."""


@dataclass
class SavedStage1:
    """A stage-1 model on disk or on the Hub.

    Attributes:
        name: Hub id or folder.
        config: its config.
        lora: its adapter config, if it trained adapters.
        base: Hub id or folder of the weights that stage 2 freezes: its own, or its encoder's if it trained adapters.
        revision: commit of `base` on the Hub.
    """

    name: str
    config: SerMtlConfig
    lora: PeftConfig | None
    base: str
    revision: str | None


def stage2_start(stage: Stage2, labels: dict[str, list[str]], scales: dict[str, list[float]] | None = None) -> Start:
    """The model of stage 1 with the heads, the fusion and the adapters of stage 2; everything else is frozen.

    The adapters of a stage 1 that trained adapters are continued, on the same encoder.

    Raises:
        UserError: the model cannot be loaded, is not of stage 1, or does not fit the corpus or the flags.
    """
    if stage.stage1 is None:
        raise UserError("--stage1: is missing; name the folder or Hub id of the stage-1 model")
    stage1 = read_stage1(stage.stage1)
    check_fits(stage, stage1)
    new = new_heads(stage1, labels)
    with hub_errors(f"--stage1 {stage1.name}: its processor cannot be loaded"):
        processor = load_processor(stage1.name, f"--stage1 {stage1.name}")
    transcribes = stage1.config.vocab_size is not None
    vocab_size = stage1.config.vocab_size or (len(processor.tokenizer) if "asr" in stage.tasks else None)
    config = method_config(stage, labels, stage1.config.encoder_config, vocab_size, processor.tokenizer, scales)
    for view in _VIEWS:
        setattr(config, view, getattr(stage1.config, view))
    if stage1.lora is not None:
        config.bottleneck_dim = stage1.config.bottleneck_dim  # stage 1 has bottlenecks, whatever is trained now
    with hub_errors(f"--stage1 {stage1.name}: the weights in {stage1.base} cannot be loaded"):
        model = load_base(stage1, config, new)
    check_pretrained(model, f"--stage1 {stage1.name}: {stage1.base}")
    model = with_adapters(model, stage, stage1, new)
    if stage.trainable == "all":
        model = model.merge_and_unload() if isinstance(model, PeftModel) else model
        freeze_for_full_finetuning(model, stage.train_front_end)
    encoder: str = getattr(stage1.config.encoder_config, "name_or_path", "")
    transcribes = transcribes and stage1.lora is None
    return Start(model, processor, labels, encoder, transcribes, Earlier("--stage1", stage1.name), new)


def new_heads(stage1: SavedStage1, labels: dict[str, list[str]]) -> tuple[str, ...]:
    """The tasks whose labels differ from stage 1's: their classifiers start anew, which a notice says."""
    own = stage1.config.labels or {}
    theirs = {task: own[task] for task in stage1.config.classification_tasks if task in labels}
    others = {task: names for task, names in theirs.items() if names != labels[task]}
    if others:
        reasons = [f"{task} ({', '.join(names)}; here {', '.join(labels[task])})" for task, names in others.items()]
        notice(f"--stage1 {stage1.name}: has other labels, so these classifiers start anew: {'; '.join(reasons)}")
    return tuple(others)


def load_base(stage1: SavedStage1, config: SerMtlConfig, new: tuple[str, ...]) -> SerMtlModel:
    """The model with the weights that stage 2 freezes; the classifiers of the tasks in `new` are random."""
    load = partial(SerMtlModel.from_pretrained, stage1.base, config=config, revision=stage1.revision)
    if stage1.lora is not None:
        return load(_in_adapter=tuple(stage1.lora.modules_to_save or ()))
    return load(ignore_mismatched_sizes=bool(new))


def with_adapters(
    model: SerMtlModel, stage: Stage2, stage1: SavedStage1, new: tuple[str, ...]
) -> SerMtlModel | PeftModel:
    """The model with new adapters, or with those of stage 1, or as it is if neither stage has any."""
    if stage1.lora is None and stage.trainable != "adapters":
        return model
    save_ctc_head = stage1.lora is not None and model.ctc_head is not None
    adapted = attach_adapters(model, stage1.base, stage.lora_rank, stage.lora_alpha, save_ctc_head, stage1.revision)
    if stage1.lora is not None:
        with hub_errors(f"--stage1 {stage1.name}: its adapters cannot be loaded"):
            continue_adapters(adapted, stage1.name, stage1.config, new)
    return adapted


def read_stage1(name: str) -> SavedStage1:
    """Read the configs of a stage-1 model.

    Raises:
        UserError: there is none, its run is not finished, or it cannot be continued.
    """
    check_finished(Path(name), "--stage1", stage=1)
    with hub_errors(f"--stage1 {name}: no stage-1 model; train one with run_stage1.py, or name its folder or Hub id"):
        check_saved(name)
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    if config.model_type != SerMtlConfig.model_type or (Path(name).is_dir() and not has_weights(Path(name))):
        raise UserError(f"--stage1 {name}: is not a finished stage-1 model of this project")
    if config.frame_heads:
        raise UserError(f"--stage1 {name}: was trained with --trainable heads, which stage 2 cannot continue")
    if find_adapter_config_file(name) is None:
        return SavedStage1(name, config, None, name, commit_on_hub(name))
    lora = PeftConfig.from_pretrained(name)
    return SavedStage1(
        name,
        config,
        lora,
        base_of(name, say="name another stage-1 model") or lora.base_model_name_or_path,
        lora.revision,
    )


def check_fits(stage: Stage2, stage1: SavedStage1) -> None:
    """Check that the sizes of both stages agree.

    Raises:
        UserError: names the flag and the value it must have.
    """
    saved = stage1.config
    sizes: dict[str, Any] = {"embedding_dim": saved.embedding_dim}
    sizes |= {view: getattr(saved, view) for view in _VIEWS if getattr(stage, view) is not None}
    if stage1.lora is None:
        refuse_without(stage, (ADAPTERS,))
    else:
        sizes |= {"bottleneck_dim": saved.bottleneck_dim}
        sizes |= {"lora_rank": stage1.lora.r, "lora_alpha": stage1.lora.lora_alpha}
    for name, value in sizes.items():
        if getattr(stage, name) != value:
            raise UserError(f"--{name} {getattr(stage, name)}: must be {value}, as in --stage1 {stage1.name}")
