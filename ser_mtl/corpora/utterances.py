"""The columns of an utterance, shared by all corpora, and the normal form of its transcript."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict, DatasetInfo, Features, List, Value

from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS

FEATURES = Features(
    {
        "id": Value("string"),  # unique in the corpus
        "path": Value("string"),  # of the audio file
        "corpus": Value("string"),  # name of the corpus or folder it comes from
        "speaker": Value("string"),  # unique over joined corpora
        "dialog": Value("string"),  # unique over joined corpora
        "fold": Value("int32"),  # 1..5: this utterance is in the test set of this fold; None: in no test set
        "split": Value("string"),  # train, dev or test of an official split; None without one
        # Values are a consensus of the raters, on the corpus's own scale.
        **{task.column: Value("float32" if task.kind == "value" else "string") for task in TASKS.values()},
        "start": Value("float32"),  # seconds from the start of the dialog
        "end": Value("float32"),
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
"""The columns of every corpus. None means "not annotated"; only id, path, and fold or split are always there."""


def check_utterances(name: str, given: Any) -> None:
    """Check that an argument is a dataset of utterances.

    Raises:
        UserError: says what `name` is instead, or which columns it lacks.
    """
    if not isinstance(given, Dataset):
        raise UserError(f"{name}: must be utterances as ser_mtl.load_corpus returns, not {type(given).__name__}")
    if missing := FEATURES.keys() - set(given.column_names):
        raise UserError(f"{name}: lacks the columns {', '.join(sorted(missing))}; see ser_mtl.load_corpus")


_TAG = re.compile(r"\[[^\]]*\]|<[^>]*>")


@lru_cache(maxsize=2**18)  # a run asks several times for each transcript
def normalise_text(text: str) -> str:
    """Reduce a transcript to the spoken words: lower-case letters, digits, inner apostrophes, single spaces.

    Tags in brackets ([LAUGHTER], <unk>) and punctuation are removed. The result may be empty; for speech recognition
    that means "not annotated".
    """
    text = unicodedata.normalize("NFC", text).replace("\u2019", "'").lower()
    text = "".join(_spoken_characters(_TAG.sub(" ", text))).replace("''", " ")
    return " ".join(word for word in (piece.strip("'") for piece in text.split()) if word)


def _spoken_characters(text: str) -> Iterator[str]:
    """Letters, digits, apostrophes and marks on letters (the vowels of Hindi) as they are; a space for the rest."""
    before = " "
    for character in text:
        on_letter = before.isalpha() or unicodedata.category(before).startswith("M")
        is_mark = on_letter and unicodedata.category(character).startswith("M")
        before = character if character.isalnum() or character == "'" or is_mark else " "
        yield before


def is_official(rows: Dataset) -> bool:
    """Whether utterances come with an official split: their own train and test sets."""
    return "split" in rows.column_names and any(rows["split"][:])


def chosen(corpus: Dataset, rows: Sequence[int]) -> Dataset:
    """These rows of a corpus, copied into a new table: `Dataset.select` would gather them at every read of a column."""
    table = corpus.with_format("arrow")[:].take(pa.array(rows, pa.int64()))
    return Dataset(table, info=DatasetInfo(features=corpus.features))


def joined(parts: DatasetDict) -> Dataset:
    """All utterances of a split corpus, in the order of their ids: caches depend on it, and must not on the split."""
    table = pa.concat_tables([part.with_format("arrow")[:] for part in parts.values()]).sort_by("id")
    return Dataset(table, info=DatasetInfo(features=next(iter(parts.values())).features))
