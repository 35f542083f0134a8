"""Pins --measure_oracle: the test fold is measured after each epoch, and the run is the same as without it."""

import json

import pytest
import torch
from helpers.tiny import run_flags, run_script
from safetensors.torch import load_file

from ser_mtl.evaluation.predictions import read_predictions


@pytest.mark.parametrize("selection", ["dev", "last"])
def test_measuring_the_test_fold_changes_nothing_but_the_log(good_corpus, encoder, tmp_path, selection):
    # Dropout and SpecAugment are on, so that one random number too many would show.
    flags = {"encoder": encoder, "selection": selection, "learning_rate": 1e-3, "num_train_epochs": 3}
    for name, more in (("without", []), ("with", ["--measure_oracle"])):
        ended = run_script("run_stage1", [*run_flags(good_corpus, tmp_path / name, **flags), *more])
        assert ended.code == 0, ended.stderr
    without, measured = (load_file(tmp_path / name / "model.safetensors") for name in ("without", "with"))
    assert all(torch.equal(measured[name], value) for name, value in without.items())
    rows = [read_predictions(tmp_path / name / "predictions.jsonl") for name in ("without", "with")]
    assert rows[0] == rows[1]
    history, results = (json.loads((tmp_path / "with" / f"{name}.json").read_text()) for name in ("history", "results"))
    ua = {entry["epoch"]: entry["test_emotion_ua"] for entry in history if "test_emotion_ua" in entry}
    assert list(ua) == [1, 2, 3]
    assert ua[results["epoch"]] == pytest.approx(results["test"]["all"]["emotion"]["ua"])
    plain = json.loads((tmp_path / "without" / "history.json").read_text())
    rest = [entry for entry in history if "test_emotion_ua" not in entry]
    assert [figures_of(entry) for entry in rest] == [figures_of(entry) for entry in plain]


def figures_of(entry: dict) -> dict:
    """A log entry without what the clock says."""
    return {name: value for name, value in entry.items() if "runtime" not in name and "per_second" not in name}
