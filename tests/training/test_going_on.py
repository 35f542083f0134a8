"""Going on from a model of this project with labels of one's own: its encoder, or all of it but the other labels."""

import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
from helpers.tiny import check_refused, run_flags, run_script, tone, write_corpus
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForAudioClassification

import ser_mtl
from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.corpora import load_corpus
from ser_mtl.corpora.folds import split
from ser_mtl.errors import Notice
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.training.heard import utterances_heard
from ser_mtl.training.saving import save_model
from ser_mtl.training.stage import Stage1, Stage2
from ser_mtl.training.stage1_start import stage1_start
from ser_mtl.training.stage2_start import stage2_start

OTHER = ["angry", "happy"]
STILL = {"num_train_epochs": 1, "learning_rate": 0, "selection": "last"}


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """A corpus of three emotions, one of which `good_corpus` lacks, and of other recordings."""
    folder = write_corpus(tmp_path_factory.mktemp("corpora") / "other", ("angry", "happy", "sad"))
    for file in folder.glob("*.wav"):
        soundfile.write(file, 0.8 * soundfile.read(file)[0], 16_000)
    return folder


@pytest.fixture(scope="module")
def grown(other, finished, tmp_path_factory) -> Path:
    """A stage 1 of `other` that starts from the encoder of `finished`, and changes nothing."""
    output = tmp_path_factory.mktemp("grown") / "stage1"
    ended = run_script("run_stage1", run_flags(other, output, encoder=finished, **STILL))
    assert ended.code == 0, ended.stderr
    return output


@pytest.fixture(scope="module")
def adapted(other, finished, tmp_path_factory) -> Path:
    """A stage 2 of `other`, three emotions, on `finished`, two."""
    output = tmp_path_factory.mktemp("adapted") / "stage2"
    flags = run_flags(other, output, stage1=finished, learning_rate=1e-3)
    ended = run_script("run_stage2", flags)
    assert ended.code == 0, ended.stderr
    said = [line for line in ended.stderr.splitlines() if "other labels" in line]
    assert len(said) == 1 and "emotion (angry, sad; here angry, happy, sad)" in said[0]
    return output


def logits(model: SerMtlModel) -> torch.Tensor:
    waveform = torch.tensor(tone(440, 0.5), dtype=torch.float32)[None]
    with torch.inference_mode():
        return model.eval()(waveform, attention_mask=torch.ones_like(waveform, dtype=torch.long)).logits


def test_a_new_stage_one_has_the_encoder_of_the_old_one_and_nothing_else_of_it(grown, finished):
    before, after = (load_file(folder / "model.safetensors") for folder in (finished, grown))
    encoder = [name for name in before if name.startswith("encoder.")]
    assert encoder and all(torch.equal(before[name], after[name]) for name in encoder)
    projection = "heads.emotion.projection.weight"
    assert not torch.equal(before[projection], after[projection])
    results = json.loads((grown / "results.json").read_text())
    assert (results["encoder"], results["labels"]["emotion"]) == (str(finished), ["angry", "happy", "sad"])


def test_the_encoder_of_a_stage_two_is_the_one_under_its_adapters(finished, finished2, good_corpus):
    parts = split(load_corpus("folder", good_corpus), 1)
    with pytest.warns(Notice, match=f"--encoder {finished2}: its adapters are left out.*{finished}"):
        start = stage1_start(Stage1(encoder=str(finished2)), {"emotion": OTHER}, parts)
    assert (start.encoder, start.earlier.model) == (str(finished), str(finished))
    trained = load_file(finished / "model.safetensors")
    own = start.model.encoder.state_dict()
    assert all(torch.equal(value, trained[f"encoder.{name}"]) for name, value in own.items())


def test_an_encoder_with_bottlenecks_inside_is_refused(finished2, other, tmp_path):
    ended = run_script("export", [finished2, "--to", "merged", "--output_dir", tmp_path / "merged"])
    assert ended.code == 0, ended.stderr
    flags = run_flags(other, tmp_path / "out", encoder=tmp_path / "merged")
    check_refused("run_stage1", flags, "--encoder", "bottleneck adapters")


def test_an_encoder_that_heard_what_is_held_out_is_refused_by_name_and_by_sound(good_corpus, finished, tmp_path):
    for corpus in (good_corpus, shutil.copytree(good_corpus, tmp_path / "renamed")):
        flags = run_flags(corpus, tmp_path / "out", encoder=finished, fold=2)
        check_refused("run_stage1", flags, f"--encoder {finished}", "was trained on", "model of the same fold")


def test_what_an_earlier_model_heard_is_known_of_the_later_one(grown, finished):
    for by_audio in (False, True):
        own, before = (utterances_heard(str(model), by_audio) for model in (grown, finished))
        assert before["train"] < own["train"]


def test_an_unfinished_run_is_no_encoder(finished, other, tmp_path):
    shutil.copytree(finished, tmp_path / "half")
    (tmp_path / "half/results.json").unlink()
    check_refused("run_stage1", run_flags(other, tmp_path / "out", encoder=tmp_path / "half"), "is not finished")


def test_adapters_on_a_base_with_other_labels_load_everywhere(adapted, finished, tmp_path):
    loaded = SerMtlModel.from_pretrained(adapted)
    assert loaded.config.labels["emotion"] == ["angry", "happy", "sad"]
    base = SerMtlModel.from_pretrained(
        finished, config=SerMtlConfig.from_pretrained(adapted), ignore_mismatched_sizes=True
    )
    torch.testing.assert_close(logits(PeftModel.from_pretrained(base, adapted)), logits(loaded))
    auto = AutoModelForAudioClassification.from_pretrained(adapted, trust_remote_code=True)
    torch.testing.assert_close(logits(auto), logits(loaded))
    ended = run_script("export", [adapted, "--to", "merged", "--output_dir", tmp_path / "merged"])
    assert ended.code == 0, ended.stderr
    merged = logits(SerMtlModel.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(merged, logits(loaded), atol=1e-5, rtol=0)


def test_answers_of_adapters_on_other_labels_are_their_predictions(adapted, other):
    recognizer = ser_mtl.load(str(adapted))
    for row in read_predictions(adapted / "predictions.jsonl")[:2]:
        found = recognizer(str(other / row["id"]))["emotion"]["probabilities"]
        assert found == pytest.approx(row["emotion"]["probabilities"], abs=1e-3)


def test_a_classifier_with_other_labels_is_new_even_of_the_same_size(finished):
    with pytest.warns(Notice, match="has other labels"):
        start = stage2_start(Stage2(stage1=str(finished), tasks=["emotion"]), {"emotion": OTHER})
    before = load_file(finished / "model.safetensors")
    head = start.model.get_base_model().heads["emotion"]
    now = {name.replace("modules_to_save.default.", ""): value for name, value in head.state_dict().items()}
    now = {name: value for name, value in now.items() if not name.startswith("original_module")}
    assert torch.equal(now["projection.weight"], before["heads.emotion.projection.weight"])
    assert not torch.equal(now["classifier.weight"], before["heads.emotion.classifier.weight"])
    assert start.new_heads == ("emotion",)


def test_adapters_of_stage_one_lie_on_an_encoder_of_this_project_and_go_on_to_other_labels(
    finished, good_corpus, tmp_path
):
    parts = split(load_corpus("folder", good_corpus), 1)
    stage = Stage1(encoder=str(finished), trainable="adapters")
    start = stage1_start(stage, {"emotion": ["calm", "cold", "warm"]}, parts)
    for parameter in start.model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.05)
    expected = logits(start.model)
    save_model(start.model, start.processor, tmp_path / "adapters")
    torch.testing.assert_close(logits(SerMtlModel.from_pretrained(tmp_path / "adapters")), expected)
    with pytest.warns(Notice, match="has other labels"):
        later = stage2_start(Stage2(stage1=str(tmp_path / "adapters"), tasks=["emotion"]), {"emotion": OTHER})
    heads = [model.get_base_model().heads["emotion"].modules_to_save["default"] for model in (start.model, later.model)]
    torch.testing.assert_close(heads[1].projection.weight, heads[0].projection.weight)
    assert heads[1].classifier.weight.shape[0] == 2
