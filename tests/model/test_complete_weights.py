"""No tensor stays random without a word: a checkpoint that does not hold a model's tensors is refused, by name."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.encoders import ENCODERS
from helpers.tiny import check_one_line, check_refused, run_flags, run_script
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, Wav2Vec2Config, Wav2Vec2ForCTC

import ser_mtl
from modeling_ser_mtl import SerMtlConfig, SerMtlModel

WRAPPERS = ("module.", "model.", "_orig_mod.", "wav2vec2.", "_orig_mod.module.model.wav2vec2.")


def changed(folder: Path, copy: Path, change, file: str = "model.safetensors") -> Path:
    """A copy of a model's folder with other weights."""
    shutil.copytree(folder, copy)
    save_file(change(load_file(copy / file)), copy / file, metadata={"format": "pt"})
    return copy


def under(prefix: str):
    return lambda weights: {prefix + name: value for name, value in weights.items()}


def without(part: str):
    return lambda weights: {name: value for name, value in weights.items() if part not in name}


def with_more_layers(weights: dict) -> dict:
    more = {name.replace("layers.1.", "layers.2."): value.clone() for name, value in weights.items()}
    return weights | more


def other_shape(weights: dict) -> dict:
    name = next(name for name in weights if name.endswith("feature_projection.projection.weight"))
    return weights | {name: torch.zeros(32, 5)}


def on_stock(encoder: Path) -> SerMtlModel:
    return SerMtlModel.from_pretrained(encoder, config=SerMtlConfig(encoder_config=AutoConfig.from_pretrained(encoder)))


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_names_of_wrappers_in_front_are_known(encoder, finished, tmp_path, prefix):
    assert same(on_stock(changed(encoder, tmp_path / "encoder", under(prefix))).encoder, on_stock(encoder).encoder)
    again = SerMtlModel.from_pretrained(changed(finished, tmp_path / "stage1", under(prefix)))
    assert same(again, SerMtlModel.from_pretrained(finished))


CHANGES = {
    "another prefix": (under("speech."), ["50 of 50 tensors", "encoder.layer_norm.bias", "speech.encoder.layer"]),
    "layers missing": (without("encoder.layers.1."), ["16 of 50 tensors", "encoder.layers.1.attention.k_proj.bias"]),
    "other shapes": (other_shape, ["1 of 50 tensors", "projection.weight of (32, 5) for (32, 16)"]),
    "layers beyond": (with_more_layers, ["16 tensors are of layers that the config", "encoder.layers.2.attention"]),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_an_encoder_that_does_not_match_is_refused(good_corpus, encoder, tmp_path, kind):
    change, named = CHANGES[kind]
    broken = changed(encoder, tmp_path / "encoder", change)
    with pytest.raises(ValueError, match=r"tensors are"):
        on_stock(broken)
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "out", encoder=broken), f"--encoder {broken}", *named)


@pytest.mark.parametrize("kind", [*CHANGES, "a head missing"])
def test_a_stage1_that_does_not_match_is_refused_and_not_used(good_corpus, finished, tmp_path, kind):
    change, named = CHANGES.get(kind, (without("heads."), ["4 of 57 tensors", "heads.emotion.classifier.bias"]))
    broken = changed(finished, tmp_path / "stage1", change)
    named = [name.replace("50", "57") for name in named if "norm" not in name and not name.startswith("speech")]
    flags = run_flags(good_corpus, tmp_path / "out", stage1=broken)
    check_refused("run_stage2", flags, f"--stage1 {broken}", *named)
    with pytest.raises(ser_mtl.UserError, match=r"\Amodel [^\n]* tensors are [^\n]*\Z"):
        ser_mtl.load(broken)


@pytest.mark.parametrize("part", ["layers.1.attention.q_proj.lora_B", "layer_adapters.1", "heads.gender"])
def test_adapters_that_lack_tensors_are_refused(finished2, tmp_path, part):
    broken = changed(finished2, tmp_path / "stage2", without(part), "adapter_model.safetensors")
    (tmp_path / "a.wav").touch()
    check_one_line(run_script("predict", [tmp_path, "--model", broken]), "predict", f"--model {broken}", part)


def test_adapters_of_stage1_that_lack_tensors_are_refused(good_corpus, encoder, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "whole", encoder=encoder, trainable="adapters", num_train_epochs=1)
    assert run_script("run_stage1", flags).code == 0
    for part in ("layers.1.", "heads.emotion.classifier", "ctc_head"):
        broken = changed(tmp_path / "whole", tmp_path / part, without(part), "adapter_model.safetensors")
        flags = run_flags(good_corpus, tmp_path / "out", stage1=broken)
        check_refused("run_stage2", flags, f"--stage1 {broken}", "tensors of its adapters are missing", part)


@pytest.mark.parametrize("family", ENCODERS)
def test_a_stock_encoder_of_every_family_is_complete(tmp_path, family):
    torch.manual_seed(0)
    stock = AutoModel.from_config(ENCODERS[family])
    stock.save_pretrained(tmp_path)
    half = stock.get_encoder() if stock.config.is_encoder_decoder else stock
    assert same(on_stock(tmp_path).encoder, half)


def test_heads_of_others_and_a_missing_mask_embedding_are_no_fault(encoder, tmp_path):
    config = Wav2Vec2Config.from_pretrained(encoder, vocab_size=20, mask_time_prob=0.0)
    stock = Wav2Vec2ForCTC(config)
    stock.save_pretrained(tmp_path)
    assert "wav2vec2.masked_spec_embed" not in load_file(tmp_path / "model.safetensors")
    Wav2Vec2Config.from_pretrained(encoder, mask_time_prob=0.1).save_pretrained(tmp_path)
    kept = {name: value for name, value in on_stock(tmp_path).encoder.state_dict().items() if "masked" not in name}
    assert all(torch.equal(value, stock.wav2vec2.state_dict()[name]) for name, value in kept.items())


def test_loading_info_is_given_to_who_asks_for_it(finished):
    model, info = SerMtlModel.from_pretrained(finished, output_loading_info=True)
    assert isinstance(model, SerMtlModel) and info["missing_keys"] == set()
