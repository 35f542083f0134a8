"""The figures of a run: confusion matrix, training curves, reliability diagram, gradient cosines.

They are narrow, with panels one above the other, so that the text is readable where a page shrinks them to 400 pixels.
Every line has a marker and a line style of its own: the figures can be read in grey.
"""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from numpy.typing import ArrayLike
from PIL import Image
from pydantic import AfterValidator
from scipy.stats import binomtest

from ser_mtl.evaluation.calibration import BINS, Reliability, reliability, tempered
from ser_mtl.evaluation.results import UNTRAINED_WER
from ser_mtl.files import replacing
from ser_mtl.metrics import METRICS
from ser_mtl.safe_text import printable
from ser_mtl.tasks import TASKS

Lines = dict[str, tuple[np.ndarray, np.ndarray]]
"""Positions along the x axis and the values there, by the name of the line."""


def _logged(entry: dict) -> dict:
    """Check an entry of the log: an epoch, and losses and metrics that are numbers."""
    epoch = entry.get("epoch")
    if not isinstance(epoch, int | float) or not 0 <= epoch <= 1e6:
        raise ValueError("must have an epoch")
    for name, value in entry.items():
        if name.startswith(("loss", "eval_", "test_")) and not isinstance(value, int | float | None):
            raise ValueError(f"must have a number as {name}")
    return entry


History = list[Annotated[dict, AfterValidator(_logged)]]
"""The content of `history.json`, the log of the Trainer."""

WIDTH = 4.8
"""Width of a figure in inches; only a confusion matrix of many classes is wider."""

LEGEND = {"frameon": False, "handlelength": 2.6, "fontsize": 9, "columnspacing": 1.2}
"""Arguments of every legend."""

# Colours of Okabe and Ito. The lengths of the three have no common factor, so 280 lines can be told apart.
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#7F7F7F", "#E69F00", "#56B4E9")
_MARKERS = "os^Dxv*P"
_DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))
_WEIGHTED_SUM = {"color": "black", "linestyle": "-", "linewidth": 2.2}
_DOTTED = {"color": "0.4", "linestyle": (0, (1, 1)), "linewidth": 1}
_LOSS_TITLES = {"scl": "SCL"}  # losses that are not a task's; others are shown under their own names
_LONGEST_LABEL = 40  # characters; a longer one would leave no space for the matrix
_MOST_BINS, _FEWEST_IN_A_BIN, _NARROWEST_BIN = 10, 25, 0.05


@dataclass(frozen=True)
class _Curve:
    label: str
    style: dict
    epochs: list[float]
    values: list[float]


def line_style(index: int) -> dict:
    """Colour, marker and line style of the index-th line of a figure, as arguments of `Axes.plot`."""
    return {
        "color": _COLORS[index % len(_COLORS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "markersize": 5,
    }


def blank_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure of this size in inches, with a margin around what is drawn."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG with a palette of 256 colours, which is a third of the size.

    The same figure gives the same bytes.
    """
    figure.draw_without_rendering()  # the layout of one draw may still change the ticks, and so the space they need
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    with replacing(path) as partial:
        Image.open(drawn).convert("RGB").quantize().save(partial, optimize=True)


def tidy(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Leave out the frame's top and right, and draw light lines across one axis."""
    axes.grid(axis=grid, color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """Text of others as matplotlib shows it as it is: a $ would begin a formula."""
    return printable(text).replace("$", r"\$")


# --------------------------------------------------------------------------------------------------- confusion matrix


def plot_confusion_matrix(matrix: ArrayLike, labels: list[str], path: str | Path, title: str) -> Figure:
    """Draw the counts and row percentages of a confusion matrix.

    Args:
        matrix: (classes, classes) counts; rows are annotated classes, columns predicted ones.
        labels: the classes, in the order of the rows.
        path: where the figure is written (PNG).
        title: printed above the matrix.
    """
    labels = [literal(label if len(label) <= _LONGEST_LABEL else f"{label[:_LONGEST_LABEL]}…") for label in labels]
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * counts / np.maximum(totals, 1)
    cell = max(0.5, 3.4 / len(labels))
    side = cell * len(labels)
    figure = blank_figure(side + 1.1, side + WIDTH - 3.4)
    axes = figure.add_subplot()
    # Half of the colour map is unused, so that black text is legible on every cell.
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=180)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{percent[row, column]:.0f} %\n({count})" if totals[row, 0] else "–"
        axes.text(column, row, text, ha="center", va="center", fontsize=10 if cell > 0.6 else 9)
    rows = [f"{label}\n(n = {total})" for label, total in zip(labels, totals[:, 0], strict=True)]
    wide = 0.09 * max(map(len, labels)) > cell
    slanted: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if wide else {}
    axes.set_xticks(range(len(labels)), labels, **slanted)
    axes.set_yticks(range(len(labels)), rows)
    axes.set(xlabel="Predicted", ylabel="Annotated (each row: 100 %)")
    axes.tick_params(length=0)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)
    return figure


# ---------------------------------------------------------------------------------------------------- training curves


def plot_training_curves(
    log_history: list[dict],
    path: str | Path,
    chosen_epoch: float | None = None,
    evaluated_on: str = "Development set",
    title: str = "",
    line: float | None = None,
) -> Figure:
    """Draw the training losses and, where epochs were evaluated, each task's main metric over the epochs.

    The losses of the tasks share a panel. The other terms, such as SCL, have another scale and get a panel of their
    own; the weighted sum is in the panel of the terms that dominate it.

    Args:
        log_history: `trainer.state.log_history`: entries with `epoch` and `loss`, `loss_<name>` or `eval_<metric>`.
        path: where the figure is written (PNG).
        chosen_epoch: the epoch whose checkpoint was kept; it is marked in every panel.
        evaluated_on: title of the panel with the metrics; under `--selection oracle` these are of the test fold.
        title: printed above all panels.
        line: UA of the frozen encoder on the same utterances as the metrics, a fraction.
    """
    tasks, terms = _loss_curves(log_history)
    metrics = _metric_curves(log_history)
    panels = [
        (tasks, "Training: losses of the tasks", "Loss (nats)"),
        (terms, "Training: other terms", "Loss (no unit)"),
        (metrics, evaluated_on, "Metric (%)"),
    ]
    panels = [panel for panel in panels if panel[0]] or panels[:1]
    figure = blank_figure(3.1 * len(panels) + (0.3 if title else 0))
    for axes, (curves, heading, unit) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        for curve in curves:
            every = max(1, len(curve.epochs) // 8)
            axes.plot(curve.epochs, curve.values, label=curve.label, markevery=every, **curve.style)
        axes.set(xlabel="Epoch", ylabel=unit)
        axes.set_title(heading, fontsize="medium")
        if curves is metrics and line is not None:
            axes.axhline(100 * line, label="frozen encoder, UA", color="0.4", linestyle=(0, (4, 2)), linewidth=1)
        if curves is metrics:
            lowest = min((value for curve in curves for value in curve.values), default=0)
            axes.set_ylim(min(0, lowest), max(103, axes.get_ylim()[1]))
        elif all(value > 0 for curve in curves for value in curve.values):
            _scale_to_logarithm(axes)
        if chosen_epoch is not None:
            axes.axvline(chosen_epoch, label=f"kept: epoch {chosen_epoch:g}", **_DOTTED)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
        tidy(axes)
        wide = max((len(curve.label) for curve in curves), default=0) > 15
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=2 if wide else 3, **LEGEND)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)
    return figure


def _loss_curves(log_history: list[dict]) -> tuple[list[_Curve], list[_Curve]]:
    """Curves of the tasks' losses and of all other terms; the weighted sum comes first where it belongs."""
    logged = {key.removeprefix("loss_") for entry in log_history for key in entry if key.startswith("loss_")}
    others = sorted(logged - set(TASKS))
    curves = {}
    for index, name in enumerate((*TASKS, *others)):
        if name in logged:
            curves[name] = _curve(log_history, f"loss_{name}", loss_title(name), line_style(index))
    tasks, terms = (
        [curve for name, curve in curves.items() if (name in TASKS) == of_task] for of_task in (True, False)
    )
    if any("loss" in entry for entry in log_history):
        (terms or tasks).insert(0, _curve(log_history, "loss", "weighted sum", _WEIGHTED_SUM))
    return tasks, terms


def _metric_curves(log_history: list[dict]) -> list[_Curve]:
    """Curves of the first metric of each task that was logged: UA, CCC, and WER if it ever fell."""
    curves = []
    for index, task in enumerate(TASKS):
        metrics = [metric for metric in METRICS if metric.group == task]
        logged = [metric for metric in metrics if any(f"eval_{metric.name}" in entry for entry in log_history)]
        for metric in logged[:1]:
            style = line_style(index)
            curve = _curve(log_history, f"eval_{metric.name}", metric.title, style, factor=100)
            if metric.key != "wer" or min(curve.values) < 100 * UNTRAINED_WER:
                curves.append(curve)
    return curves


def _curve(log_history: list[dict], key: str, label: str, style: dict, factor: float = 1) -> _Curve:
    points = [(entry["epoch"], factor * entry[key]) for entry in log_history if entry.get(key) is not None]
    if not points:
        return _Curve(label, style, [], [])
    epochs, values = map(list, zip(*points, strict=True))
    return _Curve(label, style, epochs, values)


def loss_title(name: str) -> str:
    """Title of a loss in figures: the task's, or its own name where the figure does not know it."""
    of_value = name in TASKS and TASKS[name].kind == "value"
    return f"{TASKS[name].title if name in TASKS else _LOSS_TITLES.get(name, name)}{', 1 - CCC' if of_value else ''}"


def _scale_to_logarithm(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high / low < 30 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


# ------------------------------------------------------------------------------------------------ reliability diagram


def plot_reliability(
    probabilities: np.ndarray, targets: np.ndarray, path: str | Path, title: str, temperature: float | None = None
) -> Figure:
    """Draw accuracy over confidence, with 95 % intervals, and how many utterances have each confidence.

    The expected calibration error (ECE) in the legend is that of `results.json`, from `BINS` bins of equal width.

    Args:
        probabilities: (utterances, classes), of the plain logits.
        targets: (utterances,), indices of the annotated classes.
        path: where the figure is written (PNG).
        title: printed above the diagram.
        temperature: fitted on the development set; adds a second line.
    """
    curves = {"uncalibrated": probabilities}
    if temperature is not None:
        curves[f"temperature {temperature:.2f}"] = tempered(probabilities, temperature)
    figure = blank_figure(5.8)
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 100], [0, 100], label="perfectly calibrated", **_DOTTED)
    for index, (name, values) in enumerate(curves.items()):
        style = line_style(index)
        bins = figure_bins(values.max(axis=1), values.argmax(axis=1) == targets)
        accuracy, (low, high) = 100 * bins.accuracy, 100 * np.array(wilson_intervals(bins)).T
        measured = reliability(values, targets)
        axes.errorbar(
            100 * bins.confidence, accuracy, yerr=(accuracy - low, high - accuracy), capsize=3, elinewidth=1,
            label=f"{name}: ECE {100 * measured.error:.1f} %", **style,
        )  # fmt: skip
        edges = np.linspace(0, 100, BINS + 1)
        counts.stairs(measured.count, edges, color=style["color"], linestyle=style["linestyle"], linewidth=1.5)
    # No class can win with a lower probability than this.
    axes.set(ylabel="Accuracy (%)", xlim=(100 / probabilities.shape[1], 101), ylim=(0, 103))
    counts.set(xlabel="Probability of the predicted emotion (%)", ylabel="Utterances")
    for panel in (axes, counts):
        tidy(panel)
    figure.legend(loc="outside lower center", ncols=1, **LEGEND)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)
    return figure


def figure_bins(confidence: np.ndarray, right: np.ndarray) -> Reliability:
    """Sort utterances by confidence into bins of a tenth of them, at least 25, that span at least 5 points.

    The last bin takes the rest, so it is larger, and narrower where confidences crowd near 1. Utterances of equal
    confidence share a bin. Fewer than 50 utterances are one bin.

    Args:
        confidence: (utterances,), probability of the predicted class.
        right: (utterances,), whether the prediction is right.
    """
    n = len(confidence)
    smallest = max(_FEWEST_IN_A_BIN, n // _MOST_BINS)
    order = np.argsort(confidence, kind="stable")
    starts = [0]
    confidence, right = confidence[order], right[order].astype(float)
    for end in np.flatnonzero(np.diff(confidence)) + 1:
        wide = confidence[end] - confidence[starts[-1]] >= _NARROWEST_BIN
        if wide and min(end - starts[-1], n - end) >= smallest:
            starts.append(int(end))
    count = np.diff([*starts, n])
    mean_confidence, accuracy = (np.add.reduceat(values, starts) / count for values in (confidence, right))
    return Reliability(count, mean_confidence, accuracy)


def wilson_intervals(bins: Reliability) -> list[tuple[float, float]]:
    """Wilson's 95 % interval of the accuracy of each bin, as fractions."""
    right = np.rint(bins.accuracy * bins.count).astype(int)
    tests = [binomtest(k, n) for k, n in zip(right.tolist(), bins.count.tolist(), strict=True)]
    return [tuple(test.proportion_ci(0.95, method="wilson")) for test in tests]


# --------------------------------------------------------------------------------------------------- gradient cosines


def plot_gradient_cosines(cosines: dict[str, tuple[Lines, Lines]], path: str | Path) -> Figure:
    """Draw the cosine between the gradients of every two losses, and of each with itself, two panels for each run.

    Args:
        cosines: by title, the two results of `mean_cosines`: over the epochs, on the left, and over the layers.
        path: where the figure is written (PNG).
    """
    pairs = list(dict.fromkeys(frozenset(pair.split()) for panels in cosines.values() for pair in panels[0]))
    styles = {pair: line_style(index) for index, pair in enumerate(pairs)}
    figure = blank_figure(0.4 + 0.11 * len(pairs) + 2.5 * len(cosines))
    panels = figure.subplots(len(cosines), 2, sharey=True, squeeze=False)
    for (left, right), (title, (by_epoch, by_layer)) in zip(panels, cosines.items(), strict=True):
        _draw_cosines(left, by_epoch, styles)
        _draw_cosines(right, by_layer, styles)
        left.set_title(title, loc="left", fontsize="medium")
        left.set(xlabel="Epoch\n(whole encoder)", ylabel="Cosine (no unit)")
        right.set(xlabel="Transformer layer\n(mean over the epochs)")
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=2, **LEGEND)
    save_figure(figure, path)
    return figure


def mean_cosines(groups: list[str], measurements: list[dict]) -> tuple[Lines, Lines]:
    """Average the cosines of each pair of losses, over the epochs and over the layers.

    Args:
        groups: names of the parameter groups: first one with all parameters, then "layer 1" and so on.
        measurements: of one run or of several, each with its "epoch" and its "cosines" by pair and group.

    Returns:
        On all parameters, the epochs from 1 and the mean of each epoch; the layers from 1 and the mean of each layer.
    """
    epochs = np.floor([m["epoch"] for m in measurements]).astype(int)
    layers = [i for i, group in enumerate(groups) if group.startswith("layer")]
    by_epoch, by_layer = {}, {}
    for pair in measurements[0]["cosines"]:
        # Unknown where no utterance of the batch is annotated for a task.
        cosines = np.array([m["cosines"].get(pair, [None] * len(groups)) for m in measurements], dtype=float)
        known = ~np.isnan(cosines[:, 0])
        measured = np.unique(epochs[known])
        means = [cosines[known & (epochs == epoch), 0].mean() for epoch in measured]
        by_epoch[pair] = measured + 1, np.array(means)
        layer_means = np.nanmean(cosines[:, layers], axis=0) if known.any() else np.full(len(layers), np.nan)
        by_layer[pair] = np.arange(1, len(layers) + 1), layer_means
    return by_epoch, by_layer


def _draw_cosines(axes: Axes, cosines: Lines, styles: dict[frozenset[str], dict]) -> None:
    """Draw a line for each pair of losses, such as "emotion asr", or of a loss and itself, "emotion emotion"."""
    for pair, (positions, values) in cosines.items():
        one, other = map(loss_title, pair.split())
        label = f"{one}, next batch" if one == other else f"{one} and {other}"
        every = max(1, len(positions) // 8)
        axes.plot(positions, values, label=label, markevery=every, **styles[frozenset(pair.split())])
    axes.axhline(0, color="0.4", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    tidy(axes)
