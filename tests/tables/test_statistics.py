"""The statistics equal those of scipy, scikit-learn and plain slow code, on constructed predictions."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score

from ser_mtl.evaluation.intervals import counts, interval, ua, wa
from ser_mtl.tables.statistics import compare, holm, spread

LABELS = ("angry", "happy", "neutral", "sad")


def rows(speakers: int, utterances: int, right: float, seed: int = 0, speaker_effect: float = 0.0) -> list[dict]:
    """Prediction rows; the probability to recognise a speaker is about `right`, give or take `speaker_effect`."""
    random = np.random.default_rng(seed)
    truth = np.random.default_rng(99)
    predicted = []
    for speaker in range(speakers):
        chance = np.clip(right + speaker_effect * random.normal(), 0, 1)
        for number in range(utterances):
            label = str(truth.choice(LABELS, p=[0.1, 0.4, 0.3, 0.2]))
            answer = label if random.random() < chance else str(random.choice(LABELS))
            emotion = {"label": label, "predicted": answer}
            predicted.append({"id": f"{speaker}-{number}", "speaker": f"s{speaker:02}", "emotion": emotion})
    return predicted


def pairs(predicted: list[dict]) -> tuple[list[str], list[str]]:
    return [row["emotion"]["label"] for row in predicted], [row["emotion"]["predicted"] for row in predicted]


def test_ua_and_wa_of_counts_are_those_of_scikit_learn():
    predicted = rows(7, 40, 0.6)
    of = counts([predicted])
    truth, answers = pairs(predicted)
    assert ua(of.right.sum(0), of.all.sum(0)) == pytest.approx(recall_score(truth, answers, average="macro"))
    assert wa(of.right.sum(0), of.all.sum(0)) == pytest.approx(accuracy_score(truth, answers))


def test_several_seeds_count_as_their_mean():
    one, other = rows(5, 20, 0.6, seed=1), rows(5, 20, 0.6, seed=2)
    expected = np.mean([recall_score(*pairs(predicted), average="macro") for predicted in (one, other)])
    assert interval(counts([one, other])).value == pytest.approx(expected)


def test_folds_and_seeds_together_count_every_utterance_once():
    whole = rows(6, 20, 0.6)
    folds = [[row for row in whole if int(row["speaker"][1:]) % 2 == fold] for fold in (0, 1)]
    of = counts([folds[0], folds[1], folds[0]])
    assert of.speakers == counts([whole]).speakers
    np.testing.assert_array_equal(of.all, counts([whole]).all)
    np.testing.assert_allclose(of.right, counts([whole]).right)


def test_an_utterance_without_annotation_or_speaker():
    predicted = rows(3, 4, 1.0)
    predicted[0]["emotion"]["label"] = None
    predicted[1]["speaker"] = None
    of = counts([predicted])
    assert of.all.sum() == 11
    assert predicted[1]["id"] in of.speakers and len(of.speakers) == 4


def test_with_one_utterance_per_speaker_the_interval_is_that_of_a_t_test():
    # One class, and one utterance per speaker: UA is a plain mean.
    right = np.random.default_rng(0).random(60) < 0.7
    predicted = [
        {"id": f"{i:02}", "speaker": f"s{i:02}", "emotion": {"label": "sad", "predicted": "sad" if ok else "happy"}}
        for i, ok in enumerate(right)
    ]
    expected = stats.ttest_1samp(right.astype(float), 0).confidence_interval(0.95)
    assert interval(counts([predicted])) == pytest.approx((right.mean(), expected.low, expected.high))


def test_the_interval_comes_from_the_ua_without_each_speaker():
    predicted = rows(8, 25, 0.6, speaker_effect=0.2)
    whole = recall_score(*pairs(predicted), average="macro")
    without = [
        recall_score(*pairs([row for row in predicted if row["speaker"] != f"s{s:02}"]), average="macro")
        for s in range(8)
    ]
    # Tukey's pseudo-values, and the interval of their mean, moved to the UA itself.
    pseudo = stats.ttest_1samp(8 * whole - 7 * np.array(without), 0)
    low, high = np.array(pseudo.confidence_interval(0.95)) - np.mean(8 * whole - 7 * np.array(without)) + whole
    assert interval(counts([predicted])) == pytest.approx((whole, low, high))


def test_an_interval_stays_between_0_and_1():
    found = interval(counts([rows(3, 8, 0.95, speaker_effect=0.2)]))
    assert found.low >= 0 and found.high == 1


def test_a_class_of_one_speaker_alone_does_not_break_the_interval():
    predicted = rows(5, 20, 0.6, seed=1)
    predicted[0]["emotion"] = {"label": "fearful", "predicted": "fearful"}
    seeds = [predicted, rows(5, 20, 0.6, seed=2), rows(5, 20, 0.6, seed=3)]
    seeds[1][0]["emotion"] = seeds[2][0]["emotion"] = {"label": "fearful", "predicted": "sad"}
    assert np.isfinite(interval(counts(seeds))).all()


def test_different_speakers_make_the_interval_wider():
    predicted = rows(10, 100, 0.6, speaker_effect=0.3)
    alone = [row | {"speaker": None} for row in predicted]
    wide, narrow = interval(counts([predicted])), interval(counts([alone]))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_speaker_has_no_interval():
    assert np.isnan(interval(counts([rows(1, 20, 0.5)])).low)


def by_fold(predicted: list[dict], folds: int) -> list[list[dict]]:
    """The rows of each fold, the speakers dealt in turn."""
    return [[row for row in predicted if int(row["speaker"][1:]) % folds == fold] for fold in range(folds)]


def test_the_test_and_the_interval_of_a_difference_are_over_folds():
    systems = rows(10, 30, 0.7, seed=1), rows(10, 30, 0.6, seed=2)
    found = compare(*(counts(by_fold(system, 5)) for system in systems))
    whole, *without = [
        np.subtract(*(recall_score(*pairs([row for row in system if row not in left]), average="macro")
                      for system, left in zip(systems, left_out, strict=True)))
        for left_out in [([], []), *zip(*(by_fold(system, 5) for system in systems), strict=True)]
    ]  # fmt: skip
    pseudo = 5 * whole - 4 * np.array(without)
    error = stats.sem(pseudo)
    reach = stats.t.ppf(0.975, 4) * error
    assert found.difference == pytest.approx((whole, whole - reach, whole + reach))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(whole) / error, 4))
    assert found.folds == 5


def test_folds_are_the_same_in_whatever_order_the_runs_come():
    one, other = (by_fold(rows(6, 20, 0.6, seed=seed), 3) for seed in (1, 2))
    assert compare(counts(one), counts([*other[::-1], *other])) == compare(counts(one), counts(other))


def test_fewer_than_three_folds_have_no_interval():
    one, other = ([row for row in rows(2, 24, right) if row["speaker"] < "s02"] for right in (1.0, 0.1))
    found = compare(counts(by_fold(one, 2)), counts(by_fold(other, 2)))
    assert found.difference.value > 0.3 and np.isnan(found.difference.low)
    assert (found.p, found.folds) == (1, 2)


def test_the_same_difference_in_every_fold_is_certain():
    one, other = (counts(by_fold(rows(4, 12, right), 4)) for right in (1.0, 1.0))
    other.right[:] = 0
    assert compare(one, other).p == 0


def test_a_system_and_itself_do_not_differ():
    found = compare(*(counts(by_fold(rows(6, 10, 0.5), 3)) for _ in range(2)))
    assert found.difference == (0, 0, 0) and found.p == 1


def test_other_utterances_cannot_be_compared():
    with pytest.raises(ValueError, match="same utterances"):
        compare(counts([rows(5, 10, 0.5)]), counts([rows(6, 10, 0.5)]))


def test_holm_by_hand():
    # Sorted: 0.01 x 4, 0.02 x 3, 0.03 x 2 (0.06 already), 0.9.
    assert holm([0.02, 0.9, 0.01, 0.03]) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.04]) == [0.04]


def test_spread_over_folds_and_over_seeds():
    figures = {(1, 0): 0.7, (2, 0): 0.8, (1, 1): 0.72, (2, 1): 0.82}
    found = spread(figures)
    assert found.mean == pytest.approx(0.76)
    assert found.over_folds == pytest.approx(np.std([0.71, 0.81], ddof=1))
    assert found.over_seeds == pytest.approx(np.std([0.75, 0.77], ddof=1))
    assert np.isnan(spread({(1, 0): 0.7}).over_seeds)
