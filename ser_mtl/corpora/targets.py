"""From annotations to numbers: label sets, the vocabulary of characters, and the target columns of a corpus."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from datasets import Dataset, DatasetDict
from transformers import Wav2Vec2CTCTokenizer

from ser_mtl.corpora.raters import emotion_distribution
from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.errors import UserError
from ser_mtl.tasks import CLASSIFICATION_TASKS


def label_sets(corpus: Dataset, tasks: Iterable[str]) -> dict[str, list[str]]:
    """Sorted labels of each classification task that the corpus annotates.

    Raises:
        UserError: a task that no utterance is annotated for, or one that has a single label.
    """
    labels = {}
    for task in tasks:
        column = "text" if task == "asr" else task
        found = sorted({value for value in corpus.unique(column) if value is not None})
        if not found:
            raise UserError(f"--tasks {task}: no utterance of the corpus is annotated for it (column {column!r})")
        if task in CLASSIFICATION_TASKS:
            if len(found) == 1:
                raise UserError(f"--tasks {task}: the corpus knows one label only, {found[0]!r}; drop the task")
            labels[task] = found
    return labels


def check_annotated(splits: DatasetDict, tasks: Iterable[str]) -> None:
    """Make sure that there is something to learn for each task and, where it is one of them, emotion to score.

    Raises:
        UserError: names the task and the split that no annotated utterance is in.
    """
    for name, rows in splits.items():
        for task in tasks if name == "train" else {"emotion"} & set(tasks):
            column = "text" if task == "asr" else task
            if not any(rows[column]):
                raise UserError(
                    f"--tasks {task}: of the {len(rows)} utterances of {name} none is annotated for it (column "
                    f"{column!r}); use another --fold or --dev"
                )


def character_tokenizer(texts: Iterable[str | None]) -> Wav2Vec2CTCTokenizer:
    """The CTC tokenizer of the characters in these transcripts: blank first, then the word boundary, then the rest."""
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
    """Add `<task>_labels` (-100 for "not annotated") and, given a tokenizer, `asr_labels` (empty for that).

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        labels: classes of each classification task.
        tokenizer: of the transcripts' characters.
        soft_labels: make `emotion_labels` the raters' distribution over the classes in place of one class.

    Raises:
        UserError: a label that is not in the label set, or soft labels of a corpus without raters.
    """
    for task, names in labels.items():
        index = {None: -100} | {name: i for i, name in enumerate(names)}
        if unknown := sorted(set(corpus.unique(task)) - set(index)):
            raise UserError(f"{task} {unknown[0]!r} is not among the labels the model knows: {', '.join(names)}")
        classes = [index[name] for name in corpus[task]]
        targets = _soft_targets(classes, corpus["raters"], names) if soft_labels and task == "emotion" else classes
        corpus = corpus.add_column(f"{task}_labels", targets)
    if tokenizer is not None:
        texts = [normalise_text(text or "") for text in corpus["text"]]
        corpus = corpus.add_column("asr_labels", [tokenizer(text).input_ids if text else [] for text in texts])
    return corpus


def _soft_targets(classes: list[int], raters: Iterable[list[dict]], labels: list[str]) -> list[list[float]]:
    """The raters' distribution of each utterance, the annotated class alone where no rater named any of the classes.

    An utterance without an annotated class stays "not annotated": -100 throughout.
    """
    distributions = [emotion_distribution(of_utterance or [], labels) for of_utterance in raters]
    if not any(distributions):
        raise UserError("--soft_labels: no utterance of the corpus has raters who named one of its emotions")
    targets = []
    for chosen, distribution in zip(classes, distributions, strict=True):
        hard = [float(i == chosen) for i in range(len(labels))]
        targets.append([-100.0] * len(labels) if chosen < 0 else distribution or hard)
    return targets
