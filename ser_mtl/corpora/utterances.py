"""What one utterance is: its columns, its tasks and its text. The one vocabulary of the whole project."""

import re
import unicodedata
from collections.abc import Iterator

from datasets import Dataset, DatasetDict, Features, List, Value

FEATURES = Features(
    {
        "id": Value("string"),  # unique in the corpus
        "path": Value("string"),  # of the audio file
        "corpus": Value("string"),  # folder the utterance comes from, where several are joined
        "speaker": Value("string"),  # the person who speaks, unique over joined corpora
        "dialog": Value("string"),  # None where the corpus has none
        "fold": Value("int32"),  # 1..5, the fold that holds this utterance out for the test
        "emotion": Value("string"),
        "gender": Value("string"),
        "style": Value("string"),
        "text": Value("string"),  # as transcribed; `normalise_text` makes the target of CTC
        "start": Value("float32"),  # seconds in its dialog
        "end": Value("float32"),
        "valence": Value("float32"),  # consensus, 1..5
        "activation": Value("float32"),
        "dominance": Value("float32"),
        "raters": List(
            {
                "rater": Value("string"),  # such as C-E2, C-F1, A-E3, A-M1
                "categories": List(Value("string")),  # empty for a rater of attributes
                "comment": Value("string"),
                "valence": Value("float32"),  # None for a rater of categories
                "activation": Value("float32"),
                "dominance": Value("float32"),
            }
        ),
    }
)
"""Columns of every corpus. A corpus that lacks a column holds None there."""

_TAG = re.compile(r"\[[^\]]*\]|<[^>]*>")


def normalise_text(text: str) -> str:
    """Reduce a transcript to what is spoken: lower-case letters, digits, apostrophes inside words, single spaces.

    Tags in brackets ([LAUGHTER], <unk>) and punctuation go. The result may be empty, which for speech recognition
    means "not annotated".
    """
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").lower()
    text = "".join(_spoken(_TAG.sub(" ", text))).replace("''", " ")
    return " ".join(word for word in (piece.strip("'") for piece in text.split()) if word)


def _spoken(text: str) -> Iterator[str]:
    """Letters and digits of every script, marks on letters (the vowels of Hindi) and apostrophes; else a space."""
    before = " "
    for character in text:
        on_letter = before.isalpha() or unicodedata.category(before).startswith("M")
        is_mark = on_letter and unicodedata.category(character).startswith("M")
        before = character if character.isalnum() or character == "'" or is_mark else " "
        yield before


def joined(parts: DatasetDict) -> Dataset:
    """All utterances of a split corpus in the order of their ids, whatever the split: caches are keyed by it."""
    rows = [row for part in parts.values() for row in part.to_list()]
    return Dataset.from_list(sorted(rows, key=lambda row: row["id"]), features=next(iter(parts.values())).features)
