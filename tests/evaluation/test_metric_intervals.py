"""Intervals of all metrics: each is the jackknife, made here by leaving speakers out of `SerMtlMetric`."""

import numpy as np
import pytest
from scipy import stats

from ser_mtl.evaluation.metric_intervals import ccc, metric_intervals, rmse
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group

LABELS = {"emotion": ["angry", "happy", "sad"], "gender": ["female", "male"]}
WORDS = ["well", "there", "you", "are", "my", "old", "friend", "of", "days"]


def answers(n: int = 90) -> tuple[list[dict], list[dict], list[str]]:
    """References, predictions and speakers, with gaps in all columns; a third each in two styles and in none."""
    random = np.random.default_rng(3)
    references, predictions, speakers = [], [], []
    for number in range(n):
        truth = {task: str(random.choice(labels)) for task, labels in LABELS.items()}
        said = {task: one if random.random() < 0.6 else str(random.choice(LABELS[task])) for task, one in truth.items()}
        words = list(random.choice(WORDS, 4))
        heard = [word for word in words if random.random() < 0.8]
        truth |= {"text": " ".join(words), "style": [None, "acted", "free"][number % 3]}
        gaps = {name: None for name in ("emotion", "gender", "text") if random.random() < 0.1}
        references.append(truth | gaps)
        predictions.append(said | {"text": " ".join(heard), "style": None})
        speakers.append(f"speaker {random.integers(7)}")
    return references, predictions, speakers


def jackknife(values: list[float], value: float) -> tuple[float, float]:
    n = len(values)
    error = np.sqrt((n - 1) / n * sum((one - np.mean(values)) ** 2 for one in values))
    reach = stats.t.ppf(0.975, n - 1) * error
    return value - reach, value + reach


def test_each_metric_has_the_jackknife_interval_over_speakers():
    references, predictions, speakers = answers()
    metric = SerMtlMetric(LABELS)
    intervals = metric_intervals(references, predictions, speakers)
    assert set(intervals) == {"all", "acted", "free"}
    whole = metrics_by_group(metric, predictions, references)
    checked = 0
    for group, tasks in intervals.items():
        rows = [i for i, one in enumerate(references) if group in ("all", one["style"])]
        without = [
            metric.compute(
                references=[references[i] for i in rows if speakers[i] != left_out],
                predictions=[predictions[i] for i in rows if speakers[i] != left_out],
            )
            for left_out in sorted({speakers[i] for i in rows})
        ]
        for task, metrics in tasks.items():
            for key, ends in metrics.items():
                low, high = jackknife([one[task][key] for one in without], whole[group][task][key])
                cut = (0, np.inf) if task == "asr" else (0, 1)
                assert ends == pytest.approx(np.clip((low, high), *cut)), (group, task, key)
                checked += 1
    assert checked == 3 * len(("ua", "wa", "macro_f1", "gender ua", "gender wa", "wer", "cer"))


def test_without_a_second_speaker_there_is_no_interval():
    references, predictions, speakers = answers()
    assert metric_intervals(references, predictions, ["one"] * len(speakers)) == {"all": {}, "acted": {}, "free": {}}


def test_ccc_and_rmse_of_sums_are_those_of_the_values():
    x, y = np.random.default_rng(0).normal(3, 1, (2, 50))
    y += x
    sums = np.array([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=1)
    covariance = np.cov(x, y, bias=True)
    expected = 2 * covariance[0, 1] / (covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2)
    assert ccc(sums) == pytest.approx(expected)
    assert rmse(sums) == pytest.approx(np.sqrt(((x - y) ** 2).mean()))
