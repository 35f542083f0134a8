"""Labels and names as people write them: their normal form, words that stand for nothing, spellings of one word."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches
from itertools import combinations

from ser_mtl.errors import UserError, notice
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS

EMPTY = {"", "nan", "-nan", "none", "null", "na", "n/a", "n.a.", "#n/a", "#na", "nat", "missing"}
"""Words that programs and people write into a cell without a value."""

ALL = "all"
"""The group of all utterances, among those of the styles."""

NOBODY = {"unknown", "unk", "unidentified", "anonymous", "undefined", "unspecified", "nobody", "other", "?", "-", "--"}
"""Words that people write for a speaker or dialog that they do not know, beside those of `EMPTY`."""


def cleaned(cell: str | None, nothing: set[str] = EMPTY) -> str | None:
    """A label or name in Unicode's composed form, with single spaces; None for an empty cell.

    Args:
        cell: as it was written.
        nothing: what else an empty cell holds, in small letters and without brackets.
    """
    text = " ".join(unicodedata.normalize("NFC", cell or "").split())
    return None if text.casefold().strip("<>[](){}") in nothing else text


def clean(rows: Sequence[dict], place: str) -> None:
    """Clean the labels, speakers and dialogs of rows in place, and say once which words were read as empty.

    Args:
        rows: with the columns of the classification tasks, `speaker` and `dialog`.
        place: names the table in messages.

    Raises:
        UserError: a style has the name of the group of all utterances.
    """
    labels = [TASKS[task].column for task in CLASSIFICATION_TASKS]
    for column in (*labels, "speaker", "dialog"):
        nothing = EMPTY if column in labels else EMPTY | NOBODY
        emptied: Counter[str] = Counter()
        for row in rows:
            before, row[column] = row[column], cleaned(row[column], nothing)
            if row[column] is None and before:
                emptied[before] += 1
        for word, count in sorted(emptied.items()):
            notice(f"{place}: column {column!r}: {word!r}, in {count} rows, is read as an empty cell")
    if any(row["style"] == ALL for row in rows):
        raise UserError(f"{place}: column 'style': results have {ALL!r} for all utterances; call the style otherwise")


def known_columns(place: str, columns: Sequence[str], known: Iterable[str]) -> list[str]:
    """The columns that this project reads; the others are named once, in a note.

    Args:
        place: names the table in messages.
        columns: of the table.
        known: all that could be there.

    Raises:
        UserError: a column looks like a misspelt one that is not there.
    """
    known = list(known)
    others = [column for column in columns if column not in known]
    absent = [column for column in known if column not in columns]
    near = {column: get_close_matches(column.strip().lower(), absent, n=1, cutoff=0.75) for column in others}
    if typos := [f"{column!r} (did you mean {match[0]!r}?)" for column, match in near.items() if match]:
        raise UserError(f"{place}: unknown columns: {', '.join(typos)}; rename or remove them")
    if others:
        notice(f"{place}: columns that are not read: {', '.join(map(repr, others))}; read are {', '.join(known)}")
    return [column for column in columns if column in known]


def spelling(name: str) -> str:
    """What all spellings of a word share: `Fear ful`, `fear-ful` and `FEARFUL`, or `1` and `1.0`, are one."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    text = "".join(character for character in text if unicodedata.category(character) != "Cf")  # such as a BOM
    text = text.strip().rstrip(".,;:!")
    if re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text):
        return f"{float(text):.15g}"
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])", "", text) or name


def spellings(names: Iterable[str]) -> list[list[str]]:
    """Groups of two names or more that are spellings of one word, sorted."""
    groups = defaultdict(list)
    for name in sorted(set(names)):
        groups[spelling(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def near_equal(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of labels that may mean the same: `sad` and `sadness`, `angry` and `anger`, `neutral` and `netural`."""
    pairs = []
    for first, second in combinations(sorted(set(names)), 2):
        a, b = sorted((first.casefold(), second.casefold()), key=len)
        begins_alike = b.startswith(a) if len(a) < 5 else a[:4] == b[:4]
        if a[:1] == b[:1] and len(a) > 2 and (begins_alike or SequenceMatcher(None, a, b).ratio() >= 0.8):
            pairs.append((first, second))
    return pairs


def same_person(name: str) -> str:
    """What all spellings of a speaker share: upper and lower case, spaces and Unicode forms do not count."""
    return "".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold()).split())


def one_name_each(rows: Sequence[dict]) -> None:
    """Give each speaker one name, in place: the most frequent of its spellings, the first in the alphabet if tied."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row["speaker"]:
            counts[same_person(row["speaker"])][row["speaker"]] += 1
    names = {key: min(found, key=lambda name: (-found[name], name)) for key, found in counts.items()}
    if several := [found for found in counts.values() if len(found) > 1]:
        example = ", ".join(map(repr, sorted(several[0])))
        notice(f"{len(several)} speakers have several spellings (such as {example}): each is one person")
    for row in rows:
        row["speaker"] = row["speaker"] and names[same_person(row["speaker"])]
