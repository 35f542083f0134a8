"""Tables of a corpus for people: what it holds, what may be wrong with it, and how a fold splits it."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from textwrap import fill

import numpy as np
import pandas as pd
from datasets import Dataset

from ser_mtl.corpora import ffmpeg
from ser_mtl.corpora.dealing import ALL, FOLDS, DevChoice, Fold
from ser_mtl.corpora.folds import split
from ser_mtl.corpora.leaks import find_leaks, leaks_line
from ser_mtl.corpora.mapping import map_flag
from ser_mtl.corpora.names import EMPTY, alike_people, near_equal, odd_people, spellings
from ser_mtl.corpora.reading import MAX_SECONDS, SHORT, seconds_of
from ser_mtl.corpora.utterances import is_official, normalise_text
from ser_mtl.errors import UserError, some_of
from ser_mtl.safe_text import printable
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS, VALUE_TASKS

_WIDTH = 80  # characters per line
_MOST_SPEAKERS = 40  # in the table of speakers
_EXAMPLES = 5  # names in one warning
_SECONDS = (0, 0.1, 1, 2, 4, 8, 16, 32, 60, np.inf)  # bounds of lengths that are counted together
_MISSING = "(none)"  # label of utterances without one

_CLASSES = [TASKS[task].column for task in CLASSIFICATION_TASKS]


def corpus_tables(
    corpus: Dataset, fold: Fold | None = None, dev: DevChoice = "dialog", left_out: Iterable[str] = ()
) -> str:
    """Describe a corpus: size, annotations, likely mistakes and, for one fold, the splits. For a terminal.

    Of the audio files, only the headers are read.

    Args:
        corpus: as `ser_mtl.corpora.load_corpus` returns it.
        fold: the test fold of the splits, or "all"; None shows the sizes of all folds' splits, or the official split.
        dev: see `ser_mtl.corpora.folds.split`.
        left_out: a line for each reason why files or rows were not read.

    Raises:
        UserError: the corpus has no such split, see `ser_mtl.corpora.folds.split`.
    """
    table = corpus.remove_columns("raters").to_pandas()
    table["text"] = [normalise_text(text or "") or None for text in corpus["text"][:]]
    with ThreadPoolExecutor() as threads:
        table["hours"] = np.array(list(threads.map(seconds_of, table["path"]))) / 3600
    shown = ["path", "corpus", "speaker", "dialog", *_CLASSES]
    table[shown] = table[shown].map(lambda cell: printable(cell) if isinstance(cell, str) else cell)
    sections = {
        "Size": _size(table),
        **_emotions_by_place(table),
        "By length": _lengths(table),
        **({"By corpus": _groups(table, "corpus")} if table["corpus"].nunique() > 1 else {}),
        **{
            f"By {TASKS[task].title}": _groups(table, TASKS[task].column)
            for task in CLASSIFICATION_TASKS
            if task != "emotion" and table[TASKS[task].column].notna().any()
        },
        **_values(table),
        **({"By speaker": _speakers(table)} if table["speaker"].notna().any() else {}),
        "Annotations": _annotations(table),
        "Left out": "\n".join(_bullet(printable(line)) for line in left_out) or "nothing",
        "Likely mistakes": "\n".join(_bullet(warning) for warning in _warnings(table)) or "none found",
    }
    sections |= _split_sections(corpus, table, fold, dev)
    return "\n\n".join(f"{title}\n{'-' * len(title)}\n{text}" for title, text in sections.items())


def _size(table: pd.DataFrame) -> str:
    seconds = 3600 * table["hours"]
    lines = [
        f"utterances: {len(table)}, {table['hours'].sum():.2f} hours",
        f"seconds: {seconds.mean():.2f} on average, from {seconds.min():.2f} to {seconds.max():.2f}",
    ]
    if table["speaker"].notna().any():
        sizes = table["speaker"].value_counts().sort_index()
        fewest, most = sizes.idxmin(), sizes.idxmax()
        lines.append(f"speakers: {len(sizes)}, with {sizes[fewest]} ({fewest}) to {sizes[most]} ({most}) utterances")
    return "\n".join(lines)


def _emotions_by_place(table: pd.DataFrame) -> dict[str, str]:
    """Utterances of each emotion by part of an official split, or else by fold."""
    place = "split" if table["split"].notna().any() else "fold"
    emotions = table["emotion"].astype(object).fillna(_MISSING)
    counts = pd.crosstab(table[place], emotions, margins=True, margins_name="all")
    hours = table.groupby(place)["hours"].sum()
    hours["all"] = hours.sum()
    if place == "fold":
        counts.index = [name if name == "all" else int(name) for name in counts.index]
    return {f"Utterances by {place} and emotion": _text(counts.assign(hours=hours))}


def _lengths(table: pd.DataFrame) -> str:
    """Utterances and hours by seconds."""
    names = [f"{least:g} to {most:g} s" for least, most in pairwise(_SECONDS)]
    bins = pd.cut(3600 * table["hours"], _SECONDS, right=False, labels=names)
    return _text(table.groupby(bins, observed=True).agg(utterances=("id", "size"), hours=("hours", "sum")))


def _values(table: pd.DataFrame) -> dict[str, str]:
    """Number, mean, standard deviation and range of the values that are annotated."""
    values = table[[TASKS[task].column for task in VALUE_TASKS]].dropna(axis="columns", how="all")
    if values.empty:
        return {}
    return {"Values": _text(values.agg(["count", "mean", "std", "min", "max"]).T.astype({"count": int}))}


def _groups(table: pd.DataFrame, column: str) -> str:
    """Utterances, hours and speakers of each label."""
    groups = table.groupby(table[column].fillna(_MISSING))
    return _text(
        pd.DataFrame(
            {"utterances": groups.size(), "hours": groups["hours"].sum(), "speakers": groups["speaker"].nunique()}
        )
    )


def _speakers(table: pd.DataFrame) -> str:
    """Fold, gender, utterances, hours and emotions of each speaker; of many speakers, the first and the last."""
    groups = table.groupby("speaker")
    columns = {
        "fold": groups["fold"].agg(lambda folds: " ".join(str(int(fold)) for fold in sorted(set(folds.dropna())))),
        "gender": groups["gender"].agg(lambda genders: "/".join(sorted(set(genders.dropna()))) or _MISSING),
        "utterances": groups.size(),
        "hours": groups["hours"].sum(),
    }
    emotions = pd.crosstab(table["speaker"], table["emotion"].astype(object).fillna(_MISSING))
    rows = pd.DataFrame(columns).join(emotions)
    if len(rows) <= _MOST_SPEAKERS:
        return _text(rows)
    half = _MOST_SPEAKERS // 2
    hidden = len(rows) - 2 * half
    return f"{_text(pd.concat([rows.head(half), rows.tail(half)]))}\n(the first and last {half}; {hidden} more between)"


def _sizes_of_all_folds(corpus: Dataset, dev: DevChoice) -> str:
    """Utterances in train, dev and test by test fold; and why, of a fold that cannot be the test."""
    rows, problems = {}, {}
    for fold in sorted(set(corpus["fold"][:])):
        try:
            rows[f"test fold {fold}"] = {name: len(part) for name, part in split(corpus, fold, dev).items()}
        except UserError as error:
            problems[fold] = str(error)
    lines = [_text(pd.DataFrame.from_dict(rows, orient="index"))] if rows else []
    lines += [_bullet(f"fold {fold}: {problem}") for fold, problem in problems.items()]
    return "\n".join([*lines, f"(dev {dev}; --fold N shows one in detail)"])


def _annotations(table: pd.DataFrame) -> str:
    """How many utterances have each annotation, and how many different values it has."""
    columns = table[[*(task.column for task in TASKS.values()), "speaker", "dialog"]]
    return _text(
        pd.DataFrame(
            {"annotated": columns.notna().sum(), "missing": columns.isna().sum(), "different": columns.nunique()}
        )
    )


def _warnings(table: pd.DataFrame) -> Iterator[str]:
    unreadable = table["path"][table["hours"].isna()]
    foreign = unreadable[unreadable.map(ffmpeg.reads)]
    if len(foreign) and not ffmpeg.installed():
        yield f"audio: {ffmpeg.needed(list(foreign))}"
        unreadable = unreadable.drop(foreign.index)
    if len(unreadable):
        yield f"audio: {len(unreadable)} unreadable or empty: {_names(unreadable)}"
    if len(long := table["path"][3600 * table["hours"] > MAX_SECONDS]):
        yield f"audio: {len(long)} longer than {MAX_SECONDS:g} seconds (--max_seconds of a training): {_names(long)}"
    if len(short := table["path"][3600 * table["hours"] < SHORT]):
        yield f"audio: {len(short)} shorter than {SHORT:g} seconds: {_names(short)}"
    for column in _CLASSES:
        counts = table[column].value_counts()
        for group in spellings(table[column].dropna().unique()):
            flag = map_flag(column, *_by_count(group, counts))
            yield f"{column}: {_names(map(repr, group))} are spellings of one label, which stop a training; {flag}"
    people = table[["speaker", "gender"]].astype(object)
    rows = people.where(people.notna(), None).to_dict("records")
    yield from (*alike_people(rows), *odd_people(rows))
    for column in _CLASSES:
        for pair in near_equal(table[column].dropna().unique()):
            if not spellings(pair):  # named above
                flag = map_flag(column, *_by_count(pair[::-1], table[column].value_counts()))
                yield f"{column}: {pair[0]!r} and {pair[1]!r} may mean the same; {flag}"
        if table[column].nunique() == 1:
            yield f"{column}: all utterances have the same label, {table[column].dropna().iloc[0]!r}"
    if table["speaker"].nunique() == 1:
        yield f"speaker: there is only one, {table['speaker'].dropna().iloc[0]!r}"
    if table["speaker"].isna().any():
        yield f"speaker: missing in {table['speaker'].isna().sum()} rows; the same person may be in train and test"
    if len(empty := table["text"][table["text"].isin(EMPTY)]):
        yield f"text: {len(empty)} transcripts are a word for nothing, such as {empty.iloc[0]!r}"
    if table["text"].notna().any() and table["text"].isna().any():
        yield f"text: missing in {table['text'].isna().sum()} rows, or without words"
    if table["emotion"].isna().all():
        yield "emotion: missing in all rows"
    if table["text"].isna().all():
        yield "text: missing in all rows; speech recognition cannot be trained"
    yield from _fold_warnings(table)


def _by_count(group: Sequence[str], counts: pd.Series) -> tuple[list[str], str]:
    """The rarer labels of a group, and the most frequent one."""
    usual = max(group, key=lambda label: counts[label])
    return [label for label in group if label != usual], usual


def _fold_warnings(table: pd.DataFrame) -> Iterator[str]:
    if table["split"].notna().any():
        return
    if empty := sorted(set(FOLDS) - set(table["fold"])):
        yield f"fold: no utterance in {_names(map(str, empty))}"
    for column in _CLASSES:
        counts = pd.crosstab(table[column], table["fold"]).reindex(columns=sorted(table["fold"].unique()), fill_value=0)
        for label, row in counts.iterrows():
            if (row == 0).any():
                yield f"{column}: no {label!r} in fold {_names(map(str, row.index[row == 0]))}"


def _split_sections(corpus: Dataset, table: pd.DataFrame, fold: Fold | None, dev: DevChoice) -> dict[str, str]:
    if fold is None and not is_official(corpus):
        return {"Splits": _sizes_of_all_folds(corpus, dev)}
    kind = "Split without a test" if fold == ALL else "Official split" if is_official(corpus) else None
    return {f"{kind or f'Splits of fold {fold}'}, dev {dev}": _splits(corpus, table, fold, dev)}


def _splits(corpus: Dataset, table: pd.DataFrame, fold: Fold | None, dev: DevChoice) -> str:
    splits = split(corpus, fold, dev)
    table = table.set_index("id")
    rows = {}
    for name, part in splits.items():
        utterances = table.loc[part["id"][:]]
        row = {"utterances": len(utterances), "hours": utterances["hours"].sum()}
        row |= {f"{column}s": utterances[column].nunique() for column in ("speaker", "dialog")}
        rows[name] = row | utterances["emotion"].value_counts().sort_index().to_dict()
    counts = pd.DataFrame.from_dict(rows, orient="index")
    whole = counts.columns.drop("hours")
    counts[whole] = counts[whole].fillna(0).astype(int)
    if "test" not in splits:
        return _text(counts)
    return f"{_text(counts)}\n{fill(leaks_line(find_leaks(splits)), _WIDTH)}"


def _text(table: pd.DataFrame) -> str:
    table = table.rename_axis(index=None, columns=None)
    return table.to_string(line_width=_WIDTH, float_format="{:.2f}".format)


def _bullet(text: str) -> str:
    return fill(f"- {text}", _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _names(names: Iterable[str]) -> str:
    return some_of(names, _EXAMPLES)


def training_flags(corpus: Dataset, fold: Fold | None = None, dev: DevChoice = "dialog") -> str:
    """The flags that a training needs for this corpus, beside its name and folder, with a blank before each."""
    folds = sorted(set(corpus["fold"][:]) - {None})
    alone = len(set(corpus["speaker"][:])) == 1 and None not in set(corpus["speaker"][:])
    if fold == ALL or (alone and not is_official(corpus)):
        has_dev = dev != "none" and not (
            alone and not any(corpus["dialog"][:]) and "dev" not in set(corpus["split"][:])
        )
        return " --fold all" + ("" if has_dev else " --dev none --selection last")
    two = not is_official(corpus) and len(set(corpus["speaker"][:]) - {None}) == 2 and not any(corpus["dialog"][:])
    place = "" if is_official(corpus) else f" --fold {fold or folds[0]}"
    if two or dev == "none":
        return f"{place} --dev none --selection last"
    return place + (f" --dev {dev}" if dev != "dialog" else "")
