"""Soft labels: the votes of an utterance's raters as a distribution over the emotions of a model."""

from collections import Counter
from collections.abc import Sequence

EMOTIONS_OF_CATEGORIES = {
    "Neutral": "neutral",
    "Happiness": "happy",
    "Excited": "happy",
    "Anger": "angry",
    "Sadness": "sad",
}
"""IEMOCAP's categories that belong to its four classes, merged as in the consensus labels."""

_OUTSIDE = "C-E"  # prefix of the raters who only listened; C-F1 and C-M1 are the actors themselves


def outside_votes(raters: Sequence[dict]) -> list[dict[str, float]]:
    """The votes of the outside raters. A rater has one vote, divided evenly if he or she named several categories.

    Args:
        raters: a cell of the column `raters`.

    Returns:
        One vote for each outside rater who named a category: shares that sum to 1, by emotion. A category outside the
        four classes keeps its own name.
    """
    votes = []
    for rater in raters:
        if rater["rater"].startswith(_OUTSIDE) and rater["categories"]:
            emotions = Counter(EMOTIONS_OF_CATEGORIES.get(category, category) for category in rater["categories"])
            votes.append({emotion: count / emotions.total() for emotion, count in emotions.items()})
    return votes


def emotion_distribution(raters: Sequence[dict], labels: Sequence[str]) -> list[float] | None:
    """The distribution of the outside raters' votes over `labels`.

    Votes for anything else are dropped, and the rest is scaled to sum to 1.

    Args:
        raters: a cell of the column `raters`.
        labels: the emotions, in the order of the result.

    Returns:
        A share for each label; None if no vote is for any of them.
    """
    votes = outside_votes(raters)
    shares = [sum(vote.get(label, 0.0) for vote in votes) for label in labels]
    return [share / sum(shares) for share in shares] if sum(shares) else None
