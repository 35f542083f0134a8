"""What is trained and what is frozen: LoRA and the trained modules through PEFT, and loading what was saved."""

from pathlib import Path

import torch
from peft import (
    LoraConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    load_peft_weights,
    set_peft_model_state_dict,
)

from modeling_ser_mtl import ATTENTION_PROJECTIONS, SerMtlModel


def attach_adapters(
    model: SerMtlModel,
    base: str,
    lora_rank: int,
    lora_alpha: int,
    save_ctc_head: bool = False,
    revision: str | None = None,
) -> PeftModel:
    """Freeze a model and make its adapters, FC layers and classifiers trainable; LoRA is added to the attention.

    The CTC head is trained too where speech recognition is among the tasks, and else left frozen.

    Args:
        model: built with `bottleneck_dim`.
        base: Hub id or folder that the frozen weights come from, named in the saved adapter.
        lora_rank: rank of LoRA.
        lora_alpha: its output is scaled by `lora_alpha / lora_rank`.
        save_ctc_head: save the CTC head with the adapters even where it is frozen, because the base has none.
        revision: commit of a base on the Hub, which the saved adapter then names too.
    """
    with torch.no_grad():
        model.fingerprint.values.copy_(model.base_fingerprint())
    trained = [f"heads.{task}" for task in model.heads]
    trained += [f"layer_adapters.{index}" for index in range(len(model.layer_adapters))]
    trained += ["fingerprint"] + (["fusion"] if model.fusion is not None else [])
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
    adapted = get_peft_model(model, config)
    if model.ctc_head is not None and not trains_ctc_head:
        model.ctc_head.requires_grad_(False)
    return adapted


def continue_adapters(model: PeftModel, adapter: str) -> None:
    """Start from the adapters of another run on the same base; what it did not have stays as it is."""
    # PEFT wants every module, so those that the other run did not have come from the model itself.
    set_peft_model_state_dict(model, get_peft_model_state_dict(model) | load_peft_weights(adapter, device="cpu"))


def freeze_for_full_finetuning(model: SerMtlModel, train_front_end: bool) -> None:
    """Make all trainable but the front end (unless asked for) and what no loss of the tasks reaches."""
    model.requires_grad_(True)
    if not train_front_end:
        for parameter in model.front_end_parameters():
            parameter.requires_grad_(False)
    if model.ctc_head is not None and "asr" not in model.config.tasks:
        model.ctc_head.requires_grad_(False)
    masked = getattr(model.encoder, "masked_spec_embed", None)
    if masked is not None and not model.config.encoder_config.mask_time_prob:
        masked.requires_grad_(False)


def freeze_encoder(model: SerMtlModel) -> None:
    """Make the heads trainable, and the weights of the layers that they average; nothing else."""
    model.requires_grad_(True)
    model.encoder.requires_grad_(False)


def unwrap(model: SerMtlModel | PeftModel) -> SerMtlModel:
    """The `SerMtlModel` inside."""
    return model.get_base_model() if isinstance(model, PeftModel) else model


def local_or_hub(name: str) -> str:
    """A folder as an absolute path, so that the adapter finds it from anywhere; a Hub id as it is."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
