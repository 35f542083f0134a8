"""Pins that work on a corpus grows with its utterances, not with their square, and that short cuts change nothing."""

import random

import numpy as np
import pytest
from datasets import Dataset
from rapidfuzz.distance import Levenshtein

from ser_mtl.corpora.folds import split
from ser_mtl.corpora.near_duplicates import NEAR_DUPLICATE, Index, has_near_duplicate
from ser_mtl.corpora.targets import character_tokenizer, encoded
from ser_mtl.corpora.utterances import FEATURES, chosen, joined


def changed(words: list[str], vocabulary: list[str], generator: random.Random) -> list[str]:
    """With up to six words replaced, missing or added."""
    words = list(words)
    for _ in range(generator.randint(0, 6)):
        place, word = generator.randrange(len(words) + 1), generator.choice(vocabulary)
        words[place : place + generator.randint(0, 1)] = [word] * generator.randint(0, 1)
    return words


@pytest.mark.parametrize("size", [2, 5, 40])
def test_near_duplicates_are_those_of_comparing_all_pairs(size):
    generator, vocabulary = random.Random(size), [str(word) for word in range(size)]
    for _ in range(25):
        others = [[generator.choice(vocabulary) for _ in range(generator.randint(1, 26))] for _ in range(20)]
        texts = [changed(generator.choice(others), vocabulary, generator) for _ in range(20)]
        texts = [text or ["none"] for text in texts]
        distance = Levenshtein.normalized_distance
        expected = [any(distance(text, other) <= NEAR_DUPLICATE for other in others) for text in texts]
        assert has_near_duplicate(texts, others).tolist() == expected


def compared(utterances: int) -> int:
    """Pairs that are compared, for transcripts with the words of a language's frequencies."""
    generator = np.random.default_rng(0)
    chances = 1 / np.arange(1, 5001)
    lengths = np.clip(generator.gamma(2, 5, utterances).astype(int), 5, 60)
    words = map(str, generator.choice(5000, lengths.sum(), p=chances / chances.sum()))
    texts = [tuple(next(words) for _ in range(length)) for length in lengths]
    index = Index(set(texts[utterances // 5 :]))
    return sum(sum(1 for _ in index.candidates(text)) for text in texts[: utterances // 5])


def test_of_all_pairs_of_transcripts_few_are_compared():
    utterances = 4000
    assert compared(utterances) < 1e-3 * (utterances // 5) * (utterances - utterances // 5)


def test_transcripts_are_encoded_as_the_tokenizer_does():
    texts = ["it's a dog", "grüße", "नमस्ते दुनिया", "a", "", "42 km"]
    tokenizer = character_tokenizer([*texts[:3], "x"])  # "4", "k" and others are not in it
    assert encoded(texts, tokenizer) == [tokenizer(text).input_ids if text else [] for text in texts]


def corpus_with(utterances: int) -> Dataset:
    rows = [{"id": f"{n:03d}", "fold": n % 5 + 1, "speaker": f"s{n % 10}", "raters": []} for n in range(utterances)]
    empty = dict.fromkeys(FEATURES) | {"corpus": "c", "emotion": "sad", "gender": "female"}
    return Dataset.from_list([empty | row for row in rows], features=FEATURES)


def pieces(rows: Dataset) -> int:
    """In how many pieces a column is read."""
    return rows.with_format("arrow")[:]["id"].num_chunks


@pytest.mark.parametrize("rows", [[3, 1, 4, 1], [], range(2, 7)], ids=str)
@pytest.mark.parametrize("start", [0, 10])
def test_chosen_rows_are_those_that_select_gives(rows, start):
    corpus = corpus_with(40).select(range(start, 40, 3))  # itself a selection
    found, expected = chosen(corpus, rows), corpus.select(rows)
    assert (found.to_list(), found.features) == (expected.to_list(), expected.features)


@pytest.mark.parametrize(("fold", "dev"), [(2, "dialog"), (2, "session"), ("all", "dialog"), ("all", "none")])
def test_the_parts_of_a_corpus_are_not_read_row_by_row(fold, dev):
    corpus = corpus_with(100)
    parts = split(corpus, fold, dev)
    assert {name: pieces(part) for name, part in parts.items()} == dict.fromkeys(parts, 1)
    assert joined(parts).to_list() == corpus.to_list()
