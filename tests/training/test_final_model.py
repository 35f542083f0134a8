"""A final model: nothing is held out, its card says so, and gives the figures of the folds beside it."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.tiny import check_refused, run_flags, run_script, tone

import ser_mtl
from ser_mtl.files import write_json
from ser_mtl.hub.complete import read_complete


@pytest.fixture(scope="module")
def final(good_corpus, encoder, finished, tmp_path_factory) -> Path:
    """The folder of a final stage-1 model, with two folds beside it, one chosen on its test and one of another kind."""
    folder = tmp_path_factory.mktemp("final")
    results = json.loads((finished / "results.json").read_text())
    for fold, (ua, more) in enumerate([(0.2, {}), (0.6, {}), (1.0, {"selection": "oracle"}), (1.0, {"stage": 2})], 1):
        results["test"]["all"]["emotion"]["ua"] = ua
        write_json(folder / f"fold{fold}/results.json", results | {"fold": fold} | more)
    flags = run_flags(good_corpus, folder / "all", fold="all", encoder=encoder, dev="none", selection="last")
    ended = run_script("run_stage1", [*flags, "--num_train_epochs", 1])
    assert ended.code == 0, ended.stderr
    assert "No test was held out (--fold all)" in ended.stdout
    return folder / "all"


def test_a_final_model_says_that_no_test_was_held_out(final, good_corpus):
    results, split = read_complete(final), json.loads((final / "split.json").read_text())
    assert (results["fold"], results["test"], results["held_out_speakers"]) == ("all", {}, [])
    assert sorted(split["train"]["ids"]) == sorted(path.name for path in good_corpus.glob("*.wav"))
    assert not (final / "predictions.jsonl").exists() and not (final / "confusion_matrix.png").exists()
    card = (final / "README.md").read_text()
    assert "No test was held out" in card and "model-index" not in card
    answer = ser_mtl.load(str(final))((tone(440, 0.5), 16_000))
    assert set(answer["emotion"]["probabilities"]) == {"angry", "sad"}


def test_the_card_of_a_final_model_has_the_mean_of_its_folds(final):
    results = json.loads((final / "results.json").read_text())
    assert results["folds"]["names"] == ["fold1", "fold2"]
    assert results["folds"]["test"]["all"]["emotion"]["ua"] == pytest.approx(0.4)
    card = (final / "README.md").read_text()
    assert "(fold1, fold2)" in card and "| all | 16 | 40.0 |" in card


def test_folds_trained_later_are_found_by_the_publication(final, hub, tmp_path):
    alone = tmp_path / "all"
    shutil.copytree(final, alone)
    results = json.loads((alone / "results.json").read_text())
    del results["folds"]
    write_json(alone / "results.json", results)
    for later in (False, True):
        if later:
            shutil.copytree(final.parent / "fold2", tmp_path / "fold2")
        ended = run_script("publish", [alone, "--repo_id", "ada/final"])
        assert ended.code == 0, ended.stderr
        card = hub.repositories["ada/final"].files["README.md"].decode()
        assert ("(fold2)" in card) == later and ("`--fold 1` to `--fold 5`" in card) != later
    assert "predictions.jsonl" not in hub.repositories["ada/final"].files


def test_what_needs_a_test_is_refused_without_one(final, good_corpus, encoder, tmp_path):
    for flag, value in (("selection", "oracle"), ("measure_oracle", True)):
        flags = run_flags(good_corpus, tmp_path / "out", fold="all", encoder=encoder, **{flag: value})
        check_refused("run_stage1", flags, f"--{flag}", "--fold all")


def test_a_stage_one_that_heard_dev_or_test_is_refused(final, finished, good_corpus, tmp_path):
    check_refused("run_stage2", run_flags(good_corpus, tmp_path / "out", stage1=final), "test set")
    flags = run_flags(good_corpus, tmp_path / "out", fold="all", stage1=finished)
    check_refused("run_stage2", flags, "of the development set")


def test_results_without_a_test_are_damaged_unless_the_fold_is_all(final, tmp_path):
    shutil.copytree(final, tmp_path / "run")
    results = json.loads((final / "results.json").read_text())
    write_json(tmp_path / "run/results.json", results | {"fold": 1})
    ended = run_script("publish", [tmp_path / "run", "--repo_id", "ada/final"])
    assert ended.code == 2 and "results.json" in ended.stderr
