"""Intervals and tests keep what they promise on simulated cross-validations with the sizes of IEMOCAP."""

import numpy as np
import pytest

from ser_mtl.evaluation.intervals import Counts, interval
from ser_mtl.tables.statistics import compare

# Neutral, happy, angry and sad utterances of the five sessions, each with two speakers.
SESSIONS = [
    [384, 278, 229, 194],
    [362, 327, 137, 197],
    [320, 286, 240, 305],
    [258, 303, 327, 143],
    [384, 442, 170, 245],
]
TIMES = 1500


def simulated(random: np.random.Generator, training: float, systems: int) -> list[Counts]:
    """Counts of systems that are equally good, on the same ten speakers.

    Logits of being right have normal parts: of the speaker, and of the speaker and the class, each of all systems and
    of one; and those that the two speakers of a session share, since the same trained model recognises them, of the
    size `training`.
    """
    women = random.binomial(SESSIONS, random.beta(40, 40, (5, 4)))
    total = np.stack([women, SESSIONS - women], axis=1).reshape(10, 4)
    speakers, folds = (tuple(f"{i:02}" for i in number) for number in (np.arange(10), np.arange(10) // 2))
    shared = 0.5 * random.normal(size=(10, 1)) + 0.1 * random.normal(size=(10, 4))
    found = []
    for _ in range(systems):
        own = 0.2 * random.normal(size=(10, 1)) + 0.2 * random.normal(size=(10, 4))
        luck = training * (random.normal(size=(5, 1)) + random.normal(size=(5, 4)))
        logits = 1.1 + shared + own + np.repeat(luck, 2, axis=0)
        found.append(Counts(random.binomial(total, 1 / (1 + np.exp(-logits))), total, speakers, folds))
    return found


def test_the_interval_of_ua_covers_it_in_95_percent_of_the_corpora():
    random = np.random.default_rng(0)
    found = [interval(*simulated(random, training=0.0, systems=1)) for _ in range(TIMES)]
    truth = np.mean([one.value for one in found])
    assert 0.93 < np.mean([one.low < truth < one.high for one in found]) < 0.97


@pytest.mark.parametrize("training", [0.0, 0.1, 0.4])
def test_equal_systems_differ_in_a_twentieth_of_the_tests(training):
    random = np.random.default_rng(1)
    found = [compare(*simulated(random, training, systems=2)) for _ in range(TIMES)]
    covered = np.array([one.difference.low < 0 < one.difference.high for one in found])
    assert 0.935 < covered.mean() < 0.97
    np.testing.assert_array_equal(covered, [one.p >= 0.05 for one in found])
