"""Metrics as text: percent, one decimal."""

from typing import NamedTuple

import numpy as np

from ser_mtl.tables.statistics import Spread


class Table(NamedTuple):
    """A table of text: a header, and rows with as many cells."""

    header: list[str]
    rows: list[list[str]]


def percent(value: float) -> str:
    """A fraction as percent; "-" for NaN."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def with_spread(spread: Spread) -> str:
    """A mean, and its standard deviation over folds if there is one."""
    return percent(spread.mean) + ("" if np.isnan(spread.over_folds) else f" ± {percent(spread.over_folds)}")


def p_value(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
