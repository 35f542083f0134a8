"""A folder of recordings with `metadata.csv`, or several joined, to utterances. No audio is read here."""

from collections.abc import Sequence
from os.path import isabs, normpath
from pathlib import Path

import pandas as pd
from datasets import Dataset

from ser_mtl.corpora.folds import FOLDS, deal_speakers
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError

METADATA = "metadata.csv"

COLUMNS = ("file_name", "emotion", "text", "gender", "style", "speaker", "dialog", "fold")
"""What `metadata.csv` may hold. Only `file_name` is required; an empty cell means "not annotated"."""

_FIRST_ROW = 2  # as a spreadsheet counts: row 1 is the header


def read_folder(data_dirs: Sequence[Path | str]) -> Dataset:
    """Read one folder corpus, or several joined, one row an utterance, sorted by id.

    Without a column `fold` the speakers of each folder are dealt into five folds. Where several folders are
    joined, ids, speakers and dialogs carry the folder's name in front, so that they stay unique.

    Raises:
        UserError: names the file, and the row or column, that cannot be used.
    """
    folders = [Path(folder) for folder in data_dirs]
    names = [folder.resolve().name for folder in folders]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--data_dir: two folders are called {name!r}; rename one, or name each once")
    utterances = []
    for folder, name in zip(folders, names, strict=True):
        prefix = f"{name}/" if len(folders) > 1 else ""
        utterances += _read_one(folder, name, prefix)
    return Dataset.from_list(sorted(utterances, key=lambda row: row["id"]), features=FEATURES)


def _read_one(folder: Path, name: str, prefix: str) -> list[dict]:
    metadata = folder / METADATA
    if not folder.is_dir():
        raise UserError(f"--data_dir: no such folder: {folder}")
    if not metadata.is_file():
        raise UserError(f"--data_dir: no {METADATA} in {folder}; it needs at least the column 'file_name'")
    rows = _read_rows(metadata)
    _check_files(metadata, rows)
    return [
        dict.fromkeys(FEATURES)
        | {task: row[task] for task in ("emotion", "gender", "style", "text")}
        | {key: prefix + row[key] for key in ("speaker", "dialog") if row[key]}
        | {
            "id": prefix + row["file_name"],
            "path": str(folder / row["file_name"]),
            "corpus": name,
            "fold": fold,
        }
        for row, fold in zip(rows, _folds(metadata, rows), strict=True)
    ]


def _read_rows(metadata: Path) -> list[dict[str, str | None]]:
    """Rows of `metadata.csv` with every known column; None where a cell is empty or a column missing."""
    try:
        table = pd.read_csv(metadata, dtype=str, keep_default_na=False, encoding="utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{metadata}: not UTF-8; save it as UTF-8") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{metadata}: not a table of comma-separated values: {reason}") from None
    unknown = [str(column) for column in table.columns if column not in COLUMNS]
    if unknown:
        raise UserError(f"{metadata}: unknown column {unknown[0]!r}; known columns: {', '.join(COLUMNS)}")
    if "file_name" not in table.columns:
        raise UserError(f"{metadata}: no column 'file_name'")
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes cells in excess for an index
        raise UserError(f"{metadata}: rows have more cells than the header; put text with commas into quotes")
    if table.empty:
        raise UserError(f"{metadata}: holds no rows")
    records = table.fillna("").to_dict("records")
    return [
        dict.fromkeys(COLUMNS) | {column: cell.strip() or None for column, cell in record.items()} for record in records
    ]


def _check_files(metadata: Path, rows: list[dict]) -> None:
    seen: dict[str, int] = {}
    missing = []
    for number, row in enumerate(rows, _FIRST_ROW):
        name = row["file_name"]
        if name is None:
            raise UserError(f"{metadata}, row {number}: column 'file_name' is empty")
        file = normpath(name)  # "./a.wav" is "a.wav"
        if isabs(file) or file.split("/")[0] == "..":  # it names the utterance, and is published
            raise UserError(
                f"{metadata}, row {number}: file_name {name!r} is outside the folder; name files relative to the "
                "folder, and move or link them into it"
            )
        if file in seen:
            raise UserError(f"{metadata}, row {number}: file_name {name!r} is already in row {seen[file]}")
        seen[file] = number
        if not (metadata.parent / name).is_file():
            missing.append((number, name))
    if missing:
        number, name = missing[0]
        raise UserError(f"{metadata}, row {number}: no audio file {name} ({len(missing)} missing in all)")


def _folds(metadata: Path, rows: list[dict]) -> list[int]:
    """The fold of every row: the column's, or dealt by speaker."""
    if any(row["fold"] for row in rows):
        for number, row in enumerate(rows, _FIRST_ROW):
            if row["fold"] is None:
                raise UserError(f"{metadata}, row {number}: no 'fold', but other rows have one; fill in all")
            if row["fold"] not in map(str, FOLDS):
                raise UserError(f"{metadata}, row {number}: fold {row['fold']!r} is none of 1, 2, 3, 4, 5")
        return [int(row["fold"]) for row in rows]
    for number, row in enumerate(rows, _FIRST_ROW):
        if row["speaker"] is None:
            raise UserError(
                f"{metadata}, row {number}: neither 'fold' nor 'speaker'; every row needs one of them, "
                "for speakers of the test must not be in training"
            )
    dealt = deal_speakers([row["speaker"] for row in rows], [row["gender"] for row in rows])
    return [dealt[row["speaker"]] for row in rows]
