"""Annotations to numbers: label sets, the character vocabulary, and the target columns of a corpus."""

import json
import math
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import Wav2Vec2CTCTokenizer

from ser_mtl.corpora.mapping import map_flag
from ser_mtl.corpora.names import number_notation, shown, spelling, spellings
from ser_mtl.corpora.raters import emotion_distribution
from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.errors import UserError
from ser_mtl.files import writing
from ser_mtl.tasks import TASKS, VALUE_TASKS

NEEDS_EMOTION = "name a folder that has emotions too (--data_dir A B), or annotate them"
"""Advice for a corpus that has neither emotions nor values."""


def label_sets(corpus: Dataset, tasks: Iterable[str]) -> dict[str, list[str]]:
    """The sorted labels of each classification task among `tasks`.

    Raises:
        UserError: no utterance is annotated for a task, all have the same label, labels differ only in how they are
            spelled, or are numbers with decimals.
    """
    labels = {}
    for task in tasks:
        column = TASKS[task].column
        values = sorted(set(corpus.unique(column)) - {None})
        if not values:
            raise UserError(f"--tasks {task}: no utterance of the corpus is annotated for it (column {column!r})")
        if TASKS[task].kind == "classes":
            check_spellings(corpus, column, values)
            if len(values) == 1:
                raise UserError(f"--tasks {task}: the corpus has one label only, {values[0]!r}; drop the task")
            labels[task] = values
    return labels


def value_scales(train: Dataset, tasks: Iterable[str]) -> dict[str, list[float]] | None:
    """Mean and standard deviation, over the annotated utterances of train, of each task that gives a value.

    None if there is no such task.

    Raises:
        UserError: train has fewer than two different values.
    """
    scales = {}
    for task in [task for task in tasks if TASKS[task].kind == "value"]:
        column = TASKS[task].column
        values = np.array([value for value in train[column][:] if value is not None], dtype=np.float64)
        if len(set(values)) < 2:
            raise UserError(
                f"--tasks {task}: the utterances of train have fewer than two different values (column {column!r}); "
                "drop the task, or use another --fold"
            )
        scales[task] = [float(values.mean()), float(values.std())]
    return scales or None


def unusable_tasks(splits: DatasetDict, tasks: Iterable[str]) -> dict[str, str]:
    """Why tasks other than emotion cannot be trained: nobody annotated them, or all utterances have one label.

    Returns:
        The reason by task.
    """
    reasons = {}
    for task in set(tasks) - {"emotion"}:
        column = TASKS[task].column
        labels = set().union(*(set(rows[column][:]) for rows in splits.values())) - {None}
        if not labels:
            reasons[task] = f"no utterance of the corpus is annotated for it (column {column!r})"
        elif TASKS[task].kind == "classes" and len(labels) == 1:
            reasons[task] = f"all utterances have the same label, {min(labels)!r}"
    return {task: reasons[task] for task in TASKS if task in reasons}


def lack_of_emotion(parts: Sequence[Dataset]) -> tuple[str, list[str]] | None:
    """Why emotion cannot be trained, and the values that can be trained instead; None if emotion can be."""
    columns = {task: TASKS[task].column for task in ("emotion", *VALUE_TASKS)}
    found = {task: set().union(*(set(part[column][:]) for part in parts)) - {None} for task, column in columns.items()}
    if len(found["emotion"]) > 1:
        return None
    same = f"all utterances have the same emotion, {min(found['emotion'])!r}" if found["emotion"] else None
    values = [task for task in VALUE_TASKS if len(found[task]) > 1]
    return same or "no utterance has an emotion (column 'emotion')", values


def check_spellings(corpus: Dataset, column: str, labels: list[str]) -> None:
    """Check that no two labels are spellings of one word, and that none is a number with decimals.

    Raises:
        UserError: names the spellings, an utterance, and the spelling to use.
    """
    written = corpus[column][:]
    for group in spellings(labels):
        usual = max(group, key=written.count)
        others = [label for label in group if label != usual]
        example = corpus["id"][written.index(others[0])]
        raise UserError(
            f"column {column!r}: {', '.join(map(shown, group))} are spellings of one label; did you mean {usual!r}? "
            f"Write it the same everywhere (also in {example}), or join them: {map_flag(column, others, usual)}"
        )
    if decimals := [label for label in labels if number_notation(label)]:
        whole = spelling(decimals[0].replace(",", "."))
        remedy = f"did you mean {whole!r}?" if whole.isdecimal() else "write words or whole numbers"
        raise UserError(
            f"column {column!r}: {decimals[0]!r} (such as {corpus['id'][written.index(decimals[0])]}) is a number with "
            f"decimals, a fraction or the like, not a class; {remedy}"
        )


def classes_table(splits: DatasetDict, tasks: Iterable[str]) -> str:
    """Utterances of each class by split, and a warning for each class that train lacks. For a terminal."""
    columns = [TASKS[task].column for task in tasks if TASKS[task].kind == "classes"]
    counts = {name: {column: Counter(rows[column][:]) for column in columns} for name, rows in splits.items()}
    lines, warnings = [["", *splits]], []
    for column in columns:
        labels = sorted(set().union(*(counts[name][column] for name in splits)) - {None})
        lines += [[f"{column} {label}", *(str(counts[name][column][label]) for name in splits)] for label in labels]
        if any(counts[name][column][None] for name in splits):
            lines.append([f"{column} (none)", *(str(counts[name][column][None]) for name in splits)])
        warnings += [
            f"Warning: {column} {label!r} has no utterance in train: the model cannot learn it"
            for label in labels
            if not counts["train"][column][label]
        ]
    for task in [task for task in tasks if TASKS[task].kind == "value"]:
        annotated = [sum(value is not None for value in rows[TASKS[task].column][:]) for rows in splits.values()]
        lines.append([f"{task} (values)", *map(str, annotated)])
    width = max(len(line[0]) for line in lines)
    rows = [line[0].ljust(width) + "".join(cell.rjust(8) for cell in line[1:]) for line in lines]
    return "\n".join([*rows, *warnings])


def check_annotated(splits: DatasetDict, tasks: Iterable[str]) -> None:
    """Check that train has annotations for each task, and dev and test for emotion or, without it, for each value.

    Raises:
        UserError: names the task and the split without annotations.
    """
    tasks = list(tasks)
    scored = ["emotion"] if "emotion" in tasks else [task for task in tasks if TASKS[task].kind == "value"]
    for name, rows in splits.items():
        for task in tasks if name == "train" else scored:
            column = TASKS[task].column
            if not any(value not in (None, "") for value in rows[column][:]):
                raise UserError(
                    f"--tasks {task}: none of the {len(rows)} utterances of {name} is annotated for it (column "
                    f"{column!r}); use another --fold or --dev"
                )


def character_tokenizer(texts: Iterable[str | None]) -> Wav2Vec2CTCTokenizer:
    """The CTC tokenizer of the characters in these transcripts: blank, word boundary, unknown, then the characters."""
    characters = sorted(set("".join(normalise_text(text) for text in texts if text)) - {" "})
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "|", "[UNK]", *characters])}
    with tempfile.TemporaryDirectory() as folder, writing(Path(folder)):
        file = Path(folder) / "vocab.json"
        file.write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
        return Wav2Vec2CTCTokenizer(
            str(file), unk_token="[UNK]", pad_token="[PAD]", word_delimiter_token="|", bos_token=None, eos_token=None
        )


def with_targets(
    corpus: Dataset,
    labels: dict[str, list[str]],
    tokenizer: Wav2Vec2CTCTokenizer | None,
    soft_labels: bool = False,
    values: Iterable[str] = (),
) -> Dataset:
    """Add the target columns `<task>_labels`. "Not annotated" is -100; for values NaN, for transcripts empty.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        labels: the classes of each classification task.
        tokenizer: encodes the transcripts; None leaves `asr_labels` out.
        soft_labels: `emotion_labels` holds the raters' distribution over the classes, not one class.
        values: the tasks that give a value.

    Raises:
        UserError: a label that is not in the label set, or soft labels for a corpus without raters.
    """
    for task, classes in labels.items():
        column = TASKS[task].column
        index = {None: -100} | {label: i for i, label in enumerate(classes)}
        if unknown := sorted(set(corpus.unique(column)) - set(index)):
            raise UserError(f"{task} {unknown[0]!r} is not one of the model's labels: {', '.join(classes)}")
        targets = [index[label] for label in corpus[column][:]]
        soft = _soft_targets(targets, corpus["raters"][:], classes) if soft_labels and task == "emotion" else None
        corpus = corpus.add_column(f"{task}_labels", soft or targets)
    for task in values:
        numbers = [math.nan if value is None else value for value in corpus[TASKS[task].column][:]]
        corpus = corpus.add_column(f"{task}_labels", np.array(numbers, dtype=np.float32))
    if tokenizer is not None:
        texts = [normalise_text(text or "") for text in corpus["text"][:]]
        corpus = corpus.add_column("asr_labels", encoded(texts, tokenizer))
    return corpus


def encoded(texts: Iterable[str], tokenizer: Wav2Vec2CTCTokenizer) -> list[list[int]]:
    """The ids of normalised transcripts: those of `tokenizer`, which is far slower."""
    texts = list(texts)
    letters = {letter: tokenizer(letter).input_ids for letter in set("".join(texts)) - {" "}}
    letters[" "] = [tokenizer.convert_tokens_to_ids(tokenizer.word_delimiter_token)]
    return [[number for letter in text for number in letters[letter]] for text in texts]


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
