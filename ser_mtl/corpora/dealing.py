"""The fold of each utterance, or its part of an official split: as annotated, or by dealing speakers into five folds.

No choice here depends on the machine or on the seed of a run: runs are comparable only on the same utterances.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from ser_mtl.errors import UserError

FOLDS = (1, 2, 3, 4, 5)
PARTS = ("train", "dev", "test")
"""Words of the column `split`."""
ALL = "all"
"""In place of a test fold: nothing is held out, for a final model."""
Fold = int | str  # 1..5, or ALL
DevChoice = Literal["dialog", "session", "none"]

_PARTS = {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}
_PARTS |= {"evaluation": "test", "eval": "test", "testing": "test"} | {part: part for part in PARTS}


def assign_folds(
    rows: Sequence[dict], place: Callable[[int], str], known: Mapping[str, int] = MappingProxyType({})
) -> list[int | None]:
    """The fold of every row: from its annotation or, if no row has one, dealt by speaker.

    The words of an official split, in the column `split`, become those of `PARTS`. Its test set is fold 1.

    Args:
        rows: with `fold`, `split`, `speaker` and `gender`, None if not annotated.
        place: names a row, by its index, in messages.
        known: the folds of speakers that have one already.

    Raises:
        UserError: an unknown fold or part, some rows without one, or rows without fold, split and speaker.
    """
    if any(row["split"] is not None for row in rows):
        _settle_official(rows, place)
        return [1 if row["split"] == "test" else None for row in rows]
    if any(row["fold"] is not None for row in rows):
        for index, row in enumerate(rows):
            if row["fold"] is None:
                raise UserError(f"{place(index)}: no 'fold', but other rows have one; fill in all")
            if str(row["fold"]) not in map(str, FOLDS):
                raise UserError(f"{place(index)}: fold {row['fold']!r} is not one of 1, 2, 3, 4, 5")
        return [int(row["fold"]) for row in rows]
    for index, row in enumerate(rows):
        if row["speaker"] is None:
            raise UserError(
                f"{place(index)}: neither 'fold' nor 'speaker'; every row needs one of them, because test speakers "
                "must not be in training. If nobody knows the speakers, a column 'split' (train, dev, test) says what "
                "to train and test on"
            )
    folds = deal_speakers([row["speaker"] for row in rows], [row["gender"] for row in rows], known)
    return [folds[row["speaker"]] for row in rows]


def _settle_official(rows: Sequence[dict], place: Callable[[int], str]) -> None:
    """Replace the words of an official split by those of `PARTS`, in place.

    Raises:
        UserError: an unknown word, a row without one, a fold beside it, or no row in train or test.
    """
    for index, row in enumerate(rows):
        if row["split"] is None:
            raise UserError(f"{place(index)}: no 'split', but other rows have one; fill in all")
        if row["fold"] is not None:
            raise UserError(f"{place(index)}: has both 'fold' and 'split'; keep one of the two columns")
        part = part_named(str(row["split"]))
        if part is None:
            raise UserError(f"{place(index)}: split {row['split']!r} is not one of {', '.join(PARTS)}")
        row["split"] = part
    for part in ("train", "test"):
        if not any(row["split"] == part for row in rows):
            raise UserError(f"{place(0)}: column 'split': no row is {part!r}; name both train and test")


def part_named(word: str) -> str | None:
    """The one of `PARTS` that a word means, such as "dev" for "Validation"; None if it means none."""
    return _PARTS.get(word.strip().casefold())


def deal_speakers(
    speakers: Sequence[str], genders: Sequence[str | None], known: Mapping[str, int] = MappingProxyType({})
) -> dict[str, int]:
    """Deal speakers into five folds, balanced by gender and by number of utterances.

    Args:
        speakers: the speaker of every utterance, in any order.
        genders: the gender of every utterance. If those of a speaker differ, the most frequent one counts.
        known: the folds of speakers that have one already, and keep it.

    Returns:
        The fold (1..5) of every speaker.
    """
    sizes = Counter(speakers)
    speakers_by_gender = defaultdict(list)
    for speaker, gender in most_frequent_values(speakers, genders).items():
        speakers_by_gender[gender or ""].append(speaker)
    folds: dict[str, int] = {}
    fold_speakers: Counter[int] = Counter()
    fold_utterances: Counter[int] = Counter()
    for gender in sorted(speakers_by_gender):
        gender_utterances: Counter[int] = Counter()
        for speaker in sorted(speakers_by_gender[gender], key=lambda name: (name not in known, -sizes[name], name)):
            fold = known.get(speaker) or min(
                FOLDS, key=lambda f: (gender_utterances[f], fold_speakers[f], fold_utterances[f], f)
            )
            folds[speaker] = fold
            gender_utterances[fold] += sizes[speaker]
            fold_speakers[fold] += 1
            fold_utterances[fold] += sizes[speaker]
    return folds


def most_frequent_values(keys: Sequence[str | None], values: Sequence[str | None]) -> dict[str, str | None]:
    """The most frequent value of each key, the first in the alphabet if tied; None for keys without a value."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for key, value in zip(keys, values, strict=True):
        if key:
            counts[key].update([value] if value else [])
    return {
        key: min(key_counts, key=lambda value: (-key_counts[value], value), default=None)
        for key, key_counts in counts.items()
    }
