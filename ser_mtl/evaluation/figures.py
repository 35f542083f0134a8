"""The figures of a test: confusion matrix and reliability diagram of emotion."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from ser_mtl.evaluation.calibration import BINS, Reliability, reliability, tempered
from ser_mtl.evaluation.drawing import DOTTED, LEGEND, WIDTH, blank_figure, line_style, literal, save_figure, tidy

_LONGEST_LABEL = 40  # characters; a longer one would leave no space for the matrix
_MOST_BINS, _FEWEST_IN_A_BIN, _NARROWEST_BIN = 10, 25, 0.05


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
    axes.plot([0, 100], [0, 100], label="perfectly calibrated", **DOTTED)
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
