"""What the raters of an utterance heard, as a distribution over the emotions that a model knows."""

from collections import Counter
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


def outside_votes(raters: Sequence[dict]) -> list[dict[str, float]]:
    """The one vote of each outside rater, divided evenly among what he or she named; categories of one emotion are one.

    Args:
        raters: as the column `raters` holds them.

    Returns:
        Of each who named anything: shares, together 1, by emotion, or by category where it is of none.
    """
    votes = []
    for rater in raters:
        if rater["rater"].startswith(_OUTSIDE) and rater["categories"]:
            named = Counter(EMOTIONS_OF_CATEGORIES.get(category, category) for category in rater["categories"])
            votes.append({emotion: count / named.total() for emotion, count in named.items()})
    return votes


def emotion_distribution(raters: Sequence[dict], labels: Sequence[str]) -> list[float] | None:
    """Shares of the outside raters' votes: one for each of `labels`, together 1.

    Votes for what is not among `labels` are dropped, and the rest is scaled to 1.

    Args:
        raters: as the column `raters` holds them.
        labels: the emotions, in the order of the shares.

    Returns:
        The shares; None where no vote is left.
    """
    votes = outside_votes(raters)
    shares = [sum(vote.get(label, 0.0) for vote in votes) for label in labels]
    return [share / sum(shares) for share in shares] if sum(shares) else None
