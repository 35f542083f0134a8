"""Calibration of emotion's probabilities: expected calibration error, and temperature scaling.

Both are computed from prediction rows, whose probabilities p are softmax(z) of the plain logits z. A temperature T
turns them into softmax(z / T), which equals softmax(log(p) / T), so the logits are not needed. 1 / T turns the
calibrated probabilities of `predictions.jsonl` back into p.
"""

from collections.abc import Set
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from ser_mtl.errors import notice
from ser_mtl.evaluation.predictions import rounded

BINS = 15
_TINY = 1e-30  # in place of a probability of zero, which has no logarithm
_HOTTEST = 10.0  # T is searched between 1 / 10 and 10


@dataclass
class Reliability:
    """Utterances by the probability of the predicted class, in bins of equal width: (bins,) each.

    `confidence` is the mean of these probabilities, `accuracy` the share of correct predictions, both 0 in empty bins.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error: mean over utterances of |accuracy - confidence| of their bin."""
        return float(np.average(np.abs(self.accuracy - self.confidence), weights=self.count))


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> Reliability:
    """Sort predictions into `BINS` bins of confidence.

    Args:
        probabilities: (utterances, classes).
        targets: (utterances,), indices of the annotated classes.
    """
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    # A bin includes its upper edge and excludes its lower one.
    bins = np.ceil(confidence * BINS).astype(int).clip(1, BINS) - 1
    count, sum_confidence, sum_right = (
        np.bincount(bins, weights=weights, minlength=BINS) for weights in (None, confidence, right)
    )
    some = np.maximum(count, 1)
    return Reliability(count, sum_confidence / some, sum_right / some)


def tempered(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """softmax(z / T) from softmax(z): (utterances, classes)."""
    return softmax(np.log(probabilities.clip(min=_TINY)) / temperature, axis=1)


def fit_temperature(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """The T between 1/10 and 10 that maximises the likelihood of the targets (Guo et al. 2017, section 4.2).

    Rounded to four decimals; 1 if no other value makes the targets more likely, and without targets.

    Args:
        probabilities: (utterances, classes), softmax(z).
        targets: (utterances,), indices of the annotated classes.
    """
    if len(targets) == 0:
        return 1.0
    logits = np.log(probabilities.clip(min=_TINY))
    rows = np.arange(len(targets))

    def loss(log_temperature: float) -> float:
        return -log_softmax(logits / np.exp(log_temperature), axis=1)[rows, targets].mean()

    bound = np.log(_HOTTEST)
    fitted = round(float(np.exp(minimize_scalar(loss, bounds=(-bound, bound), method="bounded").x)), 4)
    return fitted if loss(np.log(fitted)) < loss(0.0) else 1.0


def emotion_probabilities(rows: list[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (utterances, classes) and targets (utterances,) of the prediction rows with an emotion label."""
    emotions = [row["emotion"] for row in rows if row["emotion"]["label"] is not None]
    probabilities = np.array([list(emotion["probabilities"].values()) for emotion in emotions])
    targets = np.array([list(emotion["probabilities"]).index(emotion["label"]) for emotion in emotions])
    return probabilities, targets


def calibrated(rows: list[dict], temperature: float) -> list[dict]:
    """Prediction rows with emotion's probabilities divided by the temperature; those of other tasks are unchanged."""
    return [
        row | {"emotion": _tempered_answer(row["emotion"], temperature)} if "emotion" in row else row for row in rows
    ]


def _tempered_answer(answer: dict, temperature: float) -> dict:
    if temperature == 1:
        return answer
    p = tempered(np.array([list(answer["probabilities"].values())]), temperature)[0]
    return answer | {"probabilities": rounded(answer["probabilities"], p)}


def calibration(test: list[dict], dev: list[dict] | None, trained_on: Set[str | None] = frozenset()) -> dict:
    """The "calibration" of `results.json`, from the prediction rows of the test set and of the development set (dev).

    Args:
        test: rows that are not calibrated; empty if nothing is held out.
        dev: likewise; None without a development set.
        trained_on: the speakers of the training set.

    Returns:
        `"bins"`; `"temperature"`, fitted on dev; `"fitted_on"`, the number of dev's labelled `"utterances"`, of their
        `"speakers"`, and how many of these are `"also_in_training"`; and for each of `"dev"` and `"test"` the expected
        calibration error `"before"` and `"after"` scaling. Without dev there is only "before"; without emotion it is
        empty.
    """
    if not any("emotion" in row for row in test or dev or []):
        return {}
    errors: dict = {"bins": BINS}
    if dev is not None:
        errors["temperature"] = temperature = fit_temperature(*emotion_probabilities(dev))
        if not 1.01 / _HOTTEST < temperature < 0.99 * _HOTTEST:
            notice(
                f"the temperature, {temperature}, is at the bound of its search: the development set gives no "
                "reliable one, and the calibrated probabilities of emotion should not be trusted"
            )
        speakers = [row.get("speaker") for row in dev if row["emotion"]["label"] is not None]
        known = set(speakers) - {None}
        counts = {"utterances": len(speakers), "speakers": len(known), "also_in_training": len(known & trained_on)}
        errors["fitted_on"] = counts
    for name, rows in (("dev", dev), ("test", test)):
        if rows:
            probabilities, targets = emotion_probabilities(rows)
            errors[name] = {"before": reliability(probabilities, targets).error}
            if dev is not None:
                after = tempered(probabilities, errors["temperature"])
                errors[name]["after"] = reliability(after, targets).error
    return errors
