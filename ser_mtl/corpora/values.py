"""Valence, activation and dominance: the names of their columns, and their cells as numbers."""

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from ser_mtl.corpora.names import cleaned
from ser_mtl.errors import UserError, notice
from ser_mtl.tasks import TASKS, VALUE_TASKS

SYNONYMS = {"arousal": "activation"}
"""Other names of columns."""

VALUES = tuple(TASKS[task].column for task in VALUE_TASKS)
"""Columns that hold numbers."""

LARGEST = 1e6
"""No rating scale has larger numbers, and the squares of much larger ones overflow single precision."""


def as_number(cell: object) -> float | None:
    """A number of at most `LARGEST`, None for anything else. A comma may be the decimal sign."""
    text = str(cell).strip()
    try:
        value = float(f"{text.replace(',', '.')}" if re.fullmatch(r"[+-]?\d+,\d+", text) else text)
    except ValueError:
        return None
    return value if abs(value) <= LARGEST else None


def read_values(rows: Sequence[dict], place: str, first_row: int) -> None:
    """Turn text into numbers in place, None for an empty cell, and say once which words were read as empty.

    A column of words, such as "positive", is left out, with a notice.

    Args:
        rows: with the columns of `VALUES`.
        place: names the table in messages.
        first_row: the number of the first row in messages.

    Raises:
        UserError: names the row whose cell is not a number.
    """
    for column in VALUES:
        emptied: Counter[str] = Counter()
        wrong: list[tuple[int, str]] = []
        for index, row in enumerate(rows, first_row):
            cell = row[column]
            row[column] = as_number(cell)
            if cell is not None and row[column] is None:
                if cleaned(cell) is None:
                    emptied[cell] += 1
                else:
                    wrong.append((index, cell))
        for word, count in sorted(emptied.items()):
            notice(f"{place}: column {column!r}: {word!r}, in {count} rows, is read as an empty cell")
        if wrong and all(row[column] is None for row in rows):
            notice(f"{place}: column {column!r} is not read: it holds no numbers, but words such as {wrong[0][1]!r}")
        elif wrong:
            index, cell = wrong[0]
            raise UserError(
                f"{place}, row {index}: column {column!r} holds {cell!r}, which is not a number up to {LARGEST:g} "
                f"({len(wrong)} rows in all); write a number, or leave the cell empty"
            )


def shortest(value: float) -> str:
    """The shortest text that reads as the same value in single precision."""
    return str(np.float32(value))
