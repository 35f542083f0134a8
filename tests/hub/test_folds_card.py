"""`ser-mtl publish --all_folds`: a repository for each fold, and one card with their mean and spread."""

import json
import shutil
import statistics
from pathlib import Path

import pytest
from helpers.tiny import check_one_line, run_script
from huggingface_hub import ModelCard

from ser_mtl.hub.folds import overview_card

UAS = [0.5, 0.625, 0.75, 0.5, 0.875]


@pytest.fixture
def folds(finished, tmp_path) -> Path:
    """Five runs, which differ in their fold and scores."""
    for fold, ua in enumerate(UAS, start=1):
        run = shutil.copytree(finished, tmp_path / "stage1" / f"fold{fold}")
        results = json.loads((run / "results.json").read_text())
        results["fold"] = fold
        for scores in results["test"].values():
            scores["emotion"]["ua"] = ua
        (run / "results.json").write_text(json.dumps(results))
    return tmp_path / "stage1"


def test_five_repositories_and_one_card(hub, folds):
    ended = run_script("publish", [folds, "--repo_id", "ada/ser", "--all_folds"])
    assert ended.code == 0, ended.stderr
    assert set(hub.repositories) == {"ada/ser", *(f"ada/ser-fold{fold}" for fold in range(1, 6))}
    assert all(repository.private for repository in hub.repositories.values())
    for fold in range(1, 6):
        assert json.loads(hub.repositories[f"ada/ser-fold{fold}"].files["results.json"])["fold"] == fold
    assert set(hub.repositories["ada/ser"].files) == {".gitattributes", "README.md"}
    before = {name: repository.branches["main"] for name, repository in hub.repositories.items()}
    assert run_script("publish", [folds, "--repo_id", "ada/ser", "--all_folds"]).code == 0
    assert {name: repository.branches["main"] for name, repository in hub.repositories.items()} == before


def test_the_card_has_the_mean_and_the_spread_of_the_folds(hub, folds):
    run_script("publish", [folds, "--repo_id", "ada/ser", "--all_folds"])
    card = ModelCard(hub.repositories["ada/ser"].files["README.md"].decode())
    card.validate()
    mean, deviation = 100 * statistics.mean(UAS), 100 * statistics.stdev(UAS)
    assert f"| all | {mean:.1f} ± {deviation:.1f} |" in card.text
    assert f"| improvised | {mean:.1f} ± {deviation:.1f} |" in card.text
    for fold, ua in enumerate(UAS, start=1):
        assert f"| {fold} | [ada/ser-fold{fold}]" in card.text
        assert f" | {100 * ua:.1f} | " in card.text
    values = {evaluation.metric_name: evaluation.metric_value for evaluation in card.data.eval_results}
    assert values["emotion UA (mean of the per-class recalls)"] == pytest.approx(statistics.mean(UAS))
    assert "mean over 5 folds" in card.data.eval_results[0].dataset_name
    for needed in (
        "## Which to take",
        "take [ada/ser-fold1]",
        "article 5(1)(f)",
        "## Licence",
        "@inproceedings{",
        "no part in the choice",
    ):
        assert needed in card.text


def test_a_wer_that_says_nothing_is_left_out_of_the_card(folds):
    results = {fold: json.loads((folds / f"fold{fold}/results.json").read_text()) for fold in range(1, 6)}
    repositories = {fold: f"ada/ser-fold{fold}" for fold in results}
    note = "- WER is left out: the model has not learned to transcribe (WER 95.0 %)."
    for fold_results in results.values():
        fold_results["test"]["all"]["asr"]["wer"] = 0.95
    text = overview_card(results, repositories, "ada/ser")
    assert "| WER |" not in text and note in text
    results[3]["test"]["all"]["asr"]["wer"] = 0.5
    text = overview_card(results, repositories, "ada/ser")
    assert "| WER |" in text and note not in text


def test_a_fold_that_is_missing_or_of_another_kind_is_named(hub, folds):
    results = json.loads((folds / "fold3/results.json").read_text())
    flags = [folds, "--repo_id", "ada/ser", "--all_folds"]
    (folds / "fold3/results.json").write_text(json.dumps(results | {"fold": 4}))
    check_one_line(run_script("publish", flags), "publish", folds / "fold3", "holds fold 4")
    (folds / "fold3/results.json").write_text(json.dumps(results | {"selection": "oracle"}))
    check_one_line(run_script("publish", flags), "publish", folds, "different kinds")
    (folds / "fold3/results.json").unlink()
    check_one_line(run_script("publish", flags), "publish", folds / "fold3", "no finished run")
    assert not hub.repositories
