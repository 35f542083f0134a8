"""Labels and names as people write them: their normal form, words for "not annotated", spellings of one word."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher, get_close_matches
from functools import cache
from itertools import combinations

from ser_mtl.errors import UserError, notice
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS

EMPTY = (
    {"", "nan", "none", "null", "na", "n a", "nv", "\\n", "nat", "missing"}
    | {
        f"{no} {what}"
        for no, words in {
            "not": "available applicable annotated labelled labeled rated given specified provided",
            "no": "label annotation rating data value information",
        }.items()
        for what in words.split()
    }
    | {"unlabelled", "unlabeled", "unannotated"}
)
"""What programs and people write into a cell without a value, without punctuation; "" is punctuation alone."""

_EXAMPLES = 20  # columns in one message
_FEW_ROWS = 10  # in which each may well be another person's

ALL = "all"
"""The group of all utterances, which results have beside those of the styles."""

NOBODY = {
    "unknown", "unk", "unidentified", "unnamed", "undefined", "unspecified", "anonymous", "anonym", "anon",
    "nobody", "noname", "other", "others", "various", "several", "multiple", "mixed", "many", "unbekannt",
    "anonyme", "inconnu", "inconnue", "desconocido", "desconocida", "desconhecido", "desconhecida",
    "sconosciuto", "sconosciuta", "onbekend", "ukjent", "okänd", "неизвестно", "неизвестный", "未知", "不明", "-1",
    "-9", "-99", "-999",
    "n n", "not known", "not identified", "not named", "no name", "no speaker", "no id", "don t know",
}  # fmt: skip
"""What people write for a speaker or dialog that they do not know, beside `EMPTY`."""

_ANYBODY = {
    "speaker", "speakers", "person", "persons", "people", "participant", "subject", "actor", "actress", "user",
    "voice", "name", "id", "dialog", "dialogue", "male", "female", "man", "woman", "sprecher", "sprecherin",
    "locuteur", "locutrice",
}  # fmt: skip
"""Words that still name nobody beside one of `NOBODY`: `unknown speaker`."""

_QUOTES = "\"'`\u00b4\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb\u2039\u203a"

_LOOK_ALIKES = str.maketrans("аеорсухіјѕкмтнвαοερνικχτβυɑɡøłđı", "aeopcyxijskmthbaoepvikxtbuagoldi")
"""Lower-case letters of other alphabets, and the Latin letters that they are taken for."""


def cleaned(cell: str | None, nothing: set[str] = EMPTY) -> str | None:
    """A label or name in Unicode's composed form, with single spaces; None for an empty cell.

    Args:
        cell: as it was written.
        nothing: words that stand for an empty cell: lower case, without punctuation.
    """
    text = " ".join(unicodedata.normalize("NFC", cell or "").split())
    return None if _is_nothing(text, nothing) else text


def _is_nothing(text: str, nothing: set[str]) -> bool:
    whole = same_person(text)
    words = "".join(" " if _is_punctuation(character) else character for character in _folded(text)).split()
    if {" ".join(words), whole} & nothing or (nothing and re.fullmatch(r"#\w+(/0)?[!?]", whole)):  # an error of Excel
        return True
    rest = " ".join(word for word in words if word not in _ANYBODY)
    return nothing >= NOBODY and rest != "" and rest in nothing


def _is_punctuation(character: str) -> bool:
    """Whether it is none of a letter, digit, emoji or plus."""
    return unicodedata.category(character)[0] in "PZ" or (
        character.isascii() and not character.isalnum() and character != "+"
    )


def _folded(name: str) -> str:
    """Lower case in Unicode's compatibility form (NFKC), without invisible characters such as a BOM."""
    text = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
    return "".join(character for character in text if unicodedata.category(character) != "Cf")


def clean(rows: Sequence[dict], place: str) -> None:
    """Clean the labels, speakers and dialogs of rows in place, and say once which words were read as empty.

    Spellings of a dialog become one; those of a speaker wait for `one_name_each`, which knows all joined tables.

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
        if column in labels and any(row[column] == "+" for row in rows):
            nothing = nothing - {""}  # beside a plus, a minus is a label
        cells = {cell: cleaned(cell, nothing) or None for cell in {row[column] for row in rows}}
        for row in rows:
            before, row[column] = row[column], cells[row[column]]
            if row[column] is None and before:
                emptied[before] += 1
        for word, count in sorted(emptied.items()):
            notice(f"{place}: column {column!r}: {word!r}, in {count} rows, is read as an empty cell")
    one_name_each(rows, "dialog")
    if any(row["style"] == ALL for row in rows):
        raise UserError(f"{place}: column 'style': {ALL!r} means all utterances in results; rename the style")


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
        more = f" and {len(others) - _EXAMPLES} more" if len(others) > _EXAMPLES else ""
        names = ", ".join(map(repr, others[:_EXAMPLES]))
        notice(f"{place}: columns that are not read: {names}{more}; read are {', '.join(known)}")
    return [column for column in columns if column in known]


def spelling(name: str) -> str:
    """The common form of all spellings of a word: `Fear ful`, `fear-ful` and `FEARFUL`, or `1` and `1.0`, are one."""
    text = _folded(name).strip().rstrip(".,;:!")
    if re.fullmatch(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", text):
        return f"{float(text):.15g}"
    return re.sub(r"(?<=[^\W\d_])[\s_-]+(?=\w)|(?<=\w)[\s_-]+(?=[^\W\d_])", "", text) or name


def appearance(name: str) -> str:
    """The spelling without accents, look-alike letters, and punctuation except between digits: easily overlooked."""
    text = spelling(name)
    if re.fullmatch(r"[+-]?\d+(\.\d+)?", text):
        return text
    text = re.sub("[\u0300-\u036f]", "", unicodedata.normalize("NFD", text)).translate(_LOOK_ALIKES)
    text = "".join("-" if _is_punctuation(character) else character for character in text)
    return re.sub(r"(?<!\d)-+|-+(?!\d)", "", text) or name


def spellings(names: Iterable[str], key: Callable[[str], str] = appearance) -> list[list[str]]:
    """Groups of two or more names that are spellings of one word, sorted."""
    groups = defaultdict(list)
    for name in sorted(set(names)):
        groups[key(name)].append(name)
    return [group for group in groups.values() if len(group) > 1]


def number_notation(label: str) -> bool:
    """Whether a label is a number in another notation than that of whole numbers: `1.0`, `1,5`, `1e0`, `½`, `50 %`."""
    text = unicodedata.normalize("NFKC", label).casefold().replace("\u2212", "-")
    number = r"[+-]?(\d[\d.,' ]*|[.,]\d+)(e[+-]?\d+)?"
    return bool(re.fullmatch(rf"{number}(\s*[/\u2044]\s*\d+)?\s*%?", text)) and not re.fullmatch(r"[+-]?\d+", text)


def near_equal(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of labels that may mean the same: `sad` and `sadness`, `angry` and `anger`, `neutral` and `netural`."""
    pairs = []
    for first, second in combinations(sorted(set(names)), 2):
        a, b = sorted((first.casefold(), second.casefold()), key=len)
        begins_alike = b.startswith(a) if len(a) < 5 else a[:4] == b[:4]
        if a[:1] == b[:1] and len(a) > 2 and (begins_alike or SequenceMatcher(None, a, b).ratio() >= 0.8):
            pairs.append((first, second))
    return pairs


@cache
def same_person(name: str) -> str:
    """The common form of all spellings of a speaker's name.

    Case, spaces, Unicode forms, invisible characters, surrounding quotes and the `.0` of a number do not count.
    """
    text = "".join(_folded(name).split())
    text = re.sub(f"^[{_QUOTES}]+(.+?)[{_QUOTES}]+$", r"\1", text)
    return re.sub(r"(?<=\d)\.0+$", "", text) or name


def _likely_person(name: str) -> str:
    """The common form of spellings that are most likely one speaker: `f1`, `f01`, `f_1`, `f-1`; `José` and `Jose`."""
    return re.sub(r"(?<!\d)0+(?=\d)", "", appearance(f"x{same_person(name)}"))


def alike_people(rows: Sequence[dict]) -> Iterator[str]:
    """A line on each group of speakers that are most likely one person; those of different genders are not.

    Args:
        rows: with `speaker` and `gender`, after `one_name_each`.
    """
    counts = Counter(row["speaker"] for row in rows)
    genders: dict[str, set] = defaultdict(set)
    for row in rows:
        genders[row["speaker"]].add(row["gender"])
    for group in spellings(counts.keys() - {None}, _likely_person):
        known = [genders[name] for name in group]
        if None in set().union(*known) or set.intersection(*known):
            usual = min(group, key=lambda name: (-counts[name], name))
            names = ", ".join(map(shown, group))
            yield f"column 'speaker': {names} are most likely one person; did you mean {usual!r}?"


def odd_people(rows: Sequence[dict]) -> Iterator[str]:
    """A line on speakers that are no people, as far as one can tell: of two genders, or one for each utterance.

    Args:
        rows: with `speaker` and `gender`, after `one_name_each`.
    """
    genders: dict[str, set] = defaultdict(set)
    for row in rows:
        if row["speaker"]:
            genders[row["speaker"]] |= {row["gender"]} - {None}
    if several := [name for name, found in genders.items() if len(found) > 1]:
        found = " and ".join(map(repr, sorted(genders[several[0]])))
        yield f"column 'gender': {len(several)} speakers have more than one, such as {several[0]!r} with {found}"
    if len(genders) == len(rows) >= _FEW_ROWS:
        yield "column 'speaker': each utterance has one of its own, so the same person may be in train and test"


def check_people(rows: Sequence[dict], place: str) -> None:
    """Check that no two speakers are most likely one person. With an official split, it is only a notice.

    What else is odd about them is said too.

    Args:
        rows: with `speaker`, `gender` and `split`, after `one_name_each`.
        place: names the table in messages.

    Raises:
        UserError: names the spellings, and the one to use.
    """
    for line in odd_people(rows):
        notice(f"{place}: {line}")
    for line in alike_people(rows):
        if not any(row["split"] for row in rows):
            raise UserError(f"{place}: {line} Write it the same everywhere, or give two people names of their own")
        notice(f"{place}: {line}")


def shown(name: str) -> str:
    """A name in quotes; if it mixes alphabets, with codes in place of non-ASCII letters."""
    alphabets = {unicodedata.name(character, "").split(" ")[0] for character in name if character.isalpha()}
    return ascii(name) if len(alphabets & {"LATIN", "CYRILLIC", "GREEK"}) > 1 else repr(name)


def one_name_each(rows: Sequence[dict], column: str = "speaker") -> None:
    """Give each speaker, or dialog, one name, in place: its most frequent spelling, the first in the alphabet if tied.

    Args:
        rows: with the column.
        column: "speaker" or "dialog".
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        if row[column]:
            counts[same_person(row[column])][row[column]] += 1
    names = {key: min(found, key=lambda name: (-found[name], name)) for key, found in counts.items()}
    if several := [found for found in counts.values() if len(found) > 1]:
        example = ", ".join(map(repr, sorted(several[0])))
        one = "person" if column == "speaker" else column
        notice(f"{len(several)} {column}s have several spellings (such as {example}): each is one {one}")
    for row in rows:
        row[column] = row[column] and names[same_person(row[column])]
