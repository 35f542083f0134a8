"""The statistics equal those of scipy, scikit-learn and plain slow code, on constructed predictions."""

from itertools import product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, recall_score

from ser_mtl.tables.statistics import compare, counts, holm, interval, spread, ua, wa

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


def test_with_one_utterance_per_speaker_the_interval_is_scipys():
    # One class, and one utterance per speaker: UA is a plain mean, and drawing speakers is drawing utterances.
    right = np.random.default_rng(0).random(60) < 0.7
    predicted = [
        {"id": str(i), "speaker": f"s{i:02}", "emotion": {"label": "sad", "predicted": "sad" if ok else "happy"}}
        for i, ok in enumerate(right)
    ]
    expected = stats.bootstrap((right.astype(float),), np.mean, method="percentile", rng=3, n_resamples=9999)
    found = interval(counts([predicted]))
    assert found.value == right.mean()
    assert found.low == pytest.approx(expected.confidence_interval.low, abs=0.02)
    assert found.high == pytest.approx(expected.confidence_interval.high, abs=0.02)


def test_the_interval_is_the_percentiles_of_ua_over_drawn_speakers():
    predicted = rows(8, 25, 0.6, speaker_effect=0.2)
    by_speaker = {f"s{s:02}": [row for row in predicted if row["speaker"] == f"s{s:02}"] for s in range(8)}
    random = np.random.default_rng(5)
    drawn = []
    for _ in range(1500):
        sample = [row for name in random.choice(sorted(by_speaker), 8) for row in by_speaker[name]]
        drawn.append(recall_score(*pairs(sample), average="macro", labels=sorted({r for r in pairs(sample)[0]})))
    low, high = np.percentile(drawn, [2.5, 97.5])
    found = interval(counts([predicted]))
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)


def test_different_speakers_make_the_interval_wider():
    predicted = rows(10, 100, 0.6, speaker_effect=0.3)
    alone = [row | {"speaker": None} for row in predicted]
    wide, narrow = interval(counts([predicted])), interval(counts([alone]))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_one_speaker_has_no_interval():
    assert np.isnan(interval(counts([rows(1, 20, 0.5)])).low)


def test_the_p_value_is_the_share_of_all_exchanges_of_whole_speakers():
    one, other = rows(6, 30, 0.7, seed=1), rows(6, 30, 0.6, seed=2)

    def difference(exchanged: tuple[bool, ...]) -> float:
        """UA of both systems after swapping the answers of some speakers, computed the slow way."""
        mixed = [
            [b if exchanged[int(a["speaker"][1:])] else a for a, b in zip(first, second, strict=True)]
            for first, second in ((one, other), (other, one))
        ]
        return recall_score(*pairs(mixed[0]), average="macro") - recall_score(*pairs(mixed[1]), average="macro")

    observed = difference((False,) * 6)
    everything = [difference(exchanged) for exchanged in product((False, True), repeat=6)]
    expected = np.mean(np.abs(everything) >= abs(observed) - 1e-12)
    found = compare(counts([one]), counts([other]))
    assert found.difference.value == pytest.approx(observed)
    assert found.p == pytest.approx(expected)
    assert found.speakers == 6


def test_the_p_value_agrees_with_scipys_paired_test_on_many_speakers():
    one, other = counts([rows(60, 40, 0.62, seed=1)]), counts([rows(60, 40, 0.58, seed=2)])
    d = ((one.right - other.right) / one.all.sum(0)).mean(1)
    assert compare(one, other).p == pytest.approx(stats.ttest_1samp(d, 0).pvalue, abs=0.03)


def test_equal_systems_differ_in_a_twentieth_of_the_tests():
    found = [
        compare(counts([rows(7, 12, 0.6, seed=2 * i)]), counts([rows(7, 12, 0.6, seed=2 * i + 1)])).p < 0.05
        for i in range(120)
    ]
    assert stats.binomtest(sum(found), len(found), 0.05).pvalue > 0.01


def test_a_system_and_itself_do_not_differ():
    of = counts([rows(5, 10, 0.5)])
    found = compare(of, of)
    assert found.difference.value == 0 and found.p == 1


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
