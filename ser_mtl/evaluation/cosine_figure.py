"""The figure of the cosines between the gradients of the losses."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ser_mtl.evaluation.drawing import LEGEND, blank_figure, line_style, loss_title, save_figure, tidy

Lines = dict[str, tuple[np.ndarray, np.ndarray]]
"""Positions along the x axis and the values there, by the name of the line."""


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
