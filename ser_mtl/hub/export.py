"""Export a run: adapters merged into their base, or as the stock classes of transformers."""

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel
from torch import nn
from transformers import (
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
)

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.files import read_json, replacing, write_json
from ser_mtl.hub.base import Base
from ser_mtl.hub.card import model_card
from ser_mtl.hub.complete import read_results, size_of
from ser_mtl.hub.contents import COMPANIONS
from ser_mtl.model.base import base_of
from ser_mtl.model.processor import load_processor
from ser_mtl.model.quiet_peft import quiet_peft
from ser_mtl.model.saved import check_saved

_STOCK = ("emotion", "ctc")
_OF_A_MODEL = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?|\w+_ser_mtl\.py")


def write_merged(run: Path, folder: Path, base: Base | None = None, base_folder: str | None = None) -> None:
    """Write a run's adapters and their base as one model, with the other files of the run.

    LoRA is added to the weights that it adapts; logits agree up to rounding (1e-5). The bottleneck adapters stay layers
    of the model, because no weight can hold them.

    Args:
        run: folder of a finished run.
        folder: where the model is written; it replaces an earlier one.
        base: the base on the Hub, for the card.
        base_folder: folder of the base; by default, the one that the adapters name.

    Raises:
        UserError: the run has no adapters, or their base cannot be loaded.
    """
    results = read_results(run) | {"merged": True} | ({"stage1": base.repo_id} if base and base.of_stage1 else {})
    if "asr" not in results["tasks"]:  # transcripts came from the frozen model, which is gone
        results["test"] = {group: _without_asr(scores) for group, scores in results["test"].items()}
        results["base_transcribes"] = False
    if not (run / "adapter_config.json").is_file():
        raise UserError(
            f"publish --merge, export --to merged: {run} holds a whole model; there are no adapters to merge"
        )
    check_place(folder, "results.json")
    with _replacing_folder(folder) as partial:
        merged_model(run, base_folder).save_pretrained(partial)
        for name in COMPANIONS:
            if (run / name).is_file():
                shutil.copy2(run / name, partial)
        results["size"] = size_of(partial, results)
        write_json(partial / "results.json", results)
        (partial / "README.md").write_text(model_card(results), encoding="utf-8")


def _without_asr(scores: dict) -> dict:
    return {group: value for group, value in scores.items() if not group.startswith("asr")}


def merged_model(run: Path, base: str | None = None) -> SerMtlModel:
    """The model of a run with adapters, LoRA merged.

    Raises:
        UserError: the adapters or their base cannot be loaded, or do not belong together.
    """
    with hub_errors(f"{run}: its adapters and their base cannot be merged"):
        check_saved(str(run), base=base)
        adapter = PeftConfig.from_pretrained(str(run))
        config = SerMtlConfig.from_pretrained(run)
        name = base_of(run, base)
        revision = adapter.revision if name == adapter.base_model_name_or_path else None
        brought = tuple(adapter.modules_to_save or ())
        model = SerMtlModel.from_pretrained(name, config=config, revision=revision, _in_adapter=brought)
        with quiet_peft():
            return PeftModel.from_pretrained(model, str(run)).merge_and_unload().eval()


def write_wav2vec2(run: Path, folder: Path) -> list[Path]:
    """Write stock models with the logits of a run's model, up to 1e-5: `emotion`, and `ctc` if it transcribes.

    For an encoder with group norm (wav2vec2-base), only unpadded input gives the same logits, because padding changes
    the group norm of the stock classes.

    Returns:
        Their folders.

    Raises:
        UserError: names the part of the model that the stock classes lack.
    """
    read_results(run)
    check_place(folder, "emotion/config.json")
    with hub_errors(f"--to wav2vec2: {run} cannot be loaded"):
        check_saved(str(run))
        config = SerMtlConfig.from_pretrained(run)
    if config.encoder_config.model_type != "wav2vec2":
        raise UserError(f"--to wav2vec2: the encoder of {run} is not a wav2vec2 ({config.encoder_config.model_type})")
    of_layers = config.layer_weights or config.layer_statistics
    if of_layers or "emotion" not in config.tasks:
        reason = "has heads on all of the encoder's layers" if of_layers else "was not trained for emotion"
        instead = ", or train with --layer_statistics False" if config.layer_statistics else ""
        raise UserError(
            f"--to wav2vec2: {run} {reason}, so the stock classes cannot hold it; publish it as it is{instead}"
        )
    if config.bottleneck_dim:
        raise UserError(
            f"--to wav2vec2: {run} has bottleneck adapters, which the stock classes lack; publish it "
            "as it is, export it with --to merged, or export its stage 1"
        )
    with hub_errors(f"--to wav2vec2: {run} cannot be loaded"):
        model = SerMtlModel.from_pretrained(run).eval()
        processor = load_processor(str(run), f"--to wav2vec2: {run}")
    stock = {"emotion": (stock_classifier(model), processor.feature_extractor)}
    if model.ctc_head is not None:
        stock["ctc"] = (stock_ctc(model), processor)
    with _replacing_folder(folder) as partial:
        for name, (exported, preprocessing) in stock.items():
            exported.save_pretrained(partial / name)
            preprocessing.save_pretrained(partial / name)
    return [folder / name for name in stock]


@torch.no_grad()
def stock_classifier(model: SerMtlModel) -> Wav2Vec2ForSequenceClassification:
    """The emotion logits of a model without adapters, calibrated.

    The stock class projects each frame and then takes the mean. Ours takes the mean and then projects, which is the
    same for a linear projection. Fusion is one classifier on the concatenated x_e, x_g and x_s, so on concatenated
    projections.
    """
    tasks = ["emotion", *(model.fusion.parts if model.fusion is not None else [])]
    projections = [model.heads[task].projection for task in tasks]
    classifiers = [
        model.heads["emotion"].classifier,
        *(model.fusion.parts.values() if model.fusion is not None else []),
    ]
    names = dict(enumerate(model.config.labels["emotion"]))
    stock = Wav2Vec2ForSequenceClassification(
        _stock_config(
            model,
            classifier_proj_size=len(tasks) * model.config.embedding_dim,
            id2label=names,
            label2id={name: i for i, name in names.items()},
        )
    )
    stock.wav2vec2.load_state_dict(model.encoder.state_dict())
    _fill(stock.projector, torch.cat([p.weight for p in projections]), torch.cat([p.bias for p in projections]))
    temperature = model.config.temperature
    weight = torch.cat([c.weight for c in classifiers], dim=1)
    _fill(stock.classifier, weight / temperature, classifiers[0].bias / temperature)
    return stock.eval()


@torch.no_grad()
def stock_ctc(model: SerMtlModel) -> Wav2Vec2ForCTC:
    """The CTC logits of a model without adapters, which has a CTC head."""
    if (head := model.ctc_head) is None:
        raise ValueError("the model has no CTC head")
    stock = Wav2Vec2ForCTC(
        _stock_config(model, vocab_size=model.config.vocab_size, pad_token_id=model.config.pad_token_id)
    )
    stock.wav2vec2.load_state_dict(model.encoder.state_dict())
    _fill(stock.lm_head, head.weight, head.bias)
    return stock.eval()


def _stock_config(model: SerMtlModel, **more) -> Wav2Vec2Config:
    encoder = model.config.encoder_config.to_dict()
    for name in ("model_type", "_name_or_path", "architectures", "id2label", "label2id"):
        encoder.pop(name, None)
    return Wav2Vec2Config(**encoder | more)


def check_place(folder: Path, sign: str) -> None:
    """Check that an export would replace nothing but an earlier export.

    Args:
        folder: to write to.
        sign: a file of an earlier export: "emotion/config.json", or the "results.json" of a merged model.

    Raises:
        UserError: the folder holds something else.
    """
    if os.path.lexists(os.path.realpath(folder)) and not folder.is_dir():  # a loop of links is there too
        raise UserError(f"{folder}: is a file or a loop of links; name a folder with --output_dir")
    inside = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    ours = set(_STOCK) if sign != "results.json" else {"README.md", "published.json", *COMPANIONS, sign}
    earlier = (folder / sign).is_file() and (sign != "results.json" or read_json(folder / sign).get("merged") is True)
    others = sorted(name for name in inside - ours if not (sign in inside and _OF_A_MODEL.fullmatch(name)))
    if others or (inside and not earlier):
        what = (others or sorted(inside))[0]
        raise UserError(f"{folder}: holds files of no earlier export ({what}); name another folder with --output_dir")


@contextmanager
def _replacing_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `folder`, an earlier export of the same run, when the block ends."""
    folder = Path(os.path.realpath(folder))  # replaces the target of a link, not the link
    with replacing(folder) as partial:
        partial.mkdir()
        yield partial
        if folder.is_dir():
            shutil.rmtree(folder)


def _fill(layer: nn.Linear, weight: torch.Tensor, bias: torch.Tensor) -> None:
    layer.weight.copy_(weight)
    layer.bias.copy_(bias)
