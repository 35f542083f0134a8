"""Train, dev and test: speakers are dealt into five folds, one fold is the test set, and dev comes from the rest.

No choice here depends on the machine or on the seed of a run: runs are comparable only on the same utterances.
"""

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NotRequired, get_args

from datasets import Dataset, DatasetDict
from typing_extensions import TypedDict

from ser_mtl.corpora.leaks import check_no_leak
from ser_mtl.corpora.utterances import check_utterances, is_official
from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS

FOLDS = (1, 2, 3, 4, 5)

PARTS = ("train", "dev", "test")
"""Words of the column `split`."""

_PARTS = {"training": "train", "validation": "dev", "valid": "dev", "val": "dev", "development": "dev"}
_PARTS |= {"evaluation": "test", "eval": "test", "testing": "test"} | {part: part for part in PARTS}

DevChoice = Literal["dialog", "session", "none"]

ALL = "all"
"""In the place of a test fold: nothing is held out, for a final model."""
Fold = int | str  # 1..5, or ALL

_DRAWS = 20  # dev is drawn this often; the draw with the most emotions wins


def assign_folds(
    rows: Sequence[dict], place: Callable[[int], str], known: Mapping[str, int] = MappingProxyType({})
) -> list[int | None]:
    """The fold of every row: from its annotation or, if no row has one, dealt by speaker.

    The words of an official split, in the column `split`, become those of `PARTS`. Its test set is fold 1.

    Args:
        rows: with `fold`, `split`, `speaker` and `gender`, None if not annotated.
        place: names a row, by its index, in messages.
        known: speakers that have their fold already.

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
    """Bring the words of an official split into one form, in place.

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
        known: speakers that have their fold already, and keep it.

    Returns:
        The fold (1..5) of every speaker.
    """
    sizes = Counter(speakers)
    speakers_by_gender = defaultdict(list)
    for speaker, gender in _most_frequent_values(speakers, genders).items():
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


def split(corpus: Dataset, fold: Fold | None = None, dev: DevChoice = "dialog") -> DatasetDict:
    """Split a corpus into `train`, `test` and, unless `dev` is "none", `dev`.

    With `fold` "all" there is no `test`: all other utterances are for training.

    An official split is taken as it is: speakers may be on both sides, which `find_leaks` counts. Without a dev set of
    its own, dev is drawn from its training set.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        fold: the test fold, 1..5; None or 1 for an official split; "all" holds nothing out.
        dev: "dialog": a tenth of the training dialogs, whole dialogs, from each joined corpus, and for IEMOCAP whole
            scenarios of a session; a tenth of the training speakers where a corpus has no dialogs. "session": the fold
            after the test fold; fold 1 follows fold 5.

    Raises:
        UserError: an unknown fold or dev, a fold without utterances, no utterance left for training, or a leak.
    """
    check_utterances("corpus", corpus)
    if dev not in get_args(DevChoice):
        raise UserError(f"--dev {dev!r}: must be one of {', '.join(get_args(DevChoice))}")
    if fold == ALL:
        return _whole(corpus, dev)
    if is_official(corpus):
        return _official(corpus, fold, dev)
    if fold is None:
        raise UserError("--fold: is required, 1 to 5: which fifth of the speakers is the test; no official split here")
    if fold not in FOLDS:
        raise UserError(f"--fold {fold!r}: must be one of 1 to 5, or all")
    folds, fold = list(corpus["fold"]), int(fold)
    test = rows_of_fold(folds, fold, f"--fold {fold}")
    train = sorted(set(range(len(folds))) - set(test))
    dev_rows = []
    if dev == "session":
        dev_rows = rows_of_fold(folds, fold % len(FOLDS) + 1, "--dev session")
    elif dev == "dialog":
        dev_rows = [train[row] for row in _choose_dev(corpus.select(train), fold)]
    train = sorted(set(train) - set(dev_rows))
    if not train:
        raise UserError(_nothing_to_train_on(corpus, fold, dev))
    rows = {"train": train, "dev": dev_rows, "test": test}
    splits = DatasetDict({name: corpus.select(rows[name]) for name in rows if (name, dev) != ("dev", "none")})
    check_no_leak(splits)
    return splits


def _whole(corpus: Dataset, dev: DevChoice) -> DatasetDict:
    """Everything for training; an official development set stays one, any other is drawn."""
    if dev == "session":
        raise UserError(
            "--dev session: is the fold after the test one, and --fold all has none; use --dev dialog or none"
        )
    dev_rows: list[int] = []
    if dev == "dialog":
        dev_rows = [row for row, part in enumerate(corpus["split"]) if part == "dev"] if is_official(corpus) else []
        dev_rows = dev_rows or _choose_dev(corpus, ALL)
    train = sorted(set(range(len(corpus))) - set(dev_rows))
    if not train:
        raise UserError(_nothing_to_train_on(corpus, ALL, dev))
    splits = DatasetDict({"train": corpus.select(train)})
    if dev != "none":
        splits["dev"] = corpus.select(dev_rows)
    if not is_official(corpus):
        check_no_leak(splits)
    return splits


def _official(corpus: Dataset, fold: Fold | None, dev: DevChoice) -> DatasetDict:
    """The parts of an official split."""
    if fold not in (None, 1):
        raise UserError(
            f"--fold {fold}: the corpus has an official split, one test set; leave --fold out (or train on everything: "
            "--fold all), or remove its column 'split' to deal its speakers into folds"
        )
    if dev == "session":
        raise UserError("--dev session: the corpus has an official split and no sessions; leave --dev out")
    parts = list(corpus["split"])
    rows = {part: [row for row, name in enumerate(parts) if name == part] for part in PARTS}
    if dev == "dialog" and not rows["dev"]:
        rows["dev"] = [rows["train"][row] for row in _choose_dev(corpus.select(rows["train"]), 1)]
        rows["train"] = sorted(set(rows["train"]) - set(rows["dev"]))
        if not rows["train"]:
            raise UserError(_nothing_to_train_on(corpus, 1, dev))
    return DatasetDict({part: corpus.select(rows[part]) for part in PARTS if (part, dev) != ("dev", "none")})


def _nothing_to_train_on(corpus: Dataset, fold: Fold, dev: DevChoice) -> str:
    speakers = set(corpus["speaker"]) - {None}
    if len(speakers) == 1 and None not in set(corpus["speaker"]):
        more = "" if any(corpus["dialog"]) and fold != ALL else " --dev none --selection last"
        return f"the corpus has one speaker, so nobody is left to test on; to train on everything, --fold all{more}"
    if len(speakers) == 2 and dev == "dialog":
        return (
            "the corpus has two speakers: one is the test, one is left to train on and none for a development set; add "
            "--dev none --selection last"
        )
    return f"--fold {fold} with --dev {dev} leaves no utterance to train on; use another --fold or --dev"


class Part(TypedDict):
    """A part of the split corpus."""

    ids: list[str]
    audio: NotRequired[list[str | None]]  # version 0.1 did not write it
    speakers: NotRequired[list[str]]  # nor did 0.2


class Split(TypedDict):
    """The content of `split.json`."""

    fold: NotRequired[int | str | None]
    train: NotRequired[Part]
    dev: NotRequired[Part]
    test: NotRequired[Part]
    labels: NotRequired[dict[str, list[str]]]
    annotations: NotRequired[str]


def split_record(splits: DatasetDict, fold: Fold, dev: DevChoice) -> dict:
    """The content of `split.json`: the test fold, the choice of dev, and the ids of every split.

    Returns:
        {"fold": 1, "dev_choice": "dialog", "train": {"ids": [...], "sha256": "..."}, "dev": ..., "test": ...} with
        sorted ids and the hash of the ids joined by newlines. There is no "dev" if `dev` is "none".
    """
    record: dict = {"fold": fold, "dev_choice": dev}
    for name, rows in splits.items():
        ids = sorted(rows["id"])
        record[name] = {"ids": ids, "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    return record


def with_content(record: dict, decoded: Dataset, labels: dict[str, list[str]], values: Collection[str] = ()) -> dict:
    """A split's record with what its utterances hold, so that a run does not go on with another corpus.

    Args:
        record: of `split_record`.
        decoded: all utterances, with `digest`.
        labels: the classes of each task, in the order of the model's outputs.
        values: the trained tasks that give a value.

    Returns:
        The record with {"labels": {task: [...]}, "annotations": the hash of `hash_of_annotations`}, and in each split
        "audio": a hash of the samples of each of its ids; and "speakers", sorted.
    """
    digests, speakers = (dict(zip(decoded["id"], decoded[column], strict=True)) for column in ("digest", "speaker"))
    parts = {
        name: part
        | {
            "audio": [digests[utterance] for utterance in part["ids"]],
            "speakers": sorted({speakers[utterance] for utterance in part["ids"]} - {None}),
        }
        for name, part in record.items()
        if isinstance(part, dict)
    }
    return record | {"labels": labels, "annotations": hash_of_annotations(decoded, values)} | parts


def hash_of_annotations(utterances: Dataset, values: Collection[str] = ()) -> str:
    """The SHA-256 of all labels and transcripts, and of the values of these tasks alone: older runs have no others."""
    columns = ["id", *(task.column for task in TASKS.values() if task.kind != "value" or task.name in values)]
    rows = utterances.select_columns(columns)[:]
    annotations = sorted(zip(*(rows[column] for column in columns), strict=True), key=lambda row: row[0])
    return hashlib.sha256(repr(annotations).encode()).hexdigest()


def rows_of_fold(folds: list[int | None], fold: int, flag: str) -> list[int]:
    """The rows of a fold.

    Raises:
        UserError: there are none.
    """
    rows = [row for row, number in enumerate(folds) if number == fold]
    if not rows:
        present = ", ".join(str(number) for number in sorted(set(folds) - {None})) or "none"
        raise UserError(f"{flag}: fold {fold} holds no utterance; folds with utterances: {present}")
    return rows


def _choose_dev(train: Dataset, fold: Fold) -> list[int]:
    """The rows of `train` that become dev. Each joined corpus gives its own share, of scenarios or of speakers.

    A speaker drawn from one corpus is in dev with all corpora that speakers are drawn from.
    """
    rows_by_corpus = defaultdict(list)
    for row, name in enumerate(train["corpus"]):
        rows_by_corpus[name].append(row)
    unit_of: dict[int, tuple[str, str | None]] = {}
    dev_units: set[tuple[str, str | None]] = set()
    for name in sorted(rows_by_corpus, key=str):
        rows = train.select(rows_by_corpus[name])
        columns = rows.select_columns(["dialog", "speaker", "style", "gender", "emotion"])[:]
        if any(columns["dialog"]):
            kind, groups = "scenario", columns["style"]
            units = [dialog and scenario_of(dialog) for dialog in columns["dialog"]]
        elif any(columns["speaker"]):
            kind, units, groups = "speaker", columns["speaker"], columns["gender"]
        else:
            other = "none with --selection last" if fold == ALL or is_official(train) else "session or none"
            raise UserError(f"--dev dialog: corpus {name!r} has no dialogs and no speakers; use --dev {other}")
        dev_units |= {(kind, unit) for unit in _draw_with_most_emotions(units, groups, columns["emotion"], fold)}
        unit_of |= {row: (kind, unit) for row, unit in zip(rows_by_corpus[name], units, strict=True)}
    return sorted(row for row, unit in unit_of.items() if unit in dev_units)


_IEMOCAP_DIALOG = re.compile(r"((?:.*/)?Ses\d\d)[FM](_(?:impro|script)\d+(?:_\d+)?)[a-z]?")


def scenario_of(dialog: str) -> str:
    """The scenario of a dialog of IEMOCAP within its session; any other dialog is its own.

    Two actors played each scenario twice, with the motion-capture markers on her (Ses01F_impro05) and on him
    (Ses01M_impro05), and a few once more (Ses01F_impro05b): the same lines, or the same story, by the same voices.
    """
    match = _IEMOCAP_DIALOG.fullmatch(dialog)
    return "".join(match.groups()) if match else dialog


def _draw_with_most_emotions(
    units: Sequence[str | None], groups: Sequence[str | None], emotions: Sequence[str | None], fold: Fold
) -> set[str]:
    """Draw dialogs or speakers for dev, with as many emotions as possible; only labelled ones if there are any."""
    emotions_by_unit = defaultdict(set)
    for unit, emotion in zip(units, emotions, strict=True):
        if unit and emotion:
            emotions_by_unit[unit].add(emotion)
    unit_groups = _most_frequent_values(units, groups)
    labelled = {unit: group for unit, group in unit_groups.items() if unit in emotions_by_unit}
    draws = [
        _draw(labelled or unit_groups, random.Random(f"dev of fold {fold}, draw {number}")) for number in range(_DRAWS)
    ]
    return max(draws, key=lambda draw: len(set().union(*(emotions_by_unit[unit] for unit in draw))))


def _draw(unit_groups: dict[str, str | None], generator: random.Random) -> set[str]:
    """Draw a tenth of the units, in proportion to their groups; at least one, and one of each group of two or more."""
    members = defaultdict(list)
    for unit in sorted(unit_groups):
        members[unit_groups[unit] or ""].append(unit)
    ranked = []
    for group in sorted(members):
        size = len(members[group])
        generator.shuffle(members[group])
        for rank, unit in enumerate(members[group]):
            required = rank == 0 and size > 1
            ranked.append((not required, (rank + 0.5) / size, unit))
    number = max(1, round(len(ranked) / 10), sum(len(units) > 1 for units in members.values()))
    return {unit for _, _, unit in sorted(ranked)[:number]}


def _most_frequent_values(keys: Sequence[str | None], values: Sequence[str | None]) -> dict[str, str | None]:
    """The most frequent value of each key, the first in the alphabet if tied; None only for keys without a value."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for key, value in zip(keys, values, strict=True):
        if key:
            counts[key].update([value] if value else [])
    return {
        key: min(key_counts, key=lambda value: (-key_counts[value], value), default=None)
        for key, key_counts in counts.items()
    }
