"""The line: layer and C by UA on dev, or over folds of train that keep groups apart; never by the test."""

from itertools import product

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score
from sklearn.model_selection import GroupKFold

from ser_mtl.evaluation.line import STRENGTHS, Pooled, fit_line
from ser_mtl.evaluation.results import results_table

LAYERS = 3


def pooled(utterances: int, seed: int, groups: int = 4) -> Pooled:
    """Noise, with some of the emotion in the middle layer, and the group in all of them."""
    random = np.random.default_rng(seed)
    emotions = random.permutation(np.array(["angry", "happy", "sad"]).repeat(utterances // 3))
    group = np.arange(utterances) % groups
    layers = random.normal(size=(utterances, LAYERS, 6)) * [1, 10, 100, 1, 1, 1] + group[:, None, None]
    layers[:, 1, 3] += (emotions == "sad") - 0.5 * (emotions == "happy")
    return Pooled(layers.astype(np.float32), emotions, group)


def by_hand(train: Pooled, held_out: Pooled, layer: int, c: float) -> np.ndarray:
    """Predictions, with the standardisation written out."""
    mean, deviation = train.layers[:, layer].mean(0), train.layers[:, layer].std(0)
    fitted = LogisticRegression(C=c, max_iter=2000).fit((train.layers[:, layer] - mean) / deviation, train.emotions)
    return fitted.predict((held_out.layers[:, layer] - mean) / deviation)


def ua_by_hand(train: Pooled, held_out: Pooled, layer: int, c: float) -> float:
    return balanced_accuracy_score(held_out.emotions, by_hand(train, held_out, layer, c))


@pytest.mark.parametrize("with_dev", [True, False])
def test_layer_and_c_are_the_best_on_dev_or_over_folds_of_speakers(with_dev):
    train, dev, test = pooled(60, 0), pooled(30, 1), pooled(30, 2)
    divisions = [(train, dev)]
    if not with_dev:
        folds = GroupKFold(4).split(train.emotions, groups=train.groups)
        divisions = [(train[a], train[b]) for a, b in folds]
        assert all(not set(a.groups) & set(b.groups) for a, b in divisions)
    scores = {
        (c, layer): np.mean([ua_by_hand(a, b, layer, c) for a, b in divisions])
        for c, layer in product(STRENGTHS, range(LAYERS))
    }
    c, layer = max(scores, key=scores.__getitem__)
    line = fit_line(train, dev if with_dev else None, test)
    assert (line["C"], line["layer"], line["layers"]) == (c, layer, LAYERS - 1)
    assert line["chosen_ua"] == pytest.approx(scores[c, layer])
    assert line["chosen_on"] == ("dev" if with_dev else "train")
    predicted = by_hand(train, test, layer, c)
    assert line["ua"] == pytest.approx(balanced_accuracy_score(test.emotions, predicted))
    assert line["wa"] == pytest.approx(accuracy_score(test.emotions, predicted))
    assert line["macro_f1"] == pytest.approx(f1_score(test.emotions, predicted, average="macro"))
    assert (line["n"], line["train"]) == (30, 60)


def test_the_test_set_chooses_nothing():
    train, dev, test = pooled(60, 0), pooled(30, 1), pooled(30, 2)
    shuffled = Pooled(test.layers, test.emotions[::-1], test.groups)
    for held_out in (dev, None):
        one, other = fit_line(train, held_out, test), fit_line(train, held_out, shuffled)
        assert {**one, **dict.fromkeys(("ua", "wa", "macro_f1"))} == {
            **other,
            **dict.fromkeys(("ua", "wa", "macro_f1")),
        }


@pytest.mark.parametrize("groups", [1, 2, 3])
def test_few_speakers_have_a_line_too(groups):
    train = pooled(12, 0, groups)
    train.emotions[train.groups == 0] = "sad"  # a fold may leave one emotion to learn from, or two
    train.emotions[-1] = "angry"
    assert 0 <= fit_line(train, None, pooled(6, 1))["ua"] <= 1


@pytest.mark.parametrize(("ua", "said"), [(0.7496, None), (0.7, "5.0 points below"), (0.8, None)])
def test_a_run_below_its_line_says_so_and_by_how_much(ua, said):
    line = fit_line(pooled(60, 0), None, pooled(30, 2)) | {"ua": 0.75, "encoder": "pretrained"}
    table = results_table({"test": {"all": {"n": 30, "emotion": {"ua": ua, "wa": 0.5, "macro_f1": 0.5}}}, "line": line})
    (row,) = [text.split() for text in table.splitlines() if text.startswith("frozen encoder")]
    assert row[2:] == ["30", "75.0", f"{100 * line['wa']:.1f}", f"{100 * line['macro_f1']:.1f}"]
    assert ("below" in table) == (said is not None) and (said or "") in table.replace("\n", " ")
