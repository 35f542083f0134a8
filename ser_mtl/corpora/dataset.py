"""From a `datasets.Dataset` of the user's to utterances. No audio is decoded."""

from pathlib import Path

import pyarrow as pa
from datasets import ClassLabel, Dataset

from ser_mtl.corpora.dealing import assign_folds
from ser_mtl.corpora.names import check_people, clean, known_columns, one_name_each
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.corpora.values import SYNONYMS, VALUES, as_number
from ser_mtl.errors import UserError


def read_dataset(dataset: Dataset, data_dir: str | Path | None = None) -> Dataset:
    """Complete a dataset that has some of the columns of a corpus; missing ones are "not annotated".

    Args:
        dataset: with `path`, or `file_name` below `data_dir`; with `fold` (1..5) or `speaker`, from which the folds are
            dealt; and with any other column of `ser_mtl.corpora.utterances.FEATURES`. Without `id`, the file name or
            path identifies an utterance. Labels may be strings or a `ClassLabel`.
        data_dir: the folder that `file_name` is relative to. [the current folder]

    Returns:
        A dataset with all columns of `FEATURES`, sorted by id.

    Raises:
        UserError: names the column, and the row, counted from 0, that is wrong.
    """
    dataset = _renamed(dataset)
    _check_columns(dataset)
    columns = {name: _values(dataset, name) for name in (*FEATURES, "file_name")}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    clean(rows, "dataset")
    one_name_each(rows)
    check_people(rows, "dataset")
    for index, (row, fold) in enumerate(zip(rows, assign_folds(rows, _place), strict=True)):
        file_name = row.pop("file_name")
        row["fold"] = fold
        row["id"] = row["id"] or file_name or row["path"]
        if row["path"] is None and file_name is not None:
            row["path"] = str(Path(data_dir or ".") / file_name)
        if row["path"] is None:
            raise UserError(f"{_place(index)}: neither 'path' nor 'file_name'; every row needs one of them")
    _check_rows(rows)
    return Dataset.from_list(sorted(rows, key=lambda row: row["id"]), features=FEATURES)


def _place(row: int) -> str:
    return f"dataset, row {row}"


def _renamed(dataset: Dataset) -> Dataset:
    for other, name in SYNONYMS.items():
        if other in dataset.column_names:
            if name in dataset.column_names:
                raise UserError(f"dataset: columns {name!r} and {other!r} mean the same; remove one of them")
            dataset = dataset.rename_column(other, name)
    return dataset


def _check_columns(dataset: Dataset) -> None:
    known_columns("dataset", dataset.column_names, ["path", "file_name", *FEATURES, *SYNONYMS])
    if not {"path", "file_name"} & set(dataset.column_names):
        raise UserError("dataset: no column 'path' or 'file_name'; add the path of each audio file")
    if len(dataset) == 0:
        raise UserError("dataset: holds no rows")


def _values(dataset: Dataset, name: str) -> list:
    """One column, in its type in `FEATURES`; None for a missing column or a blank string."""
    if name not in dataset.column_names:
        return [None] * len(dataset)
    feature = dataset.features[name]
    values = dataset.with_format(None)[name][:]
    if isinstance(feature, ClassLabel):
        values = [None if value is None or value < 0 else feature.int2str(value) for value in values]
    kind = FEATURES.arrow_schema.field(name if name in FEATURES else "path").type
    try:
        # Only a cast refuses 1.5 for an integer, and only `type` refuses 1 for a string.
        array = pa.array(values).cast(kind) if pa.types.is_integer(kind) else pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"dataset: column {name!r} holds values that are not {kind} ({reason}); cast it") from error
    if name in VALUES:  # many tables hold NaN for an empty cell
        return [None if value is None else as_number(value) for value in array.to_pylist()]
    return [value.strip() or None if isinstance(value, str) else value for value in array.to_pylist()]


def _check_rows(rows: list[dict]) -> None:
    rows_by_id: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row["id"] in rows_by_id:
            raise UserError(f"{_place(index)}: id {row['id']!r} is already in row {rows_by_id[row['id']]}")
        rows_by_id[row["id"]] = index
    missing = [(index, row["path"]) for index, row in enumerate(rows) if not Path(row["path"]).is_file()]
    if missing:
        index, path = missing[0]
        raise UserError(f"{_place(index)}: no audio file {path} ({len(missing)} missing in all)")
