"""The figures of the report; see `ser_mtl.evaluation.drawing` for what they have in common."""

from itertools import cycle
from pathlib import Path
from textwrap import fill, shorten
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ser_mtl.evaluation.drawing import LEGEND, WIDTH, blank_figure, line_style, literal, save_figure, tidy
from ser_mtl.evaluation.intervals import Interval, ends
from ser_mtl.tasks import TASKS

_MOST_CHARACTERS = 68  # of a row's title and id, on one line
_MOST_POINTS = 150  # utterances in a panel of embeddings

_ABOVE: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "xytext": (0, 6),
    "textcoords": "offset points",
    "va": "bottom",
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # hides the lines behind the text
}
"""Style of the text above a row."""


def plot_ua(
    intervals: dict[str, Interval],
    path: Path,
    titles: dict[str, str],
    paper: dict[str, float],
    references: dict[str, float] | None = None,
) -> Figure:
    """Draw the UA of each row with its 95 % interval.

    The rows set the scale. A reference within it is a vertical line; one outside is named at the edge.

    Args:
        intervals: UA by row id, from top to bottom, fractions.
        path: where the figure is written (PNG).
        titles: by row id.
        paper: the paper's UA by row id, percent; empty for another corpus than the paper's.
        references: UA of baselines by name, fractions.
    """
    figure = blank_figure(1.6 + 0.44 * len(intervals))
    axes = figure.add_subplot()
    places = np.arange(len(intervals))
    ours, low, high = (100 * np.array(values) for values in zip(*intervals.values(), strict=True))
    axes.errorbar(ours, places, xerr=[ours - low, high - ours], fmt="o", color="black", capsize=4, label="these runs")
    if paper:
        papers = [paper.get(name, np.nan) for name in intervals]
        axes.plot(papers, places, "D", markerfacecolor="white", color="#D55E00", label="the paper")
    for place, name in zip(places, intervals, strict=True):
        title = shorten(titles[name], _MOST_CHARACTERS - len(name), placeholder=" ...")
        axes.annotate(title, (0.01, place), **_ABOVE, fontsize=9)
        axes.annotate(name, (1, place), **_ABOVE, fontsize=8, color="0.35", ha="right")
    axes.set(xlim=axes.get_xlim(), ylim=(len(intervals) - 0.5, -0.9), yticks=[])
    _draw_references(axes, {name: 100 * value for name, value in (references or {}).items()})
    axes.xaxis.set_major_locator(MaxNLocator(nbins=7, steps=(1, 2, 5, 10)))
    axes.set_xlabel("Emotion UA (%), all folds together,\nwith 95 % intervals over speakers")
    tidy(axes, grid="x")
    axes.spines["left"].set_visible(False)
    figure.legend(ncols=2, loc="outside lower center", **LEGEND)
    save_figure(figure, path)
    return figure


def _draw_references(axes: Axes, references: dict[str, float]) -> None:
    """A vertical line for each reference on the scale, a line of text for each that is off it."""
    low, high = axes.get_xlim()
    below, above = [], []
    for (name, value), dashes in zip(references.items(), cycle(((6, 3), (2, 2))), strict=False):
        if low <= value <= high:
            axes.axvline(value, color="0.4", dashes=dashes, linewidth=1.2, label=name)
        elif value < low:
            below.append(f"◀ {name}: {value:.1f}")
        else:
            above.append(f"{name}: {value:.1f} ▶")
    axes.set_title("\n".join(below), loc="left", fontsize=9, color="0.3")
    axes.set_title("\n".join(above), loc="right", fontsize=9, color="0.3")


def plot_embeddings(points: dict[str, list[dict[str, list[float]]]], path: Path) -> Figure:
    """Draw the points of `predictions.jsonl`, one panel for each run, each on a scale of its own.

    At most 150 utterances are drawn in a panel. Markers are hollow and grow from task to task, so that points in the
    same place are visible inside one another.

    Args:
        points: by title of the panel, for each utterance its point by task.
        path: where the figure is written (PNG).
    """
    figure = blank_figure(0.6 + 3.7 * len(points))
    panels = figure.subplots(len(points), squeeze=False)[:, 0]
    for axes, (title, utterances) in zip(panels, points.items(), strict=True):
        drawn = np.random.default_rng(0).permutation(len(utterances))[:_MOST_POINTS]
        for index, task in enumerate(TASKS):
            if task in utterances[0]:
                x, y = np.array([utterances[i][task] for i in np.sort(drawn)]).T
                style = line_style(index) | {"linestyle": "", "markersize": 3.5 + 2.5 * index, "markeredgewidth": 0.8}
                label = f"$x_{task[0]}$, {TASKS[task].title}"
                axes.plot(x, y, **style, markerfacecolor="none", alpha=0.8, label=label)
        axes.set(xlabel="First component (no unit)", ylabel="Second component (no unit)")
        axes.set_aspect("equal", adjustable="datalim")
        axes.set_title(title, fontsize="medium")
        axes.locator_params(nbins=6)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0].get_legend_handles_labels(), ncols=3, loc="outside lower center", **LEGEND)
    save_figure(figure, path)
    return figure


def plot_cross(
    intervals: dict[tuple[str, str], Interval], rows: list[str], columns: list[str], metric: str, path: Path
) -> Figure:
    """Draw a metric of each train corpus on each test corpus, with its 95 % interval.

    Args:
        intervals: the metric by train and test corpus, fractions.
        rows: the train corpora, from top to bottom.
        columns: the test corpora.
        metric: its title.
        path: where the figure is written (PNG).
    """
    figure = blank_figure(1.3 + 0.75 * len(rows), max(WIDTH, 1.6 + 1.15 * len(columns)))
    axes = figure.add_subplot()
    grid = [[100 * intervals[row, column].value if (row, column) in intervals else np.nan for column in columns]
            for row in rows]  # fmt: skip
    axes.imshow(grid, cmap="Blues", vmin=0, vmax=180, aspect="auto")  # as a confusion matrix: black text is legible
    for (row, column), value in np.ndenumerate(grid):
        found = intervals.get((rows[row], columns[column]))
        text = f"{value:.1f}\n{ends(found).strip()}" if found else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=9)
    axes.set_xticks(range(len(columns)), map(literal, columns))
    axes.set_yticks(range(len(rows)), [fill(literal(row), 24) for row in rows])
    axes.set(xlabel="Tested on", ylabel="Trained on")
    axes.tick_params(length=0)
    figure.suptitle(f"{metric} (%)", fontsize="medium")
    save_figure(figure, path)
    return figure
