"""Annotations to numbers: label sets, the character vocabulary, and the target columns of a corpus."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, DatasetDict
from transformers import Wav2Vec2CTCTokenizer

from ser_mtl.corpora.raters import emotion_distribution
from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.errors import UserError
from ser_mtl.tasks import TASKS


def label_sets(corpus: Dataset, tasks: Iterable[str]) -> dict[str, list[str]]:
    """The sorted labels of each classification task among `tasks`.

    Raises:
        UserError: no utterance is annotated for a task, or all have the same label.
    """
    labels = {}
    for task in tasks:
        column = TASKS[task].column
        values = sorted(set(corpus.unique(column)) - {None})
        if not values:
            raise UserError(f"--tasks {task}: no utterance of the corpus is annotated for it (column {column!r})")
        if TASKS[task].kind == "classes":
            if len(values) == 1:
                raise UserError(f"--tasks {task}: the corpus has one label only, {values[0]!r}; drop the task")
            labels[task] = values
    return labels


def check_annotated(splits: DatasetDict, tasks: Iterable[str]) -> None:
    """Check that train has annotations for each task and, if emotion is one of them, dev and test for emotion.

    Raises:
        UserError: names the task and the split without annotations.
    """
    for name, rows in splits.items():
        for task in tasks if name == "train" else {"emotion"} & set(tasks):
            column = TASKS[task].column
            if not any(rows[column]):
                raise UserError(
                    f"--tasks {task}: none of the {len(rows)} utterances of {name} is annotated for it (column "
                    f"{column!r}); use another --fold or --dev"
                )


def character_tokenizer(texts: Iterable[str | None]) -> Wav2Vec2CTCTokenizer:
    """The CTC tokenizer of the characters in these transcripts: blank, word boundary, unknown, then the characters."""
    characters = sorted(set("".join(normalise_text(text) for text in texts if text)) - {" "})
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "|", "[UNK]", *characters])}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|", bos_token=None, eos_token=None
        )


def with_targets(
    corpus: Dataset, labels: dict[str, list[str]], tokenizer: Wav2Vec2CTCTokenizer | None, soft_labels: bool = False
) -> Dataset:
    """Add the target columns: `<task>_labels`, -100 if not annotated, and `asr_labels`, empty if not annotated.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        labels: the classes of each classification task.
        tokenizer: encodes the transcripts; None leaves `asr_labels` out.
        soft_labels: `emotion_labels` holds the raters' distribution over the classes, not one class.

    Raises:
        UserError: a label that is not in the label set, or soft labels for a corpus without raters.
    """
    for task, classes in labels.items():
        column = TASKS[task].column
        index = {None: -100} | {label: i for i, label in enumerate(classes)}
        if unknown := sorted(set(corpus.unique(column)) - set(index)):
            raise UserError(f"{task} {unknown[0]!r} is not one of the model's labels: {', '.join(classes)}")
        targets = [index[label] for label in corpus[column]]
        soft = _soft_targets(targets, corpus["raters"], classes) if soft_labels and task == "emotion" else None
        corpus = corpus.add_column(f"{task}_labels", soft or targets)
    if tokenizer is not None:
        texts = [normalise_text(text or "") for text in corpus["text"]]
        corpus = corpus.add_column("asr_labels", [tokenizer(text).input_ids if text else [] for text in texts])
    return corpus


def _soft_targets(hard_targets: list[int], raters: Iterable[list[dict]], labels: list[str]) -> list[list[float]]:
    """The raters' distribution for each utterance, or its own class alone if no rater named any of the classes.

    An utterance without a class stays "not annotated": -100 throughout.
    """
    distributions = [emotion_distribution(utterance_raters or [], labels) for utterance_raters in raters]
    if not any(distributions):
        raise UserError("--soft_labels: no rater of any utterance named one of the corpus's emotions; turn it off")
    targets = []
    for hard_target, distribution in zip(hard_targets, distributions, strict=True):
        one_hot = [float(i == hard_target) for i in range(len(labels))]
        targets.append([-100.0] * len(labels) if hard_target < 0 else distribution or one_hot)
    return targets
