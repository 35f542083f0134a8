"""Human agreement: raters and models scored against the same references.

The reference of a rating is the vote of the utterance's other raters, without the rater who is scored. A corpus's label
includes every rater's vote, so a rater agrees with it more easily than a model can.
"""

from collections import Counter
from collections.abc import Iterable

import numpy as np
from datasets import Dataset

from ser_mtl.corpora.raters import outside_votes

_FEWEST_RATERS = 3
_ROUNDING = 1e-9  # of votes that are divided among several categories


def human_ceiling(corpus: Dataset) -> dict | None:
    """Score a random outside rater of each utterance against its other outside raters.

    Each rater acts as the model in turn. The right answer is the emotion that most of the others named; if several are
    tied, each of them is right. (Leaving ties out would leave out the ratings that agree: of two votes against one, the
    two tie and the one does not.) A rater who named several categories gets the expected score of one drawn at random.
    A rating is left out if none of the corpus's emotions is right.

    Returns:
        `ua` and `wa`; `raters`, the number of scored ratings; `tied`, the share of them for which several emotions are
        right; `wa_of_label`, the agreement with the corpus's own label; `utterances`, by id: `label`, `right` (the
        emotions that are right for each rating) and `rater` (the raters' mean score). None if no utterance has three
        outside raters.
    """
    labels = set(corpus["emotion"]) - {None}
    utterances, of_label, tied = {}, [], []
    for name, raters, label in zip(corpus["id"], corpus["raters"], corpus["emotion"], strict=True):
        votes = outside_votes(raters or [])
        if label is None or len(votes) < _FEWEST_RATERS:
            continue
        of_label += [vote.get(label, 0.0) for vote in votes]
        most = [_most_frequent(votes[:rater] + votes[rater + 1 :]) for rater in range(len(votes))]
        scored = [(vote, right & labels) for vote, right in zip(votes, most, strict=True) if right & labels]
        if scored:
            tied += [len(right) > 1 for _, right in scored]
            mean = np.mean([sum(vote.get(emotion, 0.0) for emotion in right) for vote, right in scored])
            right = [sorted(right) for _, right in scored]
            utterances[name] = {"label": label, "right": right, "rater": float(mean)}
    if not utterances:
        return None
    ua, wa = rater_scores(utterances)
    more = {"tied": float(np.mean(tied)), "wa_of_label": float(np.mean(of_label))}
    return {"ua": ua, "wa": wa, "raters": len(tied)} | more | {"utterances": utterances}


def rater_scores(utterances: dict[str, dict]) -> tuple[float, float]:
    """UA and WA of a random rater on `utterances`, as `human_ceiling` gives them."""
    return _ua_and_wa([(one["label"], one["rater"]) for one in utterances.values()])


def model_scores(utterances: dict[str, dict], answers: Iterable[tuple[str, str]]) -> tuple[float, float]:
    """UA and WA of a model against the references of the raters.

    Args:
        utterances: as `human_ceiling` gives them.
        answers: pairs of an utterance's id and the emotion that a model predicts; an utterance with the answers of
            several seeds counts once.
    """
    scores: dict[str, list[float]] = {}
    for name, answer in answers:
        scores.setdefault(name, []).append(float(np.mean([answer in right for right in utterances[name]["right"]])))
    return _ua_and_wa([(utterances[name]["label"], float(np.mean(of_seeds))) for name, of_seeds in scores.items()])


def _ua_and_wa(scored: list[tuple[str, float]]) -> tuple[float, float]:
    """The mean of the means by label, and the mean, of scores with the label of their utterance."""
    by_label: dict[str, list[float]] = {}
    for label, score in scored:
        by_label.setdefault(label, []).append(score)
    return float(np.mean([np.mean(scores) for scores in by_label.values()])), float(np.mean([s for _, s in scored]))


def _most_frequent(votes: list[dict[str, float]]) -> set[str]:
    """The category with the most votes, or all that tie."""
    total: Counter = Counter()
    for vote in votes:
        total.update(vote)
    most = max(total.values())
    return {category for category, number in total.items() if number > most - _ROUNDING}
