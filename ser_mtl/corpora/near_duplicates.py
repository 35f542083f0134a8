"""Near-duplicate transcripts, found without comparing every pair."""

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from rapidfuzz.distance import Levenshtein

NEAR_DUPLICATE = 0.2
"""Largest distance between near-duplicate transcripts: one word in five is replaced, missing or added."""

Words = tuple[str, ...]


def has_near_duplicate(transcripts: list[list[str]], others: list[list[str]]) -> np.ndarray:
    """Whether each transcript, a list of words, is a near-duplicate of one of the others: (transcripts,) bool.

    The distance of two transcripts is (word edits from one to the other) / (words of the longer one).
    """
    index = Index({tuple(words) for words in others if words})
    found = {words: index.holds_near(words) for words in {tuple(words) for words in transcripts}}
    return np.array([found[tuple(words)] for words in transcripts], dtype=bool)


class Index:
    """Transcripts by their pieces, for finding near-duplicates: Pass-Join (Li et al., VLDB 2011).

    A transcript is cut into one piece more than the edits allowed, so a near-duplicate holds at least one piece whole,
    moved by at most as many words. Only transcripts that share a piece are compared.
    """

    def __init__(self, transcripts: set[Words]):
        self.transcripts = transcripts
        self.by_piece: dict[tuple[int, int, Words], list[Words]] = defaultdict(list)
        for words in transcripts:
            for start, end in _pieces(len(words)):
                self.by_piece[len(words), start, words[start:end]].append(words)
        self.lengths = {len(words) for words in transcripts}

    def holds_near(self, words: Words) -> bool:
        """Whether one of the transcripts is a near-duplicate of `words`."""
        return words in self.transcripts or any(_near(words, other) for other in self.candidates(words))

    def candidates(self, words: Words) -> Iterator[Words]:
        """The transcripts that share a piece with `words`, each once; all near-duplicates are among them."""
        seen = set()
        for length in self.lengths:
            edits = _edits(max(length, len(words)))
            if abs(length - len(words)) > edits:
                continue
            for start, end in _pieces(length):
                for moved in range(max(0, start - edits), min(len(words) - (end - start), start + edits) + 1):
                    for other in self.by_piece.get((length, start, words[moved : moved + end - start]), ()):
                        if other not in seen:
                            seen.add(other)
                            yield other


def _near(words: Words, other: Words) -> bool:
    return Levenshtein.normalized_distance(words, other, score_cutoff=NEAR_DUPLICATE) <= NEAR_DUPLICATE


def _edits(longer: int) -> int:
    """The most edits between near-duplicates, given the words of the longer one."""
    return int(longer * NEAR_DUPLICATE + 1e-9)


def _pieces(length: int) -> list[tuple[int, int]]:
    """Start and end of each piece of a transcript of `length` words: one more than the edits to a near-duplicate."""
    count = min(length, _edits(int(length / (1 - NEAR_DUPLICATE) + 1e-9)) + 1)
    return [(length * piece // count, length * (piece + 1) // count) for piece in range(count)]
