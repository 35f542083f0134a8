"""--refit: the epoch is found on dev, and the model is trained again on train and dev for as long."""

import json
from pathlib import Path

import pytest
from helpers.tiny import check_refused, run_flags, run_script

from ser_mtl.training import refit, trainer
from ser_mtl.training.line import line_of
from ser_mtl.training.refit import last_of_the_best
from ser_mtl.training.trainer import SerMtlTrainer


def read(run: Path, file: str) -> dict:
    return json.loads((run / file).read_text())


def flags(corpus: Path, output: Path, **more: object) -> list[object]:
    # With a rate of nothing all epochs are equal on dev, and the last is as good as any.
    return run_flags(corpus, output, refit=True, learning_rate=1e-30, **more)


@pytest.fixture(scope="module")
def refitted(tmp_path_factory, good_corpus, encoder) -> Path:
    output = tmp_path_factory.mktemp("refit") / "stage1"
    of_runs: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SerMtlTrainer, "finish", lambda *_: 1 / 0)  # an interruption after both trainings
        patched.setattr(trainer, "line_of", lambda run: of_runs.append(run.args.output_dir) or line_of(run))
        with pytest.raises(ZeroDivisionError):
            run_script("run_stage1", flags(good_corpus, output, encoder=encoder))
    assert of_runs == [str(output)]  # nobody would see that of the first training
    before = read(output.with_name("stage1-search"), "config.json")
    ended = run_script("run_stage1", flags(good_corpus, output, encoder=encoder))
    assert ended.code == 0, ended.stderr
    assert "epoch 1:" not in ended.stdout and "trained on train and dev" in ended.stdout  # nothing was repeated
    assert read(output.with_name("stage1-search"), "config.json") == before
    return output


def test_the_second_training_has_all_speakers_and_the_epochs_of_the_first(refitted, finished):
    first, usual = read(refitted, "split.json"), read(finished, "split.json")
    assert first["train"]["ids"] == sorted(usual["train"]["ids"] + usual["dev"]["ids"]) and "dev" not in first
    assert first["test"] == usual["test"]
    assert read(refitted.with_name("stage1-search"), "split.json")["dev"]["ids"] == usual["dev"]["ids"]
    results = read(refitted, "results.json")
    assert (results["epoch"], results["selection"], results["refit"]) == (2, "dev", True)
    assert [entry["epoch"] for entry in read(refitted, "history.json") if "loss" in entry] == [1, 2]
    assert results["sizes"] == {"train": 32, "test": 8}
    assert results["line"]["chosen_on"] == "train" and results["line"]["train"] == 32
    assert "trained again" in (refitted / "README.md").read_text()


def test_the_temperature_is_fitted_on_speakers_that_were_not_heard(refitted):
    searched = read(refitted.with_name("stage1-search"), "config.json")
    assert read(refitted, "config.json")["temperature"] == searched["temperature"] != 1
    calibration = read(refitted, "results.json")["calibration"]
    assert calibration["temperature"] == searched["temperature"]
    assert calibration["fitted_on"] == {"utterances": 8, "speakers": 2, "also_in_training": 0}


def test_a_finished_refit_keeps_no_checkpoints_and_its_corpus_has_not_changed(refitted, good_corpus, encoder):
    assert not [*refitted.glob("checkpoint-*"), *refitted.with_name("stage1-search").glob("checkpoint-*")]
    ended = run_script("run_stage1", flags(good_corpus, refitted, encoder=encoder))
    assert ended.code == 0 and "has changed" not in ended.stderr


@pytest.mark.parametrize(
    ("scores", "step"),
    [([0.5, 0.9, 0.6], 2), ([0.5, 0.9, 0.871], 3), ([0.5, 0.9, 0.869], 2), ([1.0, 1.0, 0.99], 2), ([0.0, 0.0], 2)],
)
def test_training_ends_at_the_last_epoch_that_chance_cannot_tell_from_the_best(scores, step):
    assert last_of_the_best(dict(enumerate(scores, 1)), 100) == step  # the standard error of 0.9 is 0.03


@pytest.mark.parametrize(
    ("scores", "step"), [([0.6, 0.54], 2), ([0.6, 0.53], 1), ([-0.2, -0.29], 2), ([-0.2, -0.3], 1), ([1.0, 0.99], 1)]
)
def test_chance_moves_a_ccc_as_it_moves_a_correlation(scores, step):
    assert last_of_the_best(dict(enumerate(scores, 1)), 102, ccc=True) == step  # (1 - 0.6 ** 2) / 10 is 0.064


def test_a_training_that_is_cut_short_has_the_learning_rates_of_the_whole(good_corpus, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(refit, "last_of_the_best", lambda scores, utterances, ccc: min(scores))
    output = tmp_path / "run"
    ended = run_script(
        "run_stage1", flags(good_corpus, output, encoder=encoder, logging_strategy="steps", logging_steps=1)
    )
    assert ended.code == 0, ended.stderr
    rates = [entry["learning_rate"] for entry in read(output, "history.json") if "learning_rate" in entry]
    assert read(output, "results.json")["epoch"] == 1 and len(rates) == 4  # of eight updates, one of them warm-up
    assert rates == pytest.approx([0, 1e-30, 6 / 7 * 1e-30, 5 / 7 * 1e-30])


def test_stage_2_searches_on_the_stage_1_that_has_not_heard_dev(refitted, good_corpus, tmp_path):
    without = run_flags(good_corpus, tmp_path / "without", stage1=refitted)
    check_refused("run_stage2", without, "--stage1", "development set")
    ended = run_script("run_stage2", flags(good_corpus, tmp_path / "stage2", stage1=refitted, num_train_epochs=1))
    assert ended.code == 0, ended.stderr
    assert read(tmp_path / "stage2-search", "args.json")["method"]["stage1"] == str(refitted.with_name("stage1-search"))
    assert read(tmp_path / "stage2", "results.json")["stage1"] == str(refitted)


def test_a_stage_1_of_another_fold_is_refused_under_the_name_that_the_flag_has(refitted, good_corpus, tmp_path):
    other = flags(good_corpus, tmp_path / "run", stage1=refitted, fold=2)
    check_refused("run_stage2", other, f"--stage1 {refitted}: was trained", "of the same fold")
    other = flags(good_corpus, tmp_path / "run", stage1=refitted, embedding_dim=7)
    check_refused("run_stage2", other, f"as in --stage1 {refitted}")


@pytest.mark.parametrize("more", [{"dev": "none", "selection": "last"}, {"selection": "last"}], ids=str)
def test_without_dev_there_is_nothing_to_find(good_corpus, encoder, tmp_path, more):
    check_refused("run_stage1", flags(good_corpus, tmp_path / "run", encoder=encoder, **more), "--refit")


def test_a_first_training_may_stop_early(tmp_path, good_corpus, encoder):
    more = {"encoder": encoder, "early_stopping_patience": 1, "num_train_epochs": 4}
    ended = run_script("run_stage1", flags(good_corpus, tmp_path / "run", **more))
    assert ended.code == 0, ended.stderr
    rates = [entry["learning_rate"] for entry in read(tmp_path / "run", "history.json") if "learning_rate" in entry]
    assert len(rates) == 2 and rates[-1] > 0  # of a schedule of four epochs
