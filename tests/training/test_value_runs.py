"""Runs on values: from IEMOCAP's consensus to CCC in results, card and answers, with emotion and without."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers.iemocap_tree import write_tree
from helpers.tiny import check_refused, run_flags, run_script, tone, write_corpus
from scipy import stats
from soundfile import write

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments, check_together
from ser_mtl.training.stage import Stage1, Stage2

VALUES = ["valence", "activation", "dominance"]


def consensus(name: str) -> tuple[float, float, float]:
    number = int(name[-1])
    return 1 + number / 2, 5 - int(name[4]) / 2 - number / 4, 2.25 + (number % 3)


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """IEMOCAP's tree, ten utterances of each session, with tones in the place of silence."""
    root = tmp_path_factory.mktemp("iemocap")
    truth = write_tree(root, consensus)
    for index, name in enumerate(sorted(truth)):
        wav = next(root.glob(f"Session{name[4]}/sentences/wav/*/{name}.wav"))
        write(wav, tone(200 + index, 0.3), 16_000)
    return root


@pytest.fixture(scope="module")
def stage1(tree, encoder, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("runs") / "stage1"
    flags = run_flags(tree, output, encoder=encoder, corpus="iemocap", tasks=VALUES, num_train_epochs=1)
    flags += ["--no_check_counts", "--per_device_train_batch_size", 20, "--gradient_accumulation_steps", 2]
    ended = run_script("run_stage1", flags)
    assert ended.code == 0, ended.stderr
    assert "valence (values)" in ended.stdout and "CCC" in ended.stdout
    return output


def ccc(rows: list[dict], task: str) -> float:
    """By its definition, from `predictions.jsonl`."""
    y, x = np.array([(row[task]["label"], row[task]["predicted"]) for row in rows]).T
    return 2 * np.cov(x, y, bias=True)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)


def test_values_alone_are_scored_on_iemocaps_consensus(stage1):
    rows = [json.loads(line) for line in (stage1 / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 80
    for row in rows:
        assert tuple(row[task]["label"] for task in VALUES) == pytest.approx(consensus(row["id"]), abs=1e-5)
    results = json.loads((stage1 / "results.json").read_text())
    assert (results["tasks"], results["selection"], "emotion" in results["test"]["all"]) == (VALUES, "dev", False)
    for task in VALUES:
        assert results["test"]["all"][task]["ccc"] == pytest.approx(ccc(rows, task), abs=1e-5)
        errors = [(row[task]["label"] - row[task]["predicted"]) ** 2 for row in rows]
        assert results["test"]["all"][task]["rmse"] == pytest.approx(np.sqrt(np.mean(errors)), rel=1e-5)
    evaluations = [one for one in json.loads((stage1 / "history.json").read_text()) if "eval_mean_ccc" in one]
    for one in evaluations:
        assert one["eval_mean_ccc"] == pytest.approx(np.mean([one[f"eval_{task}_ccc"] for task in VALUES]))
    assert evaluations and json.loads((stage1 / "args.json").read_text())["training"]["metric_for_best_model"] == (
        "mean_ccc"
    )


def test_results_have_the_jackknife_interval_over_speakers(stage1):
    rows = [json.loads(line) for line in (stage1 / "predictions.jsonl").read_text().splitlines()]
    results = json.loads((stage1 / "results.json").read_text())
    speakers = sorted({row["speaker"] for row in rows})
    assert results["speakers"] == len(speakers) > 1
    for task in VALUES:
        without = np.array([ccc([row for row in rows if row["speaker"] != one], task) for one in speakers])
        reach = stats.t.ppf(0.975, len(speakers) - 1) * np.sqrt((len(speakers) - 1) * without.var())
        ends = [max(-1, ccc(rows, task) - reach), min(1, ccc(rows, task) + reach)]
        assert results["intervals"]["all"][task]["ccc"] == pytest.approx(ends, abs=1e-4)
    assert "95 % intervals over speakers, 2 in all" in (stage1 / "README.md").read_text()


def test_the_scale_is_that_of_training(stage1):
    config = json.loads((stage1 / "config.json").read_text())
    train = json.loads((stage1 / "split.json").read_text())["train"]["ids"]
    for column, task in enumerate(VALUES):
        values = [consensus(name)[column] for name in train]
        assert config["value_scales"][task] == pytest.approx([np.mean(values), np.std(values)], rel=1e-5)


def test_the_card_says_what_the_model_is_for(stage1):
    card = (stage1 / "README.md").read_text()
    assert "output.task_values['valence'].item()" in card and "prepares the encoder" not in card
    assert "best mean CCC of the values on the development set" in card
    assert "valence CCC (concordance correlation coefficient)" in card and "](values.png)" in card


def test_answers_hold_the_values(stage1, tree, tmp_path):
    recording = next(tree.glob("Session1/sentences/wav/*/*.wav"))
    answers = {}
    for kind in ("json", "csv", "text"):
        ended = run_script("predict", [recording, "--model", stage1, "--format", kind, "--output", tmp_path / kind])
        assert ended.code == 0, ended.stderr
        answers[kind] = (tmp_path / kind).read_text()
    (answer,) = json.loads(answers["json"])
    assert list(answer) == ["file", "duration", *VALUES, "segments"]
    (row,) = csv.DictReader(answers["csv"].splitlines())
    for task in VALUES:
        assert list(answer[task]) == ["value"] and 0 < answer[task]["value"] < 6
        assert float(row[task]) == pytest.approx(answer[task]["value"], rel=1e-5)
        assert f"{task} {answer[task]['value']:.2f}" in answers["text"]


def test_stage_2_trains_a_value_beside_emotion_on_a_folder(finished, tmp_path):
    folder = write_corpus(tmp_path / "mine")
    lines = (folder / "metadata.csv").read_text().splitlines()
    cells = ["arousal", *("" if n % 7 == 0 else f"{n % 5 / 2}" for n in range(1, len(lines)))]
    (folder / "metadata.csv").write_text("\n".join(f"{a},{b}" for a, b in zip(lines, cells, strict=True)))
    flags = run_flags(folder, tmp_path / "out", stage1=finished, tasks=["emotion", "gender", "activation"])
    ended = run_script("run_stage2", [*flags, "--num_train_epochs", 1])
    assert ended.code == 0, ended.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["tasks"] == ["emotion", "gender", "activation"]
    assert {*results["test"]["all"]} >= {"emotion", "gender", "activation"}
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    annotated = [row for row in rows if row["activation"]["label"] is not None]
    assert 0 < len(annotated) < len(rows)
    assert results["test"]["all"]["activation"]["ccc"] == pytest.approx(ccc(annotated, "activation"), abs=1e-5)


def test_a_value_that_nobody_annotated_stops(good_corpus, encoder, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder, tasks=["emotion", "valence"])
    check_refused("run_stage1", flags, "--tasks valence", "is annotated for it")


def together(stage, **flags) -> SerMtlArguments:
    args = SerMtlArguments(output_dir="out", use_cpu=True, **flags)
    check_together(stage, args, has_dev=True)
    return args


def test_epochs_are_compared_by_mean_ccc_where_there_is_no_emotion():
    assert together(Stage1(tasks=["valence"])).metric_for_best_model == "mean_ccc"
    assert (
        together(Stage2(stage1="x", tasks=["valence"]), metric_for_best_model="valence_rmse").greater_is_better is False
    )
    assert together(Stage1(tasks=["emotion", "valence"])).metric_for_best_model == "emotion_ua"
    named = together(Stage1(tasks=["emotion", "valence"]), metric_for_best_model="mean_ccc")
    assert (named.metric_for_best_model, named.greater_is_better) == ("mean_ccc", True)
    with pytest.raises(UserError, match="--metric_for_best_model mean_ccc: must be one of"):
        together(Stage1(tasks=["emotion", "asr"]), metric_for_best_model="mean_ccc")
    with pytest.raises(UserError, match="--tasks: emotion must be among them"):
        together(Stage1(tasks=["gender", "asr"]))
