"""Intervals over speakers for all metrics of a set of predictions: emotion, the other tasks, transcripts."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jiwer
import numpy as np

from ser_mtl.corpora.names import ALL
from ser_mtl.evaluation.intervals import Interval, Statistic, over_units, ua, wa
from ser_mtl.evaluation.predictions import references_and_predictions
from ser_mtl.metrics import METRIC
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS

Pairs = list[tuple[Any, Any]]
"""References and predictions."""


def macro_f1(confusion: np.ndarray) -> np.ndarray:
    """Mean of the F1 of the classes that occur or were predicted, (..., classes, classes) -> (...)."""
    right, sums = np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(-1) + confusion.sum(-2)
    return np.nanmean(np.divide(2 * right, sums, out=np.full(sums.shape, np.nan), where=sums > 0), axis=-1)


def ccc(sums: np.ndarray) -> np.ndarray:
    """The concordance correlation coefficient (Lin 1989) from sums of 1, x, y, x^2, y^2 and xy, (..., 6) -> (...)."""
    x, y, xx, yy, xy = np.moveaxis(sums[..., 1:] / sums[..., :1], -1, 0)
    return 2 * (xy - x * y) / (xx - x**2 + yy - y**2 + (x - y) ** 2)


def rmse(sums: np.ndarray) -> np.ndarray:
    """The root of the mean squared error, from the same sums."""
    return np.sqrt(np.maximum(sums[..., 3] + sums[..., 4] - 2 * sums[..., 5], 0) / sums[..., 0])


def ccc_over_speakers(runs: Iterable[list[dict]], task: str) -> Interval:
    """The CCC of a value over all runs of one system, of any folds and seeds, with its 95 % interval over speakers.

    An utterance predicted by several seeds counts once: its sums are averaged.

    Args:
        runs: the rows of each run's `predictions.jsonl` that have a label of the task.
        task: a value that was trained.
    """
    pairs: dict[str, Pairs] = defaultdict(list)
    speakers: dict[str, str] = {}
    for row in (row for rows in runs for row in rows):
        pairs[row["id"]].append((row[task]["label"], row[task]["predicted"]))
        speakers[row["id"]] = row["speaker"] or row["id"]
    cells = np.stack([_moments(np.array(found)) / len(found) for found in pairs.values()])
    return over_units(cells, list(speakers.values()), ccc, _BOUNDS["ccc"])


def _recalls(metric: Any) -> Statistic:
    return lambda confusion: metric(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


_OF_CONFUSION: dict[str, Statistic] = {"ua": _recalls(ua), "wa": _recalls(wa), "macro_f1": macro_f1}
_OF_VALUES: dict[str, Statistic] = {"ccc": ccc, "rmse": rmse}
_BOUNDS = {"ccc": (-1.0, 1.0), "rmse": (0.0, np.inf)}
_OF_EDITS = {"wer": jiwer.process_words, "cer": jiwer.process_characters}


def intervals_over_speakers(rows: list[dict]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """`metric_intervals` of prediction rows."""
    references, predictions = references_and_predictions(rows)
    return metric_intervals(references, predictions, [row["speaker"] or f"utterance {row['id']}" for row in rows])


def metric_intervals(
    references: list[dict], predictions: list[dict], speakers: Sequence[str]
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """The 95 % jackknife intervals over speakers of `ser_mtl.evaluation.scores.metrics_by_group`.

    Args:
        references: rows as `SerMtlMetric` takes them.
        predictions: likewise.
        speakers: of the rows; an utterance without one counts as a speaker of its own, under a unique name.

    Returns:
        {group: {task: {metric: [low, high]}}} for the group `all` and the styles; without groups of one speaker.
    """
    groups = [ALL, *sorted({row["style"] for row in references} - {None})]
    found: dict = {group: {} for group in groups}
    for group in groups:
        rows = [row for row, reference in enumerate(references) if group in (ALL, reference["style"])]
        for task, metric, interval in _intervals(references, predictions, speakers, rows):
            if f"{task}_{metric}" in METRIC and not np.isnan(interval.low):
                found[group].setdefault(task, {})[metric] = [interval.low, interval.high]
    return found


def _intervals(
    references: list[dict], predictions: list[dict], speakers: Sequence[str], rows: list[int]
) -> Iterator[tuple[str, str, Interval]]:
    def pairs(reference: str, prediction: str) -> dict[str, Pairs]:
        """By speaker, the utterances that count; see `SerMtlMetric`."""
        by_speaker = defaultdict(list)
        for row in rows:
            label, answer = references[row].get(reference), predictions[row].get(prediction)
            if label not in (None, "") and answer is not None:
                by_speaker[speakers[row]].append((label, answer))
        return by_speaker

    for task in CLASSIFICATION_TASKS:
        if answers := pairs(task, task):
            cells = _confusions(answers)
            for key, statistic in _OF_CONFUSION.items():
                yield task, key, over_units(cells, list(answers), statistic)
    for task in (task.name for task in TASKS.values() if task.kind not in ("classes", "text")):
        if values := pairs(task, task):
            cells = np.stack([_moments(np.array(pairs, dtype=float)) for pairs in values.values()])
            for key, statistic in _OF_VALUES.items():
                yield task, key, over_units(cells, list(values), statistic, _BOUNDS[key])
    if texts := pairs("text", "text"):
        for key, compare in _OF_EDITS.items():
            cells = np.array([_edits(compare, spoken) for spoken in texts.values()], dtype=float)
            yield "asr", key, over_units(cells, list(texts), lambda sums: sums[..., 0] / sums[..., 1], (0, np.inf))


def _confusions(answers: dict[str, Pairs]) -> np.ndarray:
    """(speakers, classes, classes)."""
    labels = sorted({label for pairs in answers.values() for pair in pairs for label in pair})
    index = {label: i for i, label in enumerate(labels)}
    cells = np.zeros((len(answers), len(labels), len(labels)))
    for speaker, pairs in zip(cells, answers.values(), strict=True):
        for label, answer in pairs:
            speaker[index[label], index[answer]] += 1
    return cells


def _moments(pairs: np.ndarray) -> np.ndarray:
    """(pairs, 2) -> the sums of 1, x, y, x^2, y^2 and xy, (6,)."""
    x, y = pairs.T
    return np.array([np.ones_like(x), x, y, x * x, y * y, x * y]).sum(axis=1)


def _edits(compare: Any, spoken: Pairs) -> tuple[int, int]:
    """Number of errors, and of the references' words or characters."""
    found = compare(*map(list, zip(*spoken, strict=True)))
    errors = found.substitutions + found.deletions + found.insertions
    return errors, found.hits + found.substitutions + found.deletions
