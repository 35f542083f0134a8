"""The description of a corpus: a TOML file, shipped with the package or written by a user."""

import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import BeforeValidator, Field
from typing_extensions import TypedDict

from ser_mtl.corpora.names import spelling
from ser_mtl.corpora.patterns import Pattern, compile_pattern
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError
from ser_mtl.files import fitting, read_bytes

FOLDER = Path(__file__).with_name("descriptions")

DESCRIBED = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))
"""Names of the described corpora that come with the package."""

COLUMNS = tuple(name for name in FEATURES if name not in ("id", "path", "corpus", "start", "end", "raters"))
"""Columns that a description can fill."""

LEAVES_OUT = ("emotion", "split")
"""Columns in which an empty word of a map leaves the utterance out; in others it means "not annotated"."""

REST = "*"
"""In a map: every label that it does not name."""

_MOST_DOTS = 200


@dataclass(frozen=True)
class Table:
    """Files with a row for each utterance: csv, tsv, json, jsonl, or lines of text.

    Attributes:
        files: patterns of their paths; parts of them are fields of each row.
        audio: template of the audio file of a row: the end of its path, its suffix not needed.
        line: for lines of text, a regular expression with named groups; other lines are skipped.
        encoding: of files that are not UTF-8 and do not begin with a byte order mark.
        fields: further fields, the same for each of its rows.
        optional: whether an utterance may lack a row in it.
    """

    files: tuple[str, ...]
    audio: str
    line: str | None = None
    encoding: str = "latin-1"
    fields: Mapping[str, str] = field(default_factory=dict)
    optional: bool = False


@dataclass(frozen=True)
class Description:
    """The content of a TOML file: where a corpus has its audio and labels.

    Attributes:
        name: of the corpus on the command line and in results.
        file: the TOML file.
        title: its name for people.
        language, licence, address: for people who want to get and use it.
        odd: known traps, a sentence each.
        audio: patterns of the audio files' paths without suffix, named parts being fields of the utterance.
        id: template of an utterance's id; files with the same id are copies. By default the path without suffix.
        tables: see `Table`.
        columns: templates of each column; the first whose fields all exist is taken.
        maps: for each column, new labels by old label.
        counts: counts of one or several editions: "of", "utterances", "speakers", and numbers by label of a column.
        other_editions: whether there are editions with other counts: a difference is then reported, not refused.
        hub: repository of a dataset on the Hub that holds the audio and the table.
        config: its configuration.
    """

    name: str
    file: Path
    title: str
    language: str = ""
    licence: str = ""
    address: str = ""
    odd: tuple[str, ...] = ()
    audio: tuple[str, ...] = ("**/*",)
    id: str | None = None
    tables: tuple[Table, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    maps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    counts: tuple[dict[str, Any], ...] = ()
    other_editions: bool = False
    hub: str | None = None
    config: str | None = None


Words = str | list[str]
Patterns = Annotated[Words, Field(min_length=1)]


class _Table(TypedDict, total=False):
    files: Patterns
    audio: str
    line: str
    encoding: str
    fields: dict[str, str]
    optional: bool


def _of_columns(counts: Any) -> Any:
    for name, numbers in counts.items() if isinstance(counts, dict) else ():
        if name not in ("of", "utterances", "speakers"):
            if name not in COLUMNS:
                raise ValueError(f"has {name!r}, which is no column")
            if not isinstance(numbers, dict) or not all(type(number) is int for number in numbers.values()):
                raise ValueError(f"must have a number for each {name}")
    return counts


class _Counts(TypedDict):
    of: NotRequired[str]
    utterances: int
    speakers: NotRequired[int]


class _Content(TypedDict, total=False):
    title: str
    language: str
    licence: str
    address: str
    odd: Words
    audio: Patterns
    id: str
    tables: list[_Table]
    columns: dict[str, Words]
    maps: dict[str, dict[str, str]]
    counts: list[Annotated[_Counts, BeforeValidator(_of_columns)]]
    other_editions: bool
    hub: str
    config: str


def is_described(name: str) -> bool:
    """Whether a name of a corpus means a description: a shipped one, or a TOML file."""
    return name in DESCRIBED or name.endswith(".toml")


def read_description(name: str) -> Description:
    """Read a shipped description, or a TOML file.

    Raises:
        UserError: the file is missing, is not valid TOML, or has a key, column or pattern that means nothing.
    """
    file = FOLDER / f"{name}.toml" if name in DESCRIBED else Path(name)
    try:
        text = read_bytes(file).decode("utf-8-sig").replace("\r\n", "\n")
        if any(line.count(".") > _MOST_DOTS for line in text.split("\n")):  # a.b.c takes memory with their square
            raise UserError(f"{file}: has a line of more than {_MOST_DOTS} dots; shorten it")
        content = tomllib.loads(text)
    except OSError as error:
        raise UserError(f"--corpus {name}: cannot be read ({error.strerror})") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{file}: is not valid TOML ({error})") from error
    return _description(file, content)


def _description(file: Path, content: dict) -> Description:
    _check_keys(file, content, {one.name for one in fields(Description)} - {"name", "file"})
    try:
        fitting(content, _Content, file)
    except UserError as error:
        line = str(error).replace(": is damaged:", ": a value has another form than in docs/corpora.md:", 1)
        raise UserError(line) from error
    for table in content.get("tables", []):
        _check_keys(file, table, {one.name for one in fields(Table)}, "tables.")
        if lacking := [key for key in ("files", "audio") if key not in table]:
            raise UserError(f"{file}: tables: each has another form than in docs/corpora.md: it has no {lacking[0]!r}")
    for section in ("columns", "maps"):
        _check_keys(file, content.get(section, {}), set(COLUMNS), f"{section}.")
    tables = tuple(Table(**table | {"files": _words(table["files"])}) for table in content.get("tables", []))
    description = Description(
        name=file.stem,
        file=file,
        **{"title": file.stem}
        | content
        | {
            "audio": _words(content.get("audio", "**/*")),
            "odd": _words(content.get("odd", ())),
            "tables": tables,
            "columns": {name: _words(text) for name, text in content.get("columns", {}).items()},
            "maps": {name: _map(words) for name, words in content.get("maps", {}).items()},
            "counts": tuple(content.get("counts", ())),
        },
    )
    _check_patterns(description)
    return description


def _check_patterns(description: Description) -> None:
    for pattern in (*description.audio, *(one for table in description.tables for one in table.files)):
        with _named(description.file):
            compile_pattern(pattern)
    for table in description.tables:
        with _named(description.file):
            Pattern(table.line or "", table.line or "")


@contextmanager
def _named(file: Path) -> Iterator[None]:
    """Begin the message of a `UserError` with the name of the file."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from None


def _check_keys(file: Path, content: Mapping, known: set[str], section: str = "") -> None:
    if unknown := [key for key in content if key not in known]:
        raise UserError(f"{file}: {section}{unknown[0]} is unknown; known: {', '.join(sorted(known))}")


def _words(value: str | list[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _map(words: dict[str, str]) -> dict[str, str]:
    return {key if key == REST else spelling(key): word for key, word in words.items()}
