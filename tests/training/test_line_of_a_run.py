"""A run's line: the pretrained encoder's own hidden states, the run's own utterances, found once."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from helpers.tiny import run_flags, run_script
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from transformers import AutoConfig, AutoFeatureExtractor, AutoModel

from modeling_ser_mtl import SerMtlConfig, SerMtlModel
from ser_mtl.corpora.batching import Collator
from ser_mtl.training import line as module


def line_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())["line"]


@torch.inference_mode()
def layers_by_hand(corpus: Path, encoder: Path, name: str) -> np.ndarray:
    """The mean of each hidden state of one recording, by transformers alone, (layers + 1, d)."""
    model, extractor = AutoModel.from_pretrained(encoder), AutoFeatureExtractor.from_pretrained(encoder)
    samples, rate = soundfile.read(corpus / name, dtype="float32")
    inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")
    states = model.eval()(inputs.input_values, output_hidden_states=True).hidden_states
    return torch.stack([state[0].mean(dim=0) for state in states]).numpy()


def test_the_line_is_that_of_transformers_and_scikit_learn_by_hand(finished, good_corpus, encoder):
    parts = json.loads((finished / "split.json").read_text())
    ids = {part: parts[part]["ids"] for part in ("train", "dev", "test")}
    features = {part: np.stack([layers_by_hand(good_corpus, encoder, name) for name in ids[part]]) for part in ids}
    emotions = {part: [name.split("_")[1] for name in ids[part]] for part in ids}
    best: tuple = (-1,)
    for c in (0.001, 0.01, 0.1, 1.0):
        for layer in range(features["train"].shape[1]):
            fitted = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
            fitted.fit(features["train"][:, layer], emotions["train"])
            ua = balanced_accuracy_score(emotions["dev"], fitted.predict(features["dev"][:, layer]))
            best = max(best, (ua, c, layer, fitted), key=lambda one: one[0])
    ua, c, layer, fitted = best
    predicted = fitted.predict(features["test"][:, layer])
    line = line_of(finished)
    assert (line["chosen_ua"], line["C"], line["layer"], line["encoder"]) == (ua, c, layer, "pretrained")
    assert line["ua"] == pytest.approx(balanced_accuracy_score(emotions["test"], predicted))
    assert line["wa"] == pytest.approx(accuracy_score(emotions["test"], predicted))


def test_the_line_stands_in_the_card_and_not_in_the_folder_of_a_finished_run(finished):
    assert "frozen encoder" in (finished / "README.md").read_text()
    assert not (finished / module.FILE_OF_LINE).exists()


def test_the_line_of_stage_2_is_that_of_the_pretrained_encoder(finished, finished2):
    assert line_of(finished2) == line_of(finished)


def test_without_stage_1s_line_the_encoder_of_stage_1_has_one(tmp_path, finished, good_corpus, monkeypatch):
    fitted = []
    monkeypatch.setattr(module, "fit_line", lambda *parts: fitted.append(parts) or LINE)
    stage1 = tmp_path / "stage1"
    shutil.copytree(finished, stage1)
    results = json.loads((finished / "results.json").read_text())
    del results["line"]  # of an earlier version
    (stage1 / "results.json").write_text(json.dumps(results))
    ended = run_script("run_stage2", run_flags(good_corpus, tmp_path / "stage2", stage1=stage1, max_steps=1))
    assert ended.code == 0, ended.stderr
    assert line_of(tmp_path / "stage2") == LINE | {"encoder": "stage 1"} and len(fitted) == 1
    assert "as stage 1 left it" in ended.stdout.replace("\n", " ")
    *_, test = fitted[0]
    model = SerMtlModel.from_pretrained(finished).eval()
    extractor = AutoFeatureExtractor.from_pretrained(finished)
    name = json.loads((finished / "split.json").read_text())["test"]["ids"][0]
    samples, rate = soundfile.read(good_corpus / name, dtype="float32")
    with torch.inference_mode():
        inputs = extractor(samples, sampling_rate=rate, return_tensors="pt")
        states = model(inputs.input_values, output_hidden_states=True).hidden_states
    own = torch.stack([state[0].mean(dim=0) for state in states]).numpy()
    assert np.abs(test.layers - own).max(axis=(1, 2)).min() < 1e-4


def test_a_run_without_emotion_has_no_line(tmp_path, good_corpus, encoder, monkeypatch):
    monkeypatch.setattr(module, "fit_line", None)
    flags = {"tasks": ["asr", "gender"], "selection": "last", "max_steps": 1}
    ended = run_script("run_stage1", run_flags(good_corpus, tmp_path / "run", encoder=encoder, **flags))
    assert ended.code == 0, ended.stderr
    assert "line" not in json.loads((tmp_path / "run/results.json").read_text())
    assert "frozen encoder" not in ended.stdout


def test_pooling_leaves_no_trace(encoder):
    """Random numbers and the state of the model are those of a run without a line."""
    config = SerMtlConfig(encoder_config=AutoConfig.from_pretrained(encoder), labels={"emotion": ["a", "b"]})
    model = SerMtlModel(config).train()
    extractor = AutoFeatureExtractor.from_pretrained(encoder)
    sounds = [np.random.default_rng(n).normal(size=2000 + 900 * n).astype(np.float32) for n in (2, 0, 1)]
    rows = {"row": [0, 1, 2], "length": list(map(len, sounds)), "samples": sounds}
    before = torch.get_rng_state()
    pooled = module.pooled_layers(model, Dataset.from_dict(rows).with_format("numpy"), Collator(extractor), 2)
    assert model.training and torch.equal(torch.get_rng_state(), before)
    for sound, layers in zip(sounds, pooled, strict=True):
        with torch.inference_mode():
            inputs = extractor(sound, sampling_rate=16_000, return_tensors="pt")
            states = model.eval()(inputs.input_values, output_hidden_states=True).hidden_states
        assert np.allclose(layers, torch.stack([state[0].mean(dim=0) for state in states]), atol=1e-5)


LINE = {
    "ua": 0.9, "wa": 0.9, "macro_f1": 0.9, "n": 8, "layer": 1, "layers": 2, "C": 1.0, "train": 28, "chosen_on": "dev",
    "chosen_ua": 0.9,
}  # fmt: skip
