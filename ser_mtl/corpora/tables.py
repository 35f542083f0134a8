"""Reading the tables of corpora: csv, tsv, json, jsonl, and lines of text."""

import csv
from collections.abc import Iterator
from io import StringIO
from pathlib import Path

from ser_mtl.corpora.patterns import Pattern
from ser_mtl.errors import UserError
from ser_mtl.files import loads, read_bytes

_MARKS = ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))


def rows_of(file: Path, line: str | None = None, encoding: str = "latin-1") -> Iterator[dict[str, str]]:
    """The rows of a table: text by column, without blanks at its ends; empty cells are left out.

    Args:
        file: .csv or .tsv with a header, .json (an array of objects, or an object of them), .jsonl.
        line: a regular expression with named groups, for lines of text.
        encoding: of a file that is not UTF-8 and has no byte order mark.

    Raises:
        UserError: the file cannot be read, or is not what its suffix says.
    """
    text = read_text(file, encoding)
    if line is not None:
        found = filter(None, map(Pattern(line, line).fullmatch, (one.strip() for one in text.split("\n"))))
        rows: Iterator[dict] = (match.groupdict() for match in found)
    elif file.suffix.lower() in (".json", ".jsonl"):
        rows = _objects(file, text)
    else:
        rows = csv.DictReader(StringIO(text, newline=""), delimiter=_separator(file, text), restkey="", strict=True)
        _check_header(file, rows)
    try:
        for row in rows:
            yield {str(name).strip(): cell for name, value in row.items() if (cell := as_text(value))}
    except csv.Error as error:
        raise UserError(f"{file}: is not a table ({error})") from error


def _check_header(file: Path, rows: csv.DictReader) -> None:
    try:
        names = [name.strip() for name in rows.fieldnames or () if name.strip()]
    except csv.Error as error:
        raise UserError(f"{file}: is not a table ({error})") from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"{file}: has the column {twice[0]!r} twice; rename one of them")


def as_text(value: object) -> str:
    """A cell as text; empty if it does not hold a single value."""
    if value is None or isinstance(value, bool | dict | list):
        return ""
    return " ".join(str(value).split()) if isinstance(value, str) else str(value)


def read_text(file: Path, encoding: str) -> str:
    """A text file in UTF-8, UTF-16, or else in `encoding`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        raw = read_bytes(file)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error
    known = [name for mark, name in _MARKS if raw.startswith(mark)] or ["utf-8"]
    for name in (*known, encoding):
        try:
            text = raw.decode(name)
            text.encode()  # refuses half surrogate pairs, of unicode_escape, which no file could hold
            return text
        except (UnicodeDecodeError, UnicodeEncodeError):
            continue
        except (LookupError, ValueError) as error:
            raise UserError(f"{file}: encoding {name!r} is none that Python reads text with") from error
    return raw.decode("latin-1")


def _separator(file: Path, text: str) -> str:
    header = text.split("\n", 1)[0]
    return "\t" if file.suffix.lower() == ".tsv" else max(",;\t", key=header.count)


def _objects(file: Path, text: str) -> Iterator[dict]:
    try:
        text.encode()
        if file.suffix.lower() == ".jsonl":
            content = [loads(line) for line in text.split("\n") if line.strip()]
        else:
            content = loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: is not valid JSON ({error})") from error
    if isinstance(content, dict):  # by key, as EmoBox has it
        content = [{"key": key} | row for key, row in content.items() if isinstance(row, dict)]
    if not isinstance(content, list):
        raise UserError(f"{file}: must hold rows, each an object")
    return (row for row in content if isinstance(row, dict))
