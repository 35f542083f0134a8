"""CCC and RMSE of values against their definitions, whatever is not annotated."""

import numpy as np
import pytest
from scipy.stats import pearsonr

from ser_mtl.evaluation.predictions import Prediction, prediction_rows, references_and_predictions
from ser_mtl.evaluation.results import Scores, results_frame
from ser_mtl.evaluation.scores import SerMtlMetric, ccc
from ser_mtl.evaluation.value_figure import plot_values


def test_ccc_by_hand():
    # Means 2 and 3, variances 2/3 each, covariance 2/3: 2 * 2/3 / (2/3 + 2/3 + 1).
    assert ccc([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7)
    assert ccc([1, 2, 3], [1, 2, 3]) == 1
    assert ccc([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)
    assert ccc([1, 2, 3], [5, 5, 5]) == 0


def test_ccc_is_pearson_times_lins_bias_correction():
    random = np.random.default_rng(0)
    y = random.uniform(1, 5, 50)
    x = 1 + 0.4 * y + random.normal(0, 0.5, 50)
    v, u = x.std() / y.std(), (x.mean() - y.mean()) / np.sqrt(x.std() * y.std())
    assert ccc(y, x) == pytest.approx(pearsonr(x, y).statistic * 2 / (v + 1 / v + u**2))


def test_annotations_that_do_not_vary_have_a_ccc_of_zero():
    assert ccc([3.0], [3.0]) == ccc([3.0, 3.0], [3.0, 3.0]) == ccc([2.0, 2.0], [1.0, 4.0]) == 0


def test_an_utterance_counts_for_the_values_that_it_has():
    references = [{"valence": 1.0, "emotion": "sad"}, {"valence": None}, {"valence": 3.5}, {"dominance": 2.0}]
    predictions = [{"valence": 1.5, "emotion": "sad"}, {"valence": 2.0}, {"valence": 3.0}, {"valence": 9.0}]
    scores = SerMtlMetric({"emotion": ["angry", "sad"]}).compute(predictions=predictions, references=references)
    assert scores["valence"] == pytest.approx({"ccc": ccc([1, 3.5], [1.5, 3]), "rmse": 0.5})
    assert (scores["n"], scores["emotion"]["wa"], "dominance" in scores) == (4, 1, False)
    Scores.model_validate(scores)


def test_prediction_rows_hold_both_values_in_few_digits(corpus):
    rows = prediction_rows(corpus, {}, {}, values={"valence": np.array([1.23456789, 3.0], dtype=np.float32)})
    assert [row["valence"] for row in rows] == [
        {"label": 2.6, "predicted": 1.234568},
        {"label": None, "predicted": 3.0},
    ]
    for row in rows:
        Prediction.model_validate(row)
    references, predictions = references_and_predictions(rows)
    assert [row["valence"] for row in references] == [2.6, None]
    assert [row["valence"] for row in predictions] == [1.234568, 3.0]


def test_tables_show_ccc_in_percent_and_no_rmse():
    scores = {"n": 3, "emotion": {"ua": 0.5, "wa": 0.25}, "valence": {"ccc": 0.51234, "rmse": 0.9}}
    frame = results_frame({"test": {"all": scores}, "tasks": ["emotion", "valence"]})
    assert frame.loc["all"].to_dict() == {
        "n": "3", "emotion UA": "50.0", "emotion WA": "25.0", "valence CCC": "51.2"
    }  # fmt: skip


def test_the_figure_has_a_panel_for_each_value(tmp_path):
    rows = [{"valence": {"label": y, "predicted": 2.0}, "dominance": {"label": None, "predicted": 1.0}} for y in (1, 2)]
    figure = plot_values(rows, ["valence", "dominance"], tmp_path / "values.png", "a $ run")
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["valence: CCC 0.000 (n = 2)", "dominance (n = 0)"] and (tmp_path / "values.png").is_file()


@pytest.fixture
def corpus():
    from datasets import Dataset

    from ser_mtl.corpora.utterances import FEATURES

    rows = [dict.fromkeys(FEATURES) | {"id": name, "raters": [], "valence": v} for name, v in (("a", 2.6), ("b", None))]
    return Dataset.from_list(rows, features=FEATURES)
