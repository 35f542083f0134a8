"""Folder corpora: recordings with a `metadata.csv`, read as utterances and written from them. No audio is decoded."""

import csv
import ntpath
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from os.path import isabs, isfile, join, normpath
from pathlib import Path

import pandas as pd
from datasets import Dataset

from ser_mtl.corpora.dealing import assign_folds
from ser_mtl.corpora.names import check_people, clean, known_columns, one_name_each
from ser_mtl.corpora.utterances import FEATURES, is_official
from ser_mtl.corpora.values import SYNONYMS, VALUES, read_values, shortest
from ser_mtl.errors import UserError, notice
from ser_mtl.files import replacing
from ser_mtl.safe_text import csv_line, unguarded
from ser_mtl.tasks import TASKS

METADATA = "metadata.csv"

ANNOTATIONS = (*(task.column for task in TASKS.values()), "speaker", "dialog", "fold", "split")
COLUMNS = ("file_name", *ANNOTATIONS)
"""The columns of `metadata.csv`. Only `file_name` is required; an empty cell means "not annotated"."""

_FIRST_ROW = 2  # as spreadsheets count: the header is row 1
_SEPARATORS = ",;\t"  # a spreadsheet writes the second where the comma is the decimal sign
_MOST_COLUMNS = 10_000  # each is compared with the names that are read
_NAMELESS = re.compile(r"Unnamed: \d+")  # as pandas calls a column without a name


def read_folder(data_dirs: Sequence[Path | str], distinct_speakers: bool = False) -> Dataset:
    """Read one folder corpus, or join several, one row per utterance, sorted by id.

    Without a column `fold`, the speakers of each folder are dealt into five folds. If several folders are joined, the
    name of the folder is put in front of ids and dialogs to keep them unique. A speaker of several folders is one
    person, whose fold is that of a folder with a column `fold`, else of the first folder.

    Args:
        data_dirs: the folders.
        distinct_speakers: the same name in two folders means two people; the folder's name is put in front of it.

    Raises:
        UserError: names the file, and the row or column, that is wrong.
    """
    folders = [Path(folder) for folder in data_dirs]
    names = [Path(os.path.realpath(folder)).name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data_dir: two folders are called {name!r}; rename one, or list each folder once")
    tables = {folder: _read_one_folder(folder) for folder in folders}
    prefixes = [f"{name}/" if len(folders) > 1 else "" for name in names]
    _name_people(tables, prefixes, distinct_speakers)
    folds = _folds_of(tables)
    utterances = [
        _utterance(row, fold, folder, name, prefix)
        for (folder, rows), name, prefix in zip(tables.items(), names, prefixes, strict=True)
        for row, fold in zip(rows, folds[folder], strict=True)
    ]
    return Dataset.from_list(sorted(utterances, key=lambda row: row["id"]), features=FEATURES)


def place_of(utterance: str, path: str) -> str:
    """The row of `metadata.csv` that holds an utterance, such as `mine/metadata.csv, row 7: `; else nothing.

    Args:
        utterance: its id.
        path: its audio file.
    """
    for folder in Path(path).parents:
        name = Path(path).relative_to(folder).as_posix()
        if name != utterance and not utterance.endswith(f"/{name}"):
            return ""
        if row := _row_numbers(folder / METADATA).get(name):
            return f"{folder / METADATA}, row {row}: "
    return ""


def _row_numbers(metadata: Path) -> dict[str, int]:
    """The row of each file name of a table; empty if it is not a table."""
    try:
        return {normpath(row["file_name"] or ""): number for number, row in enumerate(_read_rows(metadata), _FIRST_ROW)}
    except (UserError, OSError):
        return {}


def write_metadata(corpus: Dataset, path: Path | str) -> None:
    """Write a corpus as a folder corpus: `path` is the table, and the audio stays where it is.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        path: of the table to write, called `metadata.csv` if `read_folder` is to find it. All audio must be below its
            folder.

    Raises:
        UserError: audio outside the folder of the table, or the table exists.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path}: exists; remove it, or write to another file")
    names = _names_below(path, corpus["path"])
    left_out = "fold" if is_official(corpus) else "split"  # of an official split, the fold follows from it
    lacking = {column for column in VALUES if all(value is None for value in corpus[column])}
    columns = [column for column in ANNOTATIONS if column not in {left_out, *lacking}]
    cells = [
        corpus[column] if column not in VALUES else [_text(value) for value in corpus[column]] for column in columns
    ]
    rows = zip(names, *cells, strict=True)
    lines = [
        csv_line(["file_name", *columns]),
        *(csv_line("" if cell is None else cell for cell in row) for row in rows),
    ]
    try:
        with replacing(path) as partial:
            partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def _names_below(table: Path, files: Iterable[str]) -> list[str]:
    """The names of audio files below the folder of a table."""
    folder = os.path.abspath(table.parent)  # not `resolve`: audio may be linked into the folder
    audio = [os.path.abspath(file) for file in files]
    outside = [file for file in audio if not Path(file).is_relative_to(folder)]
    if outside:
        common = os.path.commonpath([os.path.dirname(file) for file in audio])
        raise UserError(
            f"{table}: {outside[0]} is outside the folder of this table; write it into the folder that holds the "
            f"audio: {os.path.join(common, METADATA)}"
        )
    names = [Path(file).relative_to(folder).as_posix() for file in audio]
    return [f"./{name}" if csv_line([name]).startswith("'") else name for name in names]  # else it would get a '


def _text(value: float | None) -> str | None:
    return None if value is None else shortest(value)


def _read_one_folder(folder: Path) -> list[dict]:
    metadata = folder / METADATA
    if not folder.is_dir():
        raise UserError(f"--data_dir: no such folder: {folder}")
    if not metadata.is_file():
        raise UserError(f"--data_dir: no {METADATA} in {folder}; it needs at least the column 'file_name'")
    rows = _read_rows(metadata)
    _check_files(metadata, rows)
    clean(rows, str(metadata))
    read_values(rows, str(metadata), _FIRST_ROW)
    return rows


def _name_people(tables: dict[Path, list[dict]], prefixes: list[str], distinct_speakers: bool) -> None:
    """Give each person one name over all tables; with `distinct_speakers`, in each table."""
    if distinct_speakers:
        for (folder, rows), prefix in zip(tables.items(), prefixes, strict=True):
            one_name_each(rows)
            check_people(rows, str(folder / METADATA))
            for row in rows:
                row["speaker"] = row["speaker"] and prefix + row["speaker"]
        return
    joined = [row for rows in tables.values() for row in rows]
    one_name_each(joined)
    check_people(joined, " and ".join(str(folder / METADATA) for folder in tables))
    folders_of = Counter(speaker for rows in tables.values() for speaker in {row["speaker"] for row in rows} - {None})
    if shared := sorted(speaker for speaker, number in folders_of.items() if number > 1):
        notice(
            f"{len(shared)} speakers are in several folders (such as {shared[0]!r}) and taken for the same people; "
            "--distinct_speakers if they are not"
        )


def _folds_of(tables: dict[Path, list[dict]]) -> dict[Path, list[int | None]]:
    """The fold of every row. Folders with a column `fold` come first: their speakers keep it in other folders."""
    folds: dict[Path, list[int | None]] = {}
    known: dict[str, int] = {}
    _check_official_together(tables)
    for folder, rows in sorted(tables.items(), key=lambda item: all(row["fold"] is None for row in item[1])):
        folds[folder] = assign_folds(rows, partial(_row_of, folder / METADATA), known)
        dealt = zip(rows, folds[folder], strict=True)
        known = {row["speaker"]: fold for row, fold in dealt if row["speaker"] and fold} | known
    return folds


def _check_official_together(tables: dict[Path, list[dict]]) -> None:
    official = {folder for folder, rows in tables.items() if any(row["split"] for row in rows)}
    if official and (others := [folder for folder in tables if folder not in official]):
        raise UserError(
            f"--data_dir: {min(official)} has a column 'split' and {others[0]} has none; give one to both, or remove it"
        )


def _row_of(metadata: Path, row: int) -> str:
    return f"{metadata}, row {row + _FIRST_ROW}"


def _utterance(row: dict, fold: int | None, folder: Path, name: str, prefix: str) -> dict:
    return (
        dict.fromkeys(FEATURES)
        | {task.column: row[task.column] for task in TASKS.values()}
        | {
            "id": prefix + row["file_name"],
            "path": str(folder / row["file_name"]),
            "corpus": name,
            "speaker": row["speaker"],
            "dialog": row["dialog"] and prefix + row["dialog"],
            "fold": fold,
            "split": row["split"],
        }
    )


def _read_rows(metadata: Path) -> list[dict[str, str | None]]:
    """The rows of `metadata.csv` with all of `COLUMNS`; None for an empty cell or a missing column."""
    try:
        separator = _separator(metadata)
        _check_cells(metadata, separator)
        table = pd.read_csv(metadata, sep=separator, dtype=str, keep_default_na=False, encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{metadata}: not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UserError(f"{metadata}: cannot be read ({error.strerror})") from error
    except (csv.Error, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{metadata}: not a table of comma-separated values: {reason}") from None
    if not isinstance(table.index, pd.RangeIndex):  # pandas makes an index of surplus cells
        named = {",": "commas", ";": "semicolons", "\t": "tabs"}[separator]
        raise UserError(f"{metadata}: rows have more cells than the header; put quotes around text with {named}")
    table = _named_columns(metadata, table.rename(columns=str.strip).rename(columns=SYNONYMS).fillna(""))
    if table.empty:
        raise UserError(f"{metadata}: holds no rows")
    return [
        dict.fromkeys(COLUMNS) | {column: unguarded(cell.strip()) or None for column, cell in record.items()}
        for record in table.to_dict("records")
    ]


def _separator(metadata: Path) -> str:
    """The separator of the header: that of `_SEPARATORS` which makes `file_name` a cell of its own."""
    with metadata.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
    for separator in _SEPARATORS:
        if "file_name" in (cell.strip() for cell in next(csv.reader([header], delimiter=separator), [])):
            return separator
    return _SEPARATORS[0]


def _check_cells(metadata: Path, separator: str) -> None:
    """Check what pandas passes over: quotes that swallow the rows up to the next one, and columns beyond number.

    Raises:
        UserError: names the lines of the row.
    """
    with metadata.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, strict=True)
        before = 0
        try:
            for cells in rows:
                if len(cells) > _MOST_COLUMNS:
                    raise UserError(
                        f"{metadata}: has {len(cells)} columns, more than {_MOST_COLUMNS}; keep those that are read: "
                        f"{', '.join(COLUMNS)}"
                    )
                before = rows.line_num
        except csv.Error as error:
            lines = f"line {before + 1}" if rows.line_num == before + 1 else f"lines {before + 1} to {rows.line_num}"
            raise UserError(
                f"{metadata}, {lines}: quotes do not match ({error}); close a quote where its cell ends, and write two "
                '("") for one inside'
            ) from None


def _named_columns(metadata: Path, table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `COLUMNS`. Any others are named in a notice.

    Columns without a name are allowed if they are empty, or the row numbers that pandas writes in front.

    Raises:
        UserError: another column without a name, a column that is misspelt or there twice, or no column `file_name`.
    """
    for place, column in enumerate(table.columns, start=1):
        if _NAMELESS.fullmatch(column):
            cells = table[column].str.strip()
            if not ((cells == "").all() or (place == 1 and cells.is_unique and cells.str.isdecimal().all())):
                raise UserError(f"{metadata}: column {place} has no name; name it in the first row, or remove it")
    table = table[[column for column in table.columns if not _NAMELESS.fullmatch(column)]]
    twice = [column for column in COLUMNS if f"{column}.1" in table.columns or list(table.columns).count(column) > 1]
    if twice:
        names = [name for name, column in SYNONYMS.items() if column == twice[0]]
        also = f" ({names[0]} is another name for it)" if names else ""
        raise UserError(f"{metadata}: column {twice[0]!r} appears twice{also}; remove one")
    table = table[known_columns(str(metadata), list(table.columns), (*COLUMNS, *SYNONYMS))]
    if "file_name" not in table.columns:
        raise UserError(f"{metadata}: no column 'file_name'")
    return table


def _check_files(metadata: Path, rows: list[dict]) -> None:
    """Check the file names, and bring each into its shortest form: it is the id of the utterance."""
    row_of_file: dict[str, int] = {}
    missing = []
    folder = str(metadata.parent)  # a Path for each file would take seconds of a large corpus
    for number, row in enumerate(rows, _FIRST_ROW):
        name = row["file_name"]
        if name is None:
            raise UserError(f"{metadata}, row {number}: column 'file_name' is empty")
        there = isfile(join(folder, name))
        file = normpath(name if there else name.replace("\\", "/"))  # from Windows, unless it is part of the name
        if isabs(file) or file.split("/")[0] == ".." or ntpath.splitdrive(name)[0]:  # ids are published
            raise UserError(
                f"{metadata}, row {number}: file_name {name!r} is outside the folder; use paths relative to the "
                "folder, and move or link the files into it"
            )
        if file in row_of_file:
            raise UserError(f"{metadata}, row {number}: file_name {name!r} is already in row {row_of_file[file]}")
        row_of_file[file] = number
        row["file_name"] = file
        if not there and not isfile(join(folder, file)):
            missing.append((number, name))
    if missing:
        number, name = missing[0]
        raise UserError(f"{metadata}, row {number}: no audio file {name} ({len(missing)} missing in all)")
