"""predictions.jsonl: the content of a line, and that metrics can be recomputed from it."""

import json

import numpy as np
import pytest
from datasets import Dataset

from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.evaluation.predictions import (
    prediction_rows,
    read_predictions,
    references_and_predictions,
    write_predictions,
)
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group

LABELS = {"emotion": ["angry", "happy", "sad"], "gender": ["female", "male"], "style": ["improvised", "scripted"]}
SENTENCES = ["Yes, I do!", "[LAUGHTER]", "It's  raining.", None]
HYPOTHESES = ["yes i do", "", "it's training", "no"]


def corpus(n: int, rng: np.random.Generator) -> Dataset:
    """n utterances; about a fifth of every label is missing."""
    rows = []
    for i in range(n):
        row = dict.fromkeys(FEATURES)
        row |= {"id": f"u{i}", "speaker": f"s{i % 4}", "text": SENTENCES[i % 4]}
        row |= {task: None if rng.random() < 0.2 else str(rng.choice(names)) for task, names in LABELS.items()}
        rows.append(row)
    return Dataset.from_list(rows, features=FEATURES)


def random_probabilities(n: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {task: rng.dirichlet(np.ones(len(names)), n).astype(np.float32) for task, names in LABELS.items()}


def test_a_row_holds_labels_prediction_probabilities_and_transcripts():
    utterances = corpus(1, np.random.default_rng(1))
    probabilities = {"emotion": np.array([[0.2, 0.7, 0.1]]), "style": np.array([[0.9, 0.1]])}
    (row,) = prediction_rows(utterances, LABELS, probabilities, ["yes"], ["yes i"])
    assert row == {
        "id": "u0",
        "speaker": "s0",
        "style": {
            "label": utterances[0]["style"],
            "predicted": "improvised",
            "probabilities": {"improvised": 0.9, "scripted": 0.1},
        },
        "emotion": {
            "label": utterances[0]["emotion"],
            "predicted": "happy",
            "probabilities": {"angry": 0.2, "happy": 0.7, "sad": 0.1},
        },
        "asr": {"reference": "yes i do", "hypothesis": "yes", "hypothesis_adapters_off": "yes i"},
    }


def test_style_is_the_plain_label_if_not_trained():
    utterances = corpus(20, np.random.default_rng(0))
    rows = prediction_rows(utterances, LABELS, {"emotion": np.full((20, 3), 1 / 3)})
    assert [row["style"] for row in rows] == list(utterances["style"])
    references, predictions = references_and_predictions(rows)
    assert [row["style"] for row in references] == list(utterances["style"])
    assert {row["style"] for row in predictions} == {None}


def test_a_text_with_nothing_spoken_has_no_reference():
    rows = prediction_rows(corpus(4, np.random.default_rng(0)), LABELS, {}, HYPOTHESES)
    assert [row["asr"]["reference"] for row in rows] == ["yes i do", None, "it's raining", None]


def test_metrics_from_the_file_equal_metrics_from_the_arrays(tmp_path):
    rng = np.random.default_rng(0)
    utterances, probabilities, hypotheses = corpus(80, rng), random_probabilities(80, rng), HYPOTHESES * 20
    write_predictions(tmp_path / "p.jsonl", prediction_rows(utterances, LABELS, probabilities, hypotheses))
    references, predictions = references_and_predictions(read_predictions(tmp_path / "p.jsonl"))

    direct_references = [
        {task: utterance[task] for task in LABELS} | {"text": text}
        for utterance, text in zip(utterances, ["yes i do", None, "it's raining", None] * 20, strict=True)
    ]
    direct_predictions = [
        {task: LABELS[task][probabilities[task][i].argmax()] for task in LABELS} | {"text": hypotheses[i]}
        for i in range(80)
    ]
    metric = SerMtlMetric(LABELS)
    direct = metrics_by_group(metric, direct_predictions, direct_references)
    assert metrics_by_group(metric, predictions, references) == direct
    assert direct["all"].keys() == {"n", "emotion", "gender", "style", "asr"}


def test_the_file_has_one_json_object_a_line_and_keeps_any_script(tmp_path):
    utterances = corpus(3, np.random.default_rng(0))
    rows = prediction_rows(utterances, LABELS, {}, ["zażółć", "line\nbreak\u2028", ""])
    write_predictions(tmp_path / "p.jsonl", rows)
    lines = (tmp_path / "p.jsonl").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    assert [json.loads(line) for line in lines] == rows == read_predictions(tmp_path / "p.jsonl")
    assert "zażółć" in lines[0]


def test_a_small_probability_stays_above_zero():
    rows = prediction_rows(corpus(1, np.random.default_rng(0)), LABELS, {"gender": np.array([[1 - 1e-9, 1e-9]])})
    assert rows[0]["gender"]["probabilities"]["male"] == 1e-9


@pytest.mark.parametrize("n", [2, 4])
def test_another_number_of_predictions_is_refused(n):
    utterances = corpus(3, np.random.default_rng(0))
    with pytest.raises(ValueError):
        prediction_rows(utterances, LABELS, {"emotion": np.full((n, 3), 1 / 3)})
    with pytest.raises(ValueError):
        prediction_rows(utterances, LABELS, {}, ["x"] * n)
