"""The content of `split.json`: the ids of every part of a split corpus, and hashes of their audio and annotations."""

import hashlib
from collections.abc import Collection
from typing import NotRequired

from datasets import Dataset, DatasetDict
from typing_extensions import TypedDict

from ser_mtl.corpora.dealing import DevChoice, Fold
from ser_mtl.tasks import TASKS


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
        ids = sorted(rows["id"][:])
        record[name] = {"ids": ids, "sha256": hashlib.sha256("\n".join(ids).encode()).hexdigest()}
    return record


def with_content(record: dict, decoded: Dataset, labels: dict[str, list[str]], values: Collection[str] = ()) -> dict:
    """Add hashes of labels and audio to a split's record, so that a run is not resumed on another corpus.

    Args:
        record: of `split_record`.
        decoded: all utterances, with `digest`.
        labels: the classes of each task, in the order of the model's outputs.
        values: the trained tasks that give a value.

    Returns:
        The record with {"labels": {task: [...]}, "annotations": the hash of `hash_of_annotations`}, and in each split
        "audio": a hash of the samples of each of its ids; and "speakers", sorted.
    """
    digests, speakers = (
        dict(zip(decoded["id"][:], decoded[column][:], strict=True)) for column in ("digest", "speaker")
    )
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
    """The SHA-256 of all labels and transcripts, and of the values of these tasks only, as in older runs."""
    columns = ["id", *(task.column for task in TASKS.values() if task.kind != "value" or task.name in values)]
    rows = utterances.select_columns(columns)[:]
    annotations = sorted(zip(*(rows[column] for column in columns), strict=True), key=lambda row: row[0])
    return hashlib.sha256(repr(annotations).encode()).hexdigest()
