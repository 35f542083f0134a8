"""Freezing parts of a model, and adding adapters to it through PEFT."""

from collections.abc import Collection

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)

from modeling_ser_mtl import ATTENTION_PROJECTIONS, SerMtlConfig, SerMtlModel
from ser_mtl.model.quiet_peft import quiet_peft
from ser_mtl.training.checks import local_or_hub


def attach_adapters(
    model: SerMtlModel,
    base: str,
    lora_rank: int,
    lora_alpha: int,
    save_ctc_head: bool = False,
    revision: str | None = None,
) -> PeftModel:
    """Freeze a model, add LoRA to its attention, and make its adapters, FC layers and classifiers trainable.

    The CTC head is trained too if speech recognition is among the tasks; otherwise it is frozen.

    Args:
        model: built with `bottleneck_dim`.
        base: Hub id or folder of the frozen weights, named in the saved adapter.
        lora_rank: rank of LoRA.
        lora_alpha: LoRA's output is scaled by `lora_alpha / lora_rank`.
        save_ctc_head: save the CTC head with the adapters even if it is frozen, because the base has none.
        revision: commit of a base on the Hub, also named in the saved adapter.
    """
    with torch.no_grad():
        model.fingerprint.values.copy_(model.base_fingerprint())
    trained = [f"heads.{task}" for task in model.heads]
    trained += [f"layer_adapters.{index}" for index in range(len(model.layer_adapters))]
    trained += ["fingerprint", *(name for name in ("fusion", "layer_weights") if getattr(model, name) is not None)]
    trains_ctc_head = "asr" in model.config.tasks
    trained += ["ctc_head"] if trains_ctc_head or save_ctc_head else []
    config = LoraConfig(
        r=lora_rank,
        lora_alpha=lora_alpha,
        target_modules=ATTENTION_PROJECTIONS,
        modules_to_save=trained,
        revision=revision,
    )
    model.name_or_path = local_or_hub(base)  # PEFT names the base by this
    with quiet_peft():
        adapted = get_peft_model(model, config)
    if model.ctc_head is not None and not trains_ctc_head:
        model.ctc_head.requires_grad_(False)
    return adapted


def continue_adapters(model: PeftModel, adapter: str, config: SerMtlConfig, new: Collection[str] = ()) -> None:
    """Load the adapters of another run on the same base; heads that it does not have stay as they are.

    Args:
        model: with adapters of the same sizes.
        adapter: folder or Hub id of the other run.
        config: of the other run.
        new: tasks that have other labels in that run: their classifiers stay as they are.

    Raises:
        ValueError: the other run lacks tensors that it should have.
    """
    parts = [
        "lora_",
        ".layer_adapters.",
        ".layer_weights.",
        *(f".heads.{task}." for task in (*config.classification_tasks, *config.value_tasks)),
    ]
    parts += [".ctc_head."] if config.vocab_size else []
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    kept = [f".heads.{task}.classifier." for task in new] + ([".fusion."] if "emotion" in new else [])
    theirs = load_peft_weights(adapter, device="cpu")
    theirs = {name: value for name, value in theirs.items() if not any(part in name for part in kept)}
    shared = [name for name in own if any(part in name for part in parts) and not any(part in name for part in kept)]
    if lost := sorted(set(shared) - set(theirs)):
        raise ValueError(f"{len(lost)} of {len(shared)} tensors of its adapters are missing ({lost[0]}, ...)")
    # PEFT wants every module, so those missing in the other run come from the model itself.
    set_peft_model_state_dict(model, own | theirs)


def freeze_for_full_finetuning(model: SerMtlModel, train_front_end: bool) -> None:
    """Make everything trainable except parts that no loss reaches and, without `train_front_end`, the front end."""
    model.requires_grad_(True)
    if not train_front_end:
        for parameter in model.front_end_parameters():
            parameter.requires_grad_(False)
    if model.ctc_head is not None and "asr" not in model.config.tasks:
        model.ctc_head.requires_grad_(False)
    # Heads on all layers do not see the norm after the last one; only CTC does, unless it sees the layers' average.
    of_layers = model.layer_weights is not None or (model.config.layer_statistics and "asr" not in model.config.tasks)
    if of_layers and model.has_last_norm():
        model.encoder.get_submodule(model.family.stack).layer_norm.requires_grad_(False)
    masked = getattr(model.encoder, "masked_spec_embed", None)
    if masked is not None and not model.config.encoder_config.mask_time_prob:
        masked.requires_grad_(False)
    if model.longest_input is not None:
        model.encoder.embed_positions.requires_grad_(False)  # sinusoids, as in Whisper itself


def freeze_encoder(model: SerMtlModel) -> None:
    """Make only the heads and the layer weights trainable."""
    model.requires_grad_(True)
    model.encoder.requires_grad_(False)


def unwrap(model: SerMtlModel | PeftModel) -> SerMtlModel:
    """The `SerMtlModel` inside a PEFT model, or the model itself."""
    return model.get_base_model() if isinstance(model, PeftModel) else model
