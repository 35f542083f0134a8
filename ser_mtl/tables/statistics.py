"""Uncertainty: spread over folds and seeds, intervals by bootstrap over speakers, paired tests.

Speakers are resampled, not utterances: utterances of one speaker are alike, and intervals over utterances would be too
narrow. None of this measures how much training depends on chance; the spread over seeds does.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy import stats

RESAMPLES = 9999


class Interval(NamedTuple):
    """A value and the ends of its 95 % interval; the ends are NaN if there is only one speaker."""

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
    with np.errstate(invalid="ignore"):
        return np.nanmean(right / total, axis=-1)


def wa(right: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Share of correct utterances, (..., classes) -> (...)."""
    return right.sum(axis=-1) / total.sum(axis=-1)


@dataclass(frozen=True)
class Counts:
    """Counts by speaker and class, from which UA and WA of one system are computed.

    right: (speakers, classes) correctly recognised utterances, averaged over seeds.
    all: (speakers, classes) all utterances.
    speakers: their names, sorted.
    """

    right: np.ndarray
    all: np.ndarray
    speakers: tuple[str, ...]

    def overall(self, metric: Callable[[np.ndarray, np.ndarray], np.ndarray] = ua) -> float:
        """UA, or WA, of all speakers together."""
        return float(metric(self.right.sum(axis=0), self.all.sum(axis=0)))


class Comparison(NamedTuple):
    """A difference of UA between two systems on the same utterances, its interval, and the p-value of no difference."""

    difference: Interval
    p: float
    speakers: int


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
        runs: the rows of each run's `predictions.jsonl`.
        task: a classification task that was trained.
    """
    answers: dict[str, list[bool]] = defaultdict(list)
    place: dict[str, tuple[str, str]] = {}
    for row in (row for rows in runs for row in rows if row[task]["label"] is not None):
        answers[row["id"]].append(row[task]["predicted"] == row[task]["label"])
        place[row["id"]] = row["speaker"] or row["id"], row[task]["label"]
    speakers, classes = (sorted(set(names)) for names in zip(*place.values(), strict=True))
    right, total = np.zeros((2, len(speakers), len(classes)))
    for name, (speaker, label) in place.items():
        cell = speakers.index(speaker), classes.index(label)
        total[cell] += 1
        right[cell] += np.mean(answers[name])
    return Counts(right, total, tuple(speakers))


def interval(counts: Counts, metric: Callable[[np.ndarray, np.ndarray], np.ndarray] = ua, seed: int = 0) -> Interval:
    """A metric of all utterances together, with its 95 % percentile interval by bootstrap over speakers."""
    right, total = counts.right, counts.all
    return _bootstrap(len(counts.speakers), lambda drawn: metric(right[drawn].sum(-2), total[drawn].sum(-2)), seed)


def compare(first: Counts, second: Counts, seed: int = 0) -> Comparison:
    """Test whether two systems differ in UA on the same utterances.

    The UA of all utterances is a sum over speakers s, so that the difference is the sum of

        d_s = mean over classes k of (right_1[s, k] - right_2[s, k]) / utterances of class k.

    If the systems were the same, swapping their answers for a speaker would change nothing but the sign of d_s.
    The p-value is the share of all ways to flip the signs (of 9,999 random ones, if there are more) whose sum is at
    least as far from zero: a two-sided permutation test, without assumptions on the distribution of errors. With one
    speaker p is 1.

    Raises:
        ValueError: the systems did not predict the same utterances.
    """
    if first.speakers != second.speakers or not np.array_equal(first.all, second.all):
        raise ValueError("only predictions of the same utterances can be compared")
    d = ((first.right - second.right) / first.all.sum(axis=0)).mean(axis=1)
    p = 1.0
    if len(d) > 1:
        p = stats.permutation_test(
            (d,), np.sum, permutation_type="samples", vectorized=True, n_resamples=RESAMPLES, rng=seed
        ).pvalue

    def difference(drawn: np.ndarray) -> np.ndarray:
        total = first.all[drawn].sum(-2)
        return ua(first.right[drawn].sum(-2), total) - ua(second.right[drawn].sum(-2), total)

    return Comparison(_bootstrap(len(d), difference, seed), float(p), len(d))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's correction (1979) of m p-values: the i-th smallest times m - i, never less than the one before."""
    order = np.argsort(p)
    corrected = np.maximum.accumulate((len(p) - np.arange(len(p))) * np.asarray(p, dtype=float)[order])
    result = np.empty(len(p))
    result[order] = np.minimum(corrected, 1)
    return result.tolist()


def _bootstrap(speakers: int, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> Interval:
    """`statistic` takes numbers of speakers, (..., speakers)."""
    everyone = np.arange(speakers)
    value = float(statistic(everyone))
    if speakers < 2:
        return Interval(value, np.nan, np.nan)
    drawn = stats.bootstrap(
        (everyone,), lambda numbers, axis: statistic(np.moveaxis(numbers, axis, -1)),
        vectorized=True, method="percentile", n_resamples=RESAMPLES, batch=500, rng=seed,
    )  # fmt: skip
    return Interval(value, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high))


def _deviation_of_means(metrics: dict[tuple[int, int], float], key: int) -> float:
    groups = {name[key] for name in metrics}
    means = [np.mean([value for name, value in metrics.items() if name[key] == group]) for group in groups]
    return float(np.std(means, ddof=1)) if len(means) > 1 else np.nan
