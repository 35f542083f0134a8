"""The pictures of the report. All can be read in grey."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from ser_mtl.evaluation.figures import save_figure
from ser_mtl.tables.statistics import Interval

# Colours of Okabe and Ito, and a marker that tells them apart in grey.
_TASKS = {
    "emotion": ("$x_e$, emotion", "#D55E00", "o"),
    "gender": ("$x_g$, gender", "#0072B2", "s"),
    "style": ("$x_s$, style", "#009E73", "^"),
}


def plot_ua(
    intervals: dict[str, Interval], path: Path, paper: dict[str, float], references: dict[str, float] | None = None
) -> Figure:
    """Draw the UA of each row with its 95 % interval as a PNG.

    Args:
        intervals: by row, from top to bottom, fractions.
        path: of the picture.
        paper: the paper's UA of the rows that it has, percent; empty where it is of another corpus.
        references: UA by name, fractions, drawn as vertical lines.
    """
    figure = Figure(figsize=(8, 1.6 + 0.32 * len(intervals)), layout="constrained")
    axes = figure.add_subplot()
    places = np.arange(len(intervals))
    ours, low, high = (100 * np.array(values) for values in zip(*intervals.values(), strict=True))
    axes.errorbar(ours, places, xerr=[ours - low, high - ours], fmt="o", color="black", capsize=4, label="these runs")
    if paper:
        figures = [paper.get(name, np.nan) for name in intervals]
        axes.plot(figures, places, "D", markerfacecolor="white", color="#D55E00", label="the paper")
    for (name, value), dashes in zip((references or {}).items(), ((6, 3), (2, 2)), strict=False):
        axes.axvline(100 * value, color="0.4", dashes=dashes, linewidth=1.2, label=name)
    axes.set_yticks(places, list(intervals))
    axes.invert_yaxis()
    axes.set_xlabel("Emotion UA (%), all folds together, 95 % interval over speakers")
    axes.grid(axis="x", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    save_figure(figure, path)
    return figure


def plot_embeddings(points: dict[str, list[dict[str, list[float]]]], path: Path) -> Figure:
    """Draw the points of `predictions.jsonl`, a panel for each of several runs, as a PNG.

    Args:
        points: by title of the panel, for each utterance its point by task.
        path: of the picture.
    """
    figure = Figure(figsize=(4.2 * len(points), 4.8), layout="constrained")
    furthest = 1.05 * max(
        abs(x) for of_run in points.values() for of_one in of_run for xy in of_one.values() for x in xy
    )
    for axes, (title, of_run) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        for task, (label, color, marker) in _TASKS.items():
            if task in of_run[0]:
                x, y = np.array([of_one[task] for of_one in of_run]).T
                axes.plot(x, y, marker, color=color, markersize=4.5, alpha=0.6, markeredgewidth=0, label=label)
        axes.set(title=title, xlabel="First main component (no unit)", aspect="equal")
        axes.set(xlim=(-furthest, furthest), ylim=(-furthest, furthest))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("Second main component (no unit)")
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, markerscale=1.6)
    save_figure(figure, path)
    return figure
