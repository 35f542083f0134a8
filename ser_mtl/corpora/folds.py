"""Who is train, dev and test: dealing speakers into folds and choosing dev.

Every choice here is the same on every machine and for every seed of a run: two runs compare only on the same
utterances.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Literal

from datasets import Dataset, DatasetDict

from ser_mtl.corpora.leaks import check_no_leak
from ser_mtl.errors import UserError

FOLDS = (1, 2, 3, 4, 5)

DevChoice = Literal["dialog", "session", "none"]

_DRAWS = 20  # of dev, of which the one with most emotions is kept


def deal_speakers(speakers: Sequence[str], genders: Sequence[str | None]) -> dict[str, int]:
    """Deal speakers into five folds, balanced by gender and by number of utterances.

    Args:
        speakers: of every utterance, in any order.
        genders: of every utterance; a speaker annotated in two ways counts as what it is most often.

    Returns:
        The fold (1..5) of every speaker.
    """
    size = Counter(speakers)
    by_gender = defaultdict(list)
    for speaker, gender in _most_frequent(speakers, genders).items():
        by_gender[gender or ""].append(speaker)
    folds: dict[str, int] = {}
    number, utterances = Counter(), Counter()
    for gender in sorted(by_gender):
        of_gender = Counter()
        for speaker in sorted(by_gender[gender], key=lambda name: (-size[name], name)):
            fold = min(FOLDS, key=lambda f: (of_gender[f], number[f], utterances[f], f))
            folds[speaker] = fold
            of_gender[fold] += size[speaker]
            number[fold] += 1
            utterances[fold] += size[speaker]
    return folds


def split(corpus: Dataset, fold: int, dev: DevChoice) -> DatasetDict:
    """Split a corpus into `train`, `test` and, unless `dev` is "none", `dev`.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        fold: 1..5, held out for the test.
        dev: "session": the fold after the test one, cyclic. "dialog": a tenth of the training dialogs, whole
            dialogs, of each joined corpus; where it has none, a tenth of its training speakers.

    Raises:
        UserError: no such fold, a fold without utterances, nothing left to train on, or a leak.
    """
    if fold not in FOLDS:
        raise UserError(f"--fold {fold}: must be one of 1 to 5")
    folds = list(corpus["fold"])
    test = _rows_of_fold(folds, fold, f"--fold {fold}")
    train = sorted(set(range(len(folds))) - set(test))
    dev_rows = []
    if dev == "session":
        dev_rows = _rows_of_fold(folds, fold % len(FOLDS) + 1, "--dev session")
    elif dev == "dialog":
        dev_rows = [train[row] for row in _choose_dev(corpus.select(train), fold)]
    train = sorted(set(train) - set(dev_rows))
    if not train:
        raise UserError(f"--fold {fold} --dev {dev} leaves no utterance to train on")
    rows = {"train": train, "dev": dev_rows, "test": test}
    splits = DatasetDict({name: corpus.select(rows[name]) for name in rows if (name, dev) != ("dev", "none")})
    check_no_leak(splits)
    return splits


def split_record(splits: DatasetDict, fold: int, dev: DevChoice) -> dict:
    """What `split.json` holds: fold, choice of dev, and the ids of every split with a SHA-256 over them.

    Returns:
        {"fold": 1, "dev_choice": "dialog", "train": {"ids": [...], "sha256": "..."}, "dev": ..., "test": ...}
        with sorted ids, the hash taken over them joined by newlines, and no "dev" where there is none.
    """
    record: dict = {"fold": fold, "dev_choice": dev}
    for name, rows in splits.items():
        ids = sorted(rows["id"])
        record[name] = {"ids": ids, "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    return record


def _rows_of_fold(folds: list[int], fold: int, flag: str) -> list[int]:
    rows = [row for row, number in enumerate(folds) if number == fold]
    if not rows:
        present = ", ".join(str(number) for number in sorted(set(folds))) or "none"
        raise UserError(f"{flag}: fold {fold} holds no utterance; folds with utterances: {present}")
    return rows


def _choose_dev(train: Dataset, fold: int) -> list[int]:
    """Rows of `train` that become dev, chosen in each joined corpus by itself."""
    rows_of = defaultdict(list)
    for row, name in enumerate(train["corpus"]):
        rows_of[name].append(row)
    chosen: list[int] = []
    for name in sorted(rows_of, key=str):
        rows = train.select(rows_of[name])
        columns = rows.select_columns(["dialog", "speaker", "style", "gender", "emotion"])[:]
        if any(columns["dialog"]):
            units, groups = columns["dialog"], columns["style"]
        elif any(columns["speaker"]):
            units, groups = columns["speaker"], columns["gender"]
        else:
            raise UserError(f"--dev dialog: corpus {name!r} has no dialogs and no speakers; use --dev session")
        drawn = _draw_with_most_emotions(units, groups, columns["emotion"], fold)
        chosen += [row for row, unit in zip(rows_of[name], units, strict=True) if unit in drawn]
    return sorted(chosen)


def _draw_with_most_emotions(
    units: Sequence[str | None], groups: Sequence[str | None], emotions: Sequence[str | None], fold: int
) -> set[str]:
    """Dialogs or speakers for dev: labelled ones where there are any, with as many emotions as can be."""
    heard = defaultdict(set)
    for unit, emotion in zip(units, emotions, strict=True):
        if unit and emotion:
            heard[unit].add(emotion)
    group_of = _most_frequent(units, groups)
    group_of = {unit: group for unit, group in group_of.items() if unit in heard} or group_of
    draws = [_draw(group_of, random.Random(f"dev of fold {fold}, draw {number}")) for number in range(_DRAWS)]
    return max(draws, key=lambda drawn: len(set().union(*(heard[unit] for unit in drawn))))


def _draw(group_of: dict[str, str | None], generator: random.Random) -> set[str]:
    """A tenth of the units, at least one, in proportion to their groups; one of each group of two or more."""
    members = defaultdict(list)
    for unit in sorted(group_of):
        members[group_of[unit] or ""].append(unit)
    ranked = []
    for group in sorted(members):
        size = len(members[group])
        generator.shuffle(members[group])
        for rank, unit in enumerate(members[group]):
            must_come = rank == 0 and size > 1
            ranked.append((not must_come, (rank + 0.5) / size, unit))
    number = max(1, round(len(ranked) / 10), sum(len(units) > 1 for units in members.values()))
    return {unit for _, _, unit in sorted(ranked)[:number]}


def _most_frequent(keys: Sequence[str | None], values: Sequence[str | None]) -> dict[str, str | None]:
    """The value that each key has most often, whatever the order; None only where it has no other."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for key, value in zip(keys, values, strict=True):
        if key:
            counts[key][value or ""] += 1
    best = {key: min(of, key=lambda v, of=of: (v == "", -of[v], v)) for key, of in counts.items()}
    return {key: value or None for key, value in best.items()}
