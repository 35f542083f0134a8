"""Uncertainty: spread over folds and seeds, jackknife intervals, paired tests.

An interval of one system is over speakers: utterances of one speaker are alike. A difference between two systems is
over folds: the speakers of a fold are recognised by the same two trained models, so they share the luck of the
training. A bootstrap of so few speakers or folds is too sure; the jackknife with Student's t is not
(`tests/tables/test_coverage.py`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST_FOLDS = 3
"""With two folds, differences that are equal by chance would look certain."""

_ROUNDING = 1e-12


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval; the ends are NaN if there are too few speakers or folds for one."""

    value: float
    low: float
    high: float


class Spread(NamedTuple):
    """Mean of a metric and its standard deviations; NaN if there is only one value."""

    mean: float
    over_folds: float
    over_seeds: float


def ua(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Mean of the recalls of the classes that occur, (..., classes) -> (...)."""
    recalls = np.divide(right, total, out=np.full(np.shape(total), np.nan), where=np.asarray(total) > 0)
    return np.nanmean(recalls, axis=-1)


def wa(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Share of correct utterances, (..., classes) -> (...)."""
    return right.sum(axis=-1) / total.sum(axis=-1)


@dataclass(frozen=True)
class Counts:
    """Counts by class, from which UA and WA of one system are computed; a row for each speaker (in each fold).

    right: (rows, classes) correctly recognised utterances, averaged over seeds.
    all: (rows, classes) all utterances.
    speakers: the speaker of each row, sorted.
    folds: the fold of each row, named by its smallest utterance id.
    """

    right: np.ndarray
    all: np.ndarray
    speakers: tuple[str, ...]
    folds: tuple[str, ...]

    def overall(self, metric: Callable[[np.ndarray, np.ndarray], np.ndarray] = ua) -> float:
        """UA, or WA, of all speakers together."""
        return float(metric(self.right.sum(axis=0), self.all.sum(axis=0)))


class Comparison(NamedTuple):
    """A difference of UA between two systems on the same utterances, its interval, and the p-value of no difference."""

    difference: Interval
    p: float
    folds: int


def spread(metrics: dict[tuple[int, int], float]) -> Spread:
    """Mean over all runs, and the standard deviations (n - 1) of the folds' means and of the seeds' means.

    Args:
        metrics: the metric of each run, by fold and seed.
    """
    return Spread(
        float(np.mean(list(metrics.values()))), _deviation_of_means(metrics, 0), _deviation_of_means(metrics, 1)
    )


def counts(runs: Iterable[list[dict]], task: str = "emotion") -> Counts:
    """Count the prediction rows of all runs of one system, over any folds and seeds.

    An utterance predicted by several seeds counts once, as correct as they are on average. One without a speaker counts
    as a speaker of its own.

    Args:
        runs: the rows of each run's `predictions.jsonl`; runs of one fold have the same utterances.
        task: a classification task that was trained.
    """
    answers: dict[str, list[bool]] = defaultdict(list)
    place: dict[str, tuple[tuple[str, str], str]] = {}
    for rows in runs:
        fold = min((row["id"] for row in rows), default="")
        for row in (row for row in rows if row[task]["label"] is not None):
            answers[row["id"]].append(row[task]["predicted"] == row[task]["label"])
            place[row["id"]] = (row["speaker"] or row["id"], fold), row[task]["label"]
    units, classes = (sorted(set(names)) for names in zip(*place.values(), strict=True))
    row_of, column_of = ({name: i for i, name in enumerate(names)} for names in (units, classes))
    right, total = np.zeros((2, len(units), len(classes)))
    for name, (unit, label) in place.items():
        cell = row_of[unit], column_of[label]
        total[cell] += 1
        right[cell] += np.mean(answers[name])
    speakers, folds = zip(*units, strict=True)
    return Counts(right, total, speakers, folds)


def interval(counts: Counts, metric: Callable[[np.ndarray, np.ndarray], np.ndarray] = ua) -> Interval:
    """A metric of all utterances together, with its 95 % jackknife interval over speakers, cut at 0 and 1.

    The interval is for other speakers and the same trained models: how much training depends on luck is not in it.
    """
    value = counts.overall(metric)
    if len(set(counts.speakers)) < 2:
        return Interval(value, np.nan, np.nan)
    without = metric(_without_each(counts.right, counts.speakers), _without_each(counts.all, counts.speakers))
    (_, low, high), _ = _jackknife(value, without)
    return Interval(value, *np.clip((low, high), 0, 1).tolist())


def compare(first: Counts, second: Counts) -> Comparison:
    """Test whether two systems differ in UA on the same utterances, for other speakers and other trainings.

    The interval is the jackknife's over folds, and p belongs to it: below 0.05 exactly if the interval leaves out zero.
    With fewer than `FEWEST_FOLDS` folds there is no interval, and p is 1.

    Raises:
        ValueError: the systems did not predict the same utterances.
    """
    same = (first.speakers, first.folds) == (second.speakers, second.folds) and np.array_equal(first.all, second.all)
    if not same:
        raise ValueError("only predictions of the same utterances can be compared")
    difference, folds = first.overall() - second.overall(), len(set(first.folds))
    if folds < FEWEST_FOLDS:
        return Comparison(Interval(difference, np.nan, np.nan), 1.0, folds)
    total = _without_each(first.all, first.folds)
    one, other = (ua(_without_each(system.right, system.folds), total) for system in (first, second))
    return Comparison(*_jackknife(difference, one - other), folds)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of m p-values: the i-th smallest times m - i, never less than the one before."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, dtype=float)[order])
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result.tolist()


def _without_each(cells: np.ndarray, units: Sequence[str]) -> np.ndarray:
    """(rows, classes) and the unit of each row -> (units, classes): the sums of all rows but those of one unit."""
    names, unit_of = np.unique(np.array(units), return_inverse=True)
    by_unit = np.zeros((len(names), cells.shape[1]))
    np.add.at(by_unit, unit_of, cells)
    return cells.sum(axis=0) - by_unit


def _jackknife(value: float, without: np.ndarray) -> tuple[Interval, float]:
    """A statistic with its 95 % interval and the p-value of zero, by the jackknife (Tukey 1958).

    With theta_i the statistic without unit i of n, and theta their mean, the standard error is
    sqrt((n - 1) / n * sum (theta_i - theta)^2); value / error is taken to have Student's t with n - 1 degrees of
    freedom.

    Args:
        value: the statistic of all units.
        without: (units,), the statistic without each of them; at least two.
    """
    n = len(without)
    error = float(np.sqrt((n - 1) * np.var(without)))
    if abs(value) < _ROUNDING and error < _ROUNDING:
        return Interval(value, value, value), 1.0
    reach = float(stats.t.ppf(0.975, n - 1)) * error
    p = 2 * float(stats.t.sf(abs(value) / error, n - 1)) if error > 0 else 0.0
    return Interval(value, value - reach, value + reach), p


def _deviation_of_means(metrics: dict[tuple[int, int], float], key: int) -> float:
    groups = {name[key] for name in metrics}
    means = [np.mean([value for name, value in metrics.items() if name[key] == group]) for group in groups]
    return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan
