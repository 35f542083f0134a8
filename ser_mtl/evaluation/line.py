"""The line, a baseline for a finetuned model: a linear probe of the frozen encoder's mean-pooled layers."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from ser_mtl.evaluation.scores import classification_scores

STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Values of C, scikit-learn's inverse strength of regularisation, from strong to weak."""

_FOLDS = 5
"""Number of folds of the training utterances, for corpora without a development set."""


@dataclass(frozen=True)
class Pooled:
    """Utterances as inputs of a classifier.

    Attributes:
        layers: mean over real frames of each hidden state, (utterances, layers + 1, d).
        emotions: (utterances,).
        groups: such as the speaker; a group must not be on both sides of a split, (utterances,).
    """

    layers: np.ndarray
    emotions: np.ndarray
    groups: np.ndarray

    def __getitem__(self, chosen: np.ndarray) -> "Pooled":
        """Some of the utterances."""
        return Pooled(self.layers[chosen], self.emotions[chosen], self.groups[chosen])


def fit_line(train: Pooled, dev: Pooled | None, test: Pooled) -> dict:
    """Fit the line on train, and score it on test.

    Layer and C are those with the best UA on dev or, without dev, with the best mean UA over five folds of train,
    disjoint by group. Ties go to the stronger regularisation, then to the lower layer.

    Args:
        train: utterances of at least two emotions.
        dev: utterances with an emotion; None if there are none.
        test: at least one utterance.

    Returns:
        {"ua", "wa", "macro_f1", "n": test utterances, "layer": 0 for the input of the first layer, "layers", "C",
        "train": training utterances, "chosen_on": "dev" or "train", "chosen_ua": the UA that layer and C had there}
    """
    c, layer, chosen_ua = choose(train, dev)
    return {
        **_scores(train, test, layer, c),
        "n": len(test.emotions),
        "layer": layer,
        "layers": train.layers.shape[1] - 1,
        "C": c,
        "train": len(train.emotions),
        "chosen_on": "train" if dev is None else "dev",
        "chosen_ua": chosen_ua,
    }


def choose(train: Pooled, dev: Pooled | None) -> tuple[float, int, float]:
    """The best C and layer, and their UA; see `fit_line`."""
    divisions = [(train, dev)] if dev is not None else [(train[a], train[b]) for a, b in _divisions(train)]
    candidates = list(product(STRENGTHS, range(train.layers.shape[1])))
    scores = [np.mean([_scores(a, b, layer, c)["ua"] for a, b in divisions]) for c, layer in candidates]
    best = int(np.argmax(scores))
    return *candidates[best], float(scores[best])


def classifier(train: Pooled, layer: int, c: float) -> Pipeline:
    """A logistic regression on one layer, each of its dimensions standardised."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000))
    return model.fit(train.layers[:, layer], train.emotions)


def _scores(train: Pooled, held_out: Pooled, layer: int, c: float) -> dict[str, float]:
    predicted = classifier(train, layer, c).predict(held_out.layers[:, layer])
    return classification_scores(held_out.emotions.tolist(), predicted.tolist())


def _divisions(train: Pooled) -> list[tuple[np.ndarray, np.ndarray]]:
    """Folds of the training utterances, disjoint by group if there are two groups.

    All utterances are on both sides if no fold leaves two emotions to learn.
    """
    groups = train.groups if len(set(train.groups)) > 1 else np.arange(len(train.groups))
    folds = GroupKFold(min(_FOLDS, len(set(groups)))).split(groups, groups=groups)
    everything = np.arange(len(groups))
    return [(a, b) for a, b in folds if len(set(train.emotions[a])) > 1] or [(everything, everything)]
