"""`--map`: labels renamed, joined or left out, in any corpus."""

import shlex
from collections.abc import Iterable, Mapping

from datasets import Dataset

from ser_mtl.corpora.names import cleaned
from ser_mtl.corpora.utterances import chosen
from ser_mtl.errors import UserError
from ser_mtl.parsing import did_you_mean
from ser_mtl.safe_text import is_utf8
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS

_COLUMNS = [TASKS[task].column for task in CLASSIFICATION_TASKS]


def parse_map(words: Iterable[str] | Mapping[str, str]) -> dict[tuple[str, str], str]:
    """`anger=angry`, `disgust=` or `gender:m=male` as {(column, label): new label}; without a column it is emotion.

    Raises:
        UserError: another form, an unknown column, or a label that appears twice.
    """
    pairs = words.items() if isinstance(words, Mapping) else [_pair(word) for word in words]
    found: dict[tuple[str, str], str] = {}
    for old, new in pairs:
        prefix, colon, label = old.partition(":")
        column, label = (prefix, label) if colon and prefix in _COLUMNS else ("emotion", old)
        key = column, (cleaned(label, set()) or "").casefold()
        if not is_utf8(old + new):
            raise UserError(f"--map {old}={new}: is not UTF-8; write it in UTF-8")
        if not key[1]:
            raise UserError(f"--map {old}={new}: names no label; write OLD=NEW, or OLD= to leave it out")
        if key in found:
            raise UserError(f"--map: {label!r} appears twice; upper and lower case are one")
        found[key] = cleaned(new, set()) or ""
    return found


def map_flag(column: str, labels: Iterable[str], into: str) -> str:
    """The flag that joins labels of a column with another one. Upper and lower case are one label to it."""
    prefix = "" if column == "emotion" else f"{column}:"
    different = {label.casefold(): label for label in labels}.values()
    return f"--map {shlex.join(f'{prefix}{label}={into}' for label in different)}"


def _pair(word: str) -> tuple[str, str]:
    old, equals, new = word.partition("=")
    if not equals:
        raise UserError(f"--map {word}: write OLD=NEW, or OLD= to leave it out")
    return old, new


def with_map(corpus: Dataset, words: Iterable[str] | Mapping[str, str]) -> tuple[Dataset, list[str]]:
    """The corpus with new labels, and a line on each label whose utterances are left out.

    An empty new label leaves out utterances of an emotion; for gender and style it means "not annotated". Upper and
    lower case do not matter. Folds stay as they are.

    Raises:
        UserError: as `parse_map`, no utterance has the label, or none is left.
    """
    left_out: list[str] = []
    by_column: dict[str, dict[str, str]] = {}
    for (column, label), new in parse_map(words).items():
        by_column.setdefault(column, {})[label] = new
    for column, wanted in by_column.items():
        labels = corpus[column][:]
        _check_present(column, wanted, labels)
        changed = [None if label is None else wanted.get(label.casefold(), label) for label in labels]
        columns = corpus.column_names
        corpus = corpus.remove_columns(column).add_column(
            column, [new or None for new in changed], feature=corpus.features[column]
        )
        corpus = corpus.select_columns(columns)
        if column == "emotion" and "" in changed:
            left_out += [
                f"{sum(label.casefold() == old for label in labels if label)} utterances are {old!r} (--map)"
                for old, new in wanted.items()
                if not new
            ]
            corpus = chosen(corpus, [row for row, new in enumerate(changed) if new != ""])
    if len(corpus) == 0:
        raise UserError("--map: leaves no utterance; keep at least two emotions")
    return corpus, left_out


def _check_present(column: str, wanted: Mapping[str, str], labels: list[str | None]) -> None:
    known = sorted({label for label in labels if label})
    for old, new in wanted.items():
        read_as_empty = not new and cleaned(old) is None
        if not read_as_empty and old not in {label.casefold() for label in known}:
            hint, labels_there = did_you_mean(old, known), ", ".join(known) or "none"
            raise UserError(f"--map {old}=: no utterance has this {column}{hint}; it has {labels_there}")
