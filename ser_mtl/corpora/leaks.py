"""What must not be shared between train, dev and test, and what is shared though it may be: what is said."""

from functools import partial
from itertools import combinations

import numpy as np
from datasets import Dataset, DatasetDict
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.errors import UserError

NEAR_DUPLICATE = 0.2
"""Largest distance of near-duplicate transcripts: at most one word in five is another, missing or in excess."""

FEWEST_WORDS = 5
"""Transcripts of fewer words are not looked at: everybody says "yes" and "I don't know"."""

_PART = 500  # transcripts compared at once


def check_no_leak(splits: DatasetDict) -> None:
    """Make sure that no speaker of the test is in train or dev, and that no dialog is in two splits.

    A speaker may be in both train and dev. Utterances without a speaker or a dialog cannot be checked.

    Raises:
        UserError: names the speaker or dialog and the two splits.
    """
    for column in ("speaker", "dialog"):
        values = {name: set(rows[column]) - {None} for name, rows in splits.items()}
        for one, other in combinations(splits, 2):
            shared = sorted(values[one] & values[other])
            if shared and (column == "dialog" or "test" in (one, other)):
                raise UserError(
                    f"{column} {shared[0]!r} is in both {one} and {other} ({len(shared)} shared in all): "
                    f"a {column} must lie in one fold only, put that into the column 'fold'"
                )


def find_leaks(splits: DatasetDict) -> dict:
    """Count what a test can be answered from by heart, and what could not be checked.

    Returns:
        `"test_without_speaker"`, the number of test utterances whose speaker is not known, and
        `"near_duplicates"`: `{"all": {"n", "share"}, <style>: ...}`, where n is the number of test transcripts of
        `FEWEST_WORDS` words and more, and share the fraction of them that train has a near-duplicate of. Groups
        without such a transcript are left out.
    """
    test, train = splits["test"], splits["train"]
    words = _words(test)
    long_enough = [row for row, transcript in enumerate(words) if len(transcript) >= FEWEST_WORDS]
    heard = has_near_duplicate([words[row] for row in long_enough], _words(train))
    style_of = test["style"][:]
    styles = np.array([style_of[row] or "" for row in long_enough])
    groups = {"all": heard} | {style: heard[styles == style] for style in sorted(set(styles.tolist()) - {""})}
    return {
        "test_without_speaker": sum(speaker is None for speaker in test["speaker"]),
        "near_duplicates": {
            name: {"n": len(group), "share": round(float(group.mean()), 4)}
            for name, group in groups.items()
            if len(group)
        },
    }


def has_near_duplicate(transcripts: list[list[str]], others: list[list[str]]) -> np.ndarray:
    """Whether each transcript, a list of words, is like one of the others: (transcripts,) bool.

    The distance of two transcripts is (edits from one to the other, in words) / (words of the longer one).
    """
    others = [list(words) for words in {tuple(words) for words in others} if words]
    distances = partial(cdist, choices=others, scorer=Levenshtein.normalized_distance, score_cutoff=NEAR_DUPLICATE)
    # In parts, since the distances of a large corpus would not fit in memory.
    parts = [transcripts[start : start + _PART] for start in range(0, len(transcripts), _PART)]
    alike = [(distances(part) <= NEAR_DUPLICATE).any(axis=1) for part in parts]
    return np.concatenate([np.zeros(0, dtype=bool), *alike])


def leaks_line(leaks: dict) -> str:
    """One line for people: what `find_leaks` found."""
    shares = [
        f"{name} {100 * group['share']:.1f} % of {group['n']}" for name, group in leaks["near_duplicates"].items()
    ]
    unknown = leaks["test_without_speaker"]
    speakers = f"{unknown} test utterances without speaker, not checked" if unknown else "no speaker shared"
    return f"Leaks: {speakers}; test transcripts like one in train: {', '.join(shares) or 'none to compare'}"


def _words(rows: Dataset) -> list[list[str]]:
    """Words of every transcript, none where there is no transcript."""
    return [normalise_text(text or "").split() for text in rows["text"]]
