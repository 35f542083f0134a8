"""UA, WA, F1, WER and CER equal scikit-learn's and jiwer's, whatever is not annotated."""

import warnings
from pathlib import Path

import jiwer
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, confusion_matrix, f1_score

from ser_mtl.errors import UserError
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group
from ser_mtl.metrics import METRICS

LABELS = {
    "emotion": ["angry", "happy", "neutral", "sad"],
    "gender": ["female", "male"],
    "style": ["improvised", "scripted"],
}
WORDS = np.array(["yes", "no", "it", "is", "raining", "today", "don't"])


def random_rows(rng: np.random.Generator, n: int, missing: float) -> list[dict]:
    """n rows with random labels and sentences, each replaced by None with probability `missing`."""
    columns = {task: rng.choice(labels, n) for task, labels in LABELS.items()}
    columns["text"] = [" ".join(rng.choice(WORDS, rng.integers(0, 8))) for _ in range(n)]
    return [{c: None if rng.random() < missing else str(values[i]) for c, values in columns.items()} for i in range(n)]


def both(references: list[dict], predictions: list[dict], column: str) -> tuple[list[str], list[str]]:
    """References and predictions of the rows that have both."""
    pairs = [(r[column], p[column]) for r, p in zip(references, predictions, strict=True)]
    annotated = [pair for pair in pairs if pair[0] is not None and pair[1] is not None]
    return [r for r, _ in annotated], [p for _, p in annotated]


@pytest.fixture
def metric() -> SerMtlMetric:
    return SerMtlMetric(LABELS)


@pytest.mark.parametrize("seed", range(3))
def test_classification_equals_scikit_learn_on_annotated_pairs(metric, seed):
    rng = np.random.default_rng(seed)
    references, predictions = random_rows(rng, 200, missing=0.3), random_rows(rng, 200, missing=0.1)
    scores = metric.compute(predictions=predictions, references=references)
    assert scores["n"] == 200
    for task in LABELS:
        r, p = both(references, predictions, task)
        assert len(r) < 200
        assert scores[task]["ua"] == pytest.approx(balanced_accuracy_score(r, p))
        assert scores[task]["wa"] == pytest.approx(accuracy_score(r, p))
    r, p = both(references, predictions, "emotion")
    assert scores["emotion"]["macro_f1"] == pytest.approx(f1_score(r, p, average="macro"))
    assert scores["emotion"]["confusion_matrix"] == confusion_matrix(r, p, labels=LABELS["emotion"]).tolist()
    assert scores["emotion"]["labels"] == LABELS["emotion"]


@pytest.mark.parametrize("seed", range(3))
def test_word_errors_are_pooled_over_utterances_as_jiwer_does(metric, seed):
    rng = np.random.default_rng(seed)
    references, predictions = random_rows(rng, 100, missing=0.2), random_rows(rng, 100, missing=0.0)
    pairs = [(r["text"], p["text"]) for r, p in zip(references, predictions, strict=True) if r["text"]]
    assert 0 < len(pairs) < 100 and any(p == "" for _, p in pairs)
    r, p = map(list, zip(*pairs, strict=True))
    scores = metric.compute(predictions=predictions, references=references)
    assert scores["asr"] == pytest.approx({"wer": jiwer.wer(r, p), "cer": jiwer.cer(r, p)})


def test_ua_and_wa_of_a_case_done_by_hand(metric):
    references = [{"emotion": e} for e in ["sad", "sad", "sad", "happy", None]]
    predictions = [{"emotion": e} for e in ["sad", "sad", "angry", "neutral", "sad"]]
    emotion = metric.compute(predictions=predictions, references=references)["emotion"]
    assert emotion["ua"] == pytest.approx((2 / 3 + 0) / 2)  # angry and neutral do not occur: no recall
    assert emotion["wa"] == pytest.approx(2 / 4)
    assert emotion["confusion_matrix"] == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 2]]


def test_word_errors_of_a_case_done_by_hand(metric):
    references = [{"text": "one two three"}, {"text": "four"}, {"text": ""}, {"text": None}]
    predictions = [{"text": "one too three"}, {"text": ""}, {"text": "noise"}, {"text": "noise"}]
    scores = metric.compute(predictions=predictions, references=references)
    assert scores["asr"]["wer"] == pytest.approx((1 + 1) / 4)
    assert scores["asr"]["cer"] == pytest.approx((1 + 4) / 17)


def test_transcripts_without_adapters_are_scored_apart(metric):
    scores = metric.compute(predictions=[{"text": "a b", "text_adapters_off": "a c"}], references=[{"text": "a b"}])
    assert scores["asr"]["wer"] == 0
    assert scores["asr_adapters_off"]["wer"] == pytest.approx(1 / 2)


def test_a_task_nobody_annotated_is_left_out(metric):
    scores = metric.compute(
        predictions=[{"emotion": "sad", "gender": "male", "text": "x"}], references=[{"emotion": "sad", "text": ""}]
    )
    assert scores.keys() == {"n", "emotion"}


def test_a_class_only_ever_predicted_raises_no_warning(metric):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metric.compute(predictions=[{"emotion": "sad"}], references=[{"emotion": "happy"}])


def test_groups_are_the_annotated_styles(metric):
    rng = np.random.default_rng(0)
    references, predictions = random_rows(rng, 120, missing=0.2), random_rows(rng, 120, missing=0.0)
    groups = metrics_by_group(metric, predictions, references)
    assert list(groups) == ["all", "improvised", "scripted"]
    assert groups["all"] == metric.compute(predictions=predictions, references=references)
    scripted = [(p, r) for p, r in zip(predictions, references, strict=True) if r["style"] == "scripted"]
    p, r = map(list, zip(*scripted, strict=True))
    assert groups["scripted"] == metric.compute(predictions=p, references=r)
    assert groups["improvised"]["n"] + groups["scripted"]["n"] < groups["all"]["n"] == 120


def test_a_style_does_not_take_the_place_of_all_utterances(metric):
    rows = [{"emotion": "sad", "style": "all"}]
    with pytest.raises(UserError, match="style 'all': means all utterances in results"):
        metrics_by_group(metric, rows, rows)


def test_computing_leaves_no_file_behind(metric, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    metric.compute(predictions=[{"emotion": "sad"}], references=[{"emotion": "sad"}])
    assert not list(tmp_path.iterdir())
    assert not [path for path in Path(metric.data_dir).rglob("*") if path.is_file()]


def test_a_task_has_the_metrics_of_the_table_and_no_others(metric):
    row = {"emotion": "sad", "gender": "male", "style": "scripted", "text": "a", "text_adapters_off": "a"}
    scores = metric.compute(predictions=[row], references=[row])
    for group, values in scores.items():
        if group != "n":
            computed = set(values) - {"confusion_matrix", "labels"}
            assert computed == {one.key for one in METRICS if one.group == group}, group
