"""Steps before a stage 1: what they hear, their masks and units, and the runs that start from them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.encoders import ENCODERS, all_tasks_config
from helpers.tiny import Ended, check_one_line, check_refused, run_flags, run_script
from transformers import MoonshineConfig, Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForPreTraining, set_seed

from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folds import split
from ser_mtl.errors import UserError
from ser_mtl.research.contrastive import Contrastive, ContrastiveCollator
from ser_mtl.research.masked_units import SPAN, MaskedUnits
from ser_mtl.research.units import fit_units, usable

SMALL = {"num_codevectors_per_group": 4, "codevector_dim": 8, "proj_codevector_dim": 8, "num_negatives": 3}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    """A wav2vec2 with the heads of its pretraining."""
    folder = tmp_path_factory.mktemp("pretrained")
    set_seed(0)
    config = Wav2Vec2Config(**ENCODERS["wav2vec2, layer norm"].to_dict() | SMALL)
    Wav2Vec2ForPreTraining(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def pretrain(corpus: Path, output: Path, **flags) -> Ended:
    return run_script("ser_mtl.programs.pretrain", run_flags(corpus, output, num_train_epochs=1, **flags))


# ---------------------------------------------------------------------------------------------------------- parts


def test_units_are_the_same_under_a_seed_whatever_was_drawn_before():
    sample = np.random.default_rng(0).normal(size=(500, 6)).astype(np.float32)
    first = [one.predict(sample) for one in fit_units(sample, [4, 9], seed=3)]
    np.random.rand(10)
    again = [one.predict(sample) for one in fit_units(sample, [4, 9], seed=3)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert [len(set(units)) for units in first] == [4, 9]
    assert not np.array_equal(first[1], fit_units(sample, [9], seed=4)[0].predict(sample))


def test_more_units_than_frames_are_left_out():
    with pytest.warns(match="--units: 600"):
        assert usable([64, 600], 500) == [64]
    with pytest.raises(UserError, match="has only 500 frames"), pytest.warns():
        usable([600], 500)


def test_units_are_predicted_from_masked_frames_alone_and_summed_over_clusterings():
    torch.manual_seed(0)
    model = MaskedUnits(SerMtlModel(all_tasks_config()), [3, 5]).train()
    model.model.encoder.eval()  # no dropout
    features, lengths = torch.randn(2, 50, 16), torch.tensor([50, 40])
    units = torch.stack([torch.randint(3, (2, 50)), torch.randint(5, (2, 50))], dim=-1)
    loss = model(units, features=features, frame_lengths=lengths)["loss"]
    masked = model._masked
    assert masked.any(dim=1).all() and not masked[1, 40:].any() and int(masked[0].sum()) >= SPAN
    assert not any(parameter.requires_grad for parameter in model.model.heads.parameters())
    model.model.spec_augment = lambda hidden, _: torch.where(
        masked.unsqueeze(-1), model.model.encoder.masked_spec_embed, hidden
    )
    frames, _, _ = model.model.encode(features, lengths)
    by_hand = sum(
        F.cross_entropy(head(frames[masked]), units[..., i][masked]) for i, head in enumerate(model.predictors)
    )
    assert loss.item() == pytest.approx(by_hand.item(), rel=1e-4)


def test_crops_are_as_long_as_the_shortest_utterance_and_masked_as_wav2vec2_is(pretrained):
    model = Wav2Vec2ForPreTraining.from_pretrained(pretrained).train()
    collator = ContrastiveCollator(model, Wav2Vec2FeatureExtractor())
    rows = [{"samples": np.arange(n, dtype=np.int16)} for n in (6000, 9000)]
    set_seed(0)
    batch = collator(rows)
    frames = int(model._get_feat_extract_output_lengths(6000))
    assert batch["input_values"].shape == (2, 6000) and batch["mask_time_indices"].shape == (2, frames)
    assert (batch["mask_time_indices"].sum(dim=1) > 10).all()
    torch.manual_seed(0)
    loss = Contrastive(model)(**batch)["loss"]
    torch.manual_seed(0)
    assert loss.item() == pytest.approx((model(**batch).loss / batch["mask_time_indices"].sum()).item())


# ------------------------------------------------------------------------------------------------------------ runs


@pytest.fixture(scope="module")
def tapt(good_corpus, pretrained, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("tapt") / "run"
    ended = pretrain(good_corpus, output, encoder=pretrained, per_device_train_batch_size=24, warmup_steps=0)
    assert ended.code == 0, ended.stderr
    return output


def test_pretraining_hears_the_training_part_of_the_fold_alone(good_corpus, tapt, pretrained):
    parts = split(load_corpus("folder", str(good_corpus)), 1, "dialog")
    record = json.loads((tapt / "split.json").read_text())
    assert record["train"]["ids"] == sorted(parts["train"]["id"]) and not {"dev", "test"} & set(record)
    results = json.loads((tapt / "results.json").read_text())
    assert (results["research"], results["test"]) == ("pretraining, contrastive", {})
    before, after = (Wav2Vec2ForPreTraining.from_pretrained(folder).state_dict() for folder in (pretrained, tapt))
    assert not any(torch.equal(before[name], after[name]) for name in before if "feature_extractor" in name)


def test_a_finished_pretraining_is_not_repeated_nor_published(good_corpus, tapt, pretrained):
    before = (tapt / "model.safetensors").stat().st_mtime_ns
    assert pretrain(good_corpus, tapt, encoder=pretrained, per_device_train_batch_size=24, warmup_steps=0).code == 0
    assert (tapt / "model.safetensors").stat().st_mtime_ns == before
    check_one_line(run_script("publish", [tapt, "--repo_id", "ada/step"]), "publish", "pretraining, contrastive")


def test_stage_1_starts_from_it_but_not_where_another_fold_is_tested(good_corpus, tapt, tmp_path):
    flags = {"encoder": tapt, "tasks": ["emotion"], "max_steps": 1, "selection": "last", "eval_strategy": "no"}
    assert run_script("run_stage1", run_flags(good_corpus, tmp_path / "out", **flags)).code == 0
    check_refused("run_stage1", run_flags(good_corpus, tmp_path / "no", **flags | {"fold": 2}), "--encoder", "test set")


def test_units_come_from_a_run_and_give_an_encoder_for_stage_1(good_corpus, encoder, finished, tmp_path):
    step = {"objective": "units", "encoder": encoder, "units": [4, 8], "per_device_train_batch_size": 24}
    refused = pretrain(good_corpus, tmp_path / "no", frames=finished, fold=2, **step)
    check_one_line(refused, "pretrain", "--frames", "test set")
    ended = pretrain(good_corpus, tmp_path / "units", frames=finished, **step)
    assert ended.code == 0, ended.stderr
    assert json.loads((tmp_path / "units/split.json").read_text())["labels"] == {}
    config = json.loads((tmp_path / "units/config.json").read_text())
    assert config["labels"] == {"emotion": ["speech"]}  # no emotion has been seen
    flags = run_flags(good_corpus, tmp_path / "no", encoder=tmp_path / "units", tasks=["emotion"], fold=2)
    check_refused("run_stage1", flags, "--encoder", "test set")


def test_an_encoder_that_transformers_cannot_pretrain_is_named_in_one_line(good_corpus, tmp_path):
    (tmp_path / "moonshine").mkdir()
    MoonshineConfig(hidden_size=32).save_pretrained(tmp_path / "moonshine")
    ended = pretrain(good_corpus, tmp_path / "out", encoder=tmp_path / "moonshine")
    check_one_line(ended, "pretrain", "moonshine", "cannot be trained with this encoder")
    assert not (tmp_path / "out").exists()
