"""Uncertainty of one system: intervals over speakers, because utterances of one speaker are alike.

The jackknife with Student's t. With so few speakers, the intervals of a bootstrap are too narrow; these are not
(`tests/tables/test_coverage.py`).
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

_ROUNDING = 1e-12


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval; the ends are NaN if there are too few speakers or folds for one."""

    value: float
    low: float
    high: float


Statistic = Callable[[np.ndarray], np.ndarray]
"""Sums, (..., cells) -> a metric of each, (...)."""


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


def counts(runs: Iterable[list[dict]], task: str = "emotion") -> Counts:
    """Count the prediction rows of all runs of one system, over any folds and seeds.

    An utterance predicted by several seeds counts once, with their mean correctness. One without a speaker counts as a
    speaker of its own.

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

    The interval is for other speakers and the same trained models: it does not include the variance of training.
    """
    cells = np.stack([counts.right, counts.all], axis=1)
    return over_units(cells, counts.speakers, lambda sums: metric(sums[..., 0, :], sums[..., 1, :]))


def over_units(
    cells: np.ndarray, units: Sequence[str], statistic: Statistic, bounds: tuple[float, float] = (0, 1)
) -> Interval:
    """A statistic of the sum of all cells, with its 95 % jackknife interval over units, cut at the bounds.

    Args:
        cells: (rows, ...), the terms of the sum.
        units: of each row, such as its speaker.
        statistic: (..., cells) -> (...).
        bounds: of the statistic.
    """
    value = float(statistic(cells.sum(axis=0)))
    if len(set(units)) < 2:
        return Interval(value, np.nan, np.nan)
    (_, low, high), _ = jackknife(value, statistic(without_each(cells, units)))
    return Interval(value, *np.clip((low, high), *bounds).tolist())


def without_each(cells: np.ndarray, units: Sequence[str]) -> np.ndarray:
    """Leave-one-out sums: (rows, ...) and the unit of each row -> (units, ...), sums without the rows of one unit."""
    names, unit_of = np.unique(np.array(units), return_inverse=True)
    by_unit = np.zeros((len(names), *cells.shape[1:]))
    np.add.at(by_unit, unit_of, cells)
    return cells.sum(axis=0) - by_unit


def jackknife(value: float, without: np.ndarray) -> tuple[Interval, float]:
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


def ends(interval: Interval, form: str = ".1f") -> str:
    """The ends of an interval in brackets, after a space; empty if it has none."""
    return "" if np.isnan(interval.low) else f" ({100 * interval.low:{form}} to {100 * interval.high:{form}})"


def with_ends(interval: Interval, form: str = ".1f") -> str:
    """A metric in percent, with the ends of its interval."""
    return f"{100 * interval.value:{form}}{ends(interval, form)}"
