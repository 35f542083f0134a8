"""What the raters of an utterance heard, as a distribution over the emotions that a model knows."""

from collections.abc import Sequence

EMOTIONS_OF_CATEGORIES = {
    "Neutral": "neutral",
    "Happiness": "happy",
    "Excited": "happy",
    "Anger": "angry",
    "Sadness": "sad",
}
"""IEMOCAP's categories that are among its four classes, as the consensus merges them."""

_OUTSIDE = "C-E"  # how the names of those begin who only listened; C-F1 and C-M1 are the actors themselves


def emotion_distribution(raters: Sequence[dict], labels: Sequence[str]) -> list[float] | None:
    """Shares of the outside raters' votes: one for each of `labels`, together 1.

    Every rater has one vote, divided evenly among the categories that he or she named. Votes for what is not among
    `labels` are dropped, and the rest is scaled to 1.

    Args:
        raters: as the column `raters` holds them.
        labels: the emotions, in the order of the shares.

    Returns:
        The shares; None where no vote is left.
    """
    votes = dict.fromkeys(labels, 0.0)
    for rater in raters:
        if rater["rater"].startswith(_OUTSIDE):
            for category in rater["categories"]:
                emotion = EMOTIONS_OF_CATEGORIES.get(category)
                if emotion in votes:
                    votes[emotion] += 1 / len(rater["categories"])
    total = sum(votes.values())
    return [votes[label] / total for label in labels] if total else None
