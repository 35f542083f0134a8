"""Uncertainty of many runs: spread over folds and seeds, paired tests.

Differences between two systems are tested over folds: the speakers of a fold are recognised by the same two trained
models, so they share the luck of the training. Intervals of one system are in `ser_mtl.evaluation.intervals`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ser_mtl.evaluation.intervals import Counts, Interval, jackknife, ua, without_each

FEWEST_FOLDS = 3
"""With two folds, differences that are equal by chance would look certain."""


class Spread(NamedTuple):
    """Mean of a metric and its standard deviations; NaN if there is only one value."""

    mean: float
    over_folds: float
    over_seeds: float


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


def compare(first: Counts, second: Counts) -> Comparison:
    """Test whether two systems differ in UA on the same utterances, as they would for other speakers and trainings.

    The interval is the jackknife's over folds, and p belongs to it: below 0.05 exactly if the interval excludes zero.
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
    total = without_each(first.all, first.folds)
    one, other = (ua(without_each(system.right, system.folds), total) for system in (first, second))
    return Comparison(*jackknife(difference, one - other), folds)


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of m p-values: the i-th smallest times m - i, never less than the one before."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, dtype=float)[order])
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result.tolist()


def _deviation_of_means(metrics: dict[tuple[int, int], float], key: int) -> float:
    groups = {name[key] for name in metrics}
    means = [np.mean([value for name, value in metrics.items() if name[key] == group]) for group in groups]
    return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan
