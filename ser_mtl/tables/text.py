"""Metrics as text: percent, one decimal."""

from typing import NamedTuple

import numpy as np

from ser_mtl.tables.statistics import Interval, Spread


class Table(NamedTuple):
    """A table of text: a header, and rows with as many cells."""

    header: list[str]
    rows: list[list[str]]


def percent(value: float) -> str:
    """A fraction as percent; "-" for NaN."""
    return "-" if np.isnan(value) else f"{100 * value:.1f}"


def with_spread(found: Spread) -> str:
    """A mean, and its standard deviation over folds if there is one."""
    return percent(found.mean) + ("" if np.isnan(found.over_folds) else f" ± {percent(found.over_folds)}")


def ends(of: Interval, form: str = ".1f") -> str:
    """The ends of an interval in brackets, with a space before; nothing if it has none."""
    return "" if np.isnan(of.low) else f" ({100 * of.low:{form}} to {100 * of.high:{form}})"


def with_ends(of: Interval, form: str = ".1f") -> str:
    """A metric with the ends of its interval."""
    return f"{100 * of.value:{form}}{ends(of, form)}"


def p_value(value: float) -> str:
    """A p-value."""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
