"""The pictures of a run: confusion matrix, training curves, reliability, gradients. All can be read in grey."""

from itertools import combinations, product
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from ser_mtl.evaluation.calibration import BINS, Reliability
from ser_mtl.files import replacing
from ser_mtl.tasks import TASKS

Lines = dict[str, tuple[np.ndarray, np.ndarray]]
"""Places along an axis and the values there, by the name of the line."""

# One style a task, the same in both panels: colours of Okabe and Ito, and a line style that tells them apart in grey.
_STYLES = {
    "total": {"color": "black", "linestyle": "-", "linewidth": 2.2},
    "emotion": {"color": "#D55E00", "linestyle": "-", "marker": "o"},
    "gender": {"color": "#0072B2", "linestyle": "--", "marker": "s"},
    "style": {"color": "#009E73", "linestyle": "-.", "marker": "^"},
    "asr": {"color": "#CC79A7", "linestyle": ":", "marker": "D"},
    "scl": {"color": "#7F7F7F", "linestyle": (0, (6, 2, 1, 2, 1, 2)), "marker": "x"},
}
# One style for every two of the five losses, the same in all pictures.
_MARKED = zip(("#D55E00", "#0072B2", "#009E73", "#CC79A7", "black"), "os^Dx", strict=True)
_LOOKS = [
    {"color": color, "linestyle": linestyle, "marker": marker, "markersize": 5}
    for linestyle, (color, marker) in product(("-", "--"), _MARKED)
]
_PAIR_STYLES = dict(zip(map(frozenset, combinations((*TASKS, "scl"), 2)), _LOOKS, strict=True))
_LOSSES = {
    "loss": ("total", "weighted sum"),
    "loss_emotion": ("emotion", "emotion"),
    "loss_gender": ("gender", "gender"),
    "loss_style": ("style", "style"),
    "loss_asr": ("asr", "ASR (CTC)"),
    "loss_scl": ("scl", "self-contrastive (no unit)"),
}
_SCORES = {
    "eval_emotion_ua": ("emotion", "emotion UA"),
    "eval_gender_ua": ("gender", "gender UA"),
    "eval_style_ua": ("style", "style UA"),
    "eval_asr_wer": ("asr", "WER"),
}


def plot_confusion_matrix(matrix: list[list[int]], labels: list[str], path: str | Path, title: str) -> Figure:
    """Draw counts and row percentages of a confusion matrix as a PNG.

    Args:
        matrix: (classes, classes) counts, rows the annotated class, columns the predicted one.
        labels: the classes, in the order of the rows.
        path: of the picture.
        title: a line above it.

    Returns:
        The figure, already written.
    """
    counts = np.asarray(matrix)
    totals = counts.sum(axis=1, keepdims=True)
    percent = 100 * counts / np.maximum(totals, 1)
    side = 1.8 + 0.85 * len(labels)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.add_subplot()
    # The darker half of the colour map is left out: black figures stay legible on every cell.
    axes.imshow(percent, cmap="Blues", vmin=0, vmax=180)
    for (row, column), count in np.ndenumerate(counts):
        text = f"{percent[row, column]:.0f} %\n({count})" if totals[row, 0] else "–"
        axes.text(column, row, text, ha="center", va="center")
    rows = [f"{label}\n(n = {total})" for label, total in zip(labels, totals[:, 0], strict=True)]
    axes.set_xticks(range(len(labels)), labels, rotation=30 if len(labels) > 4 else 0)
    axes.set_yticks(range(len(labels)), rows)
    axes.set(xlabel="Predicted", ylabel="Annotated (rows sum to 100 %)")
    axes.tick_params(length=0)
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path)
    return figure


def plot_training_curves(
    log_history: list[dict],
    path: str | Path,
    chosen_epoch: float | None = None,
    evaluated_on: str = "Development set",
) -> Figure:
    """Draw the training losses and, where epochs were evaluated, UA and WER over the epochs, as a PNG.

    Args:
        log_history: `trainer.state.log_history`: `loss`, `loss_<task>`, `loss_scl` in nats, `eval_<task>_ua` and
            `eval_asr_wer` as fractions, each entry with its `epoch`.
        path: of the picture.
        chosen_epoch: the epoch whose checkpoint was kept, marked in every panel.
        evaluated_on: title of the panel of UA and WER; under `--selection oracle` it is the test fold.

    Returns:
        The figure, already written.
    """
    losses, scores = _curves(log_history, _LOSSES), _curves(log_history, _SCORES)
    panels = 2 if scores else 1
    figure = Figure(figsize=(5.5 * panels, 4.3), layout="constrained")
    loss_axes, *score_axes = figure.subplots(1, panels, squeeze=False)[0]
    _draw(loss_axes, losses, _LOSSES)
    loss_axes.set(ylabel="Loss (nats)", title="Training")
    if all(value > 0 for _, values in losses.values() for value in values):
        loss_axes.set_yscale("log")
        low, high = loss_axes.get_ylim()
        loss_axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1e4 else (1,)))
        loss_axes.yaxis.set_major_formatter("{x:g}")
        loss_axes.yaxis.set_minor_formatter(NullFormatter())
    for axes in score_axes:
        _draw(axes, scores, _SCORES, factor=100)
        axes.set(ylabel="UA, WER (%)", title=evaluated_on)
        axes.set_ylim(0, max(103, axes.get_ylim()[1]))
    for axes in (loss_axes, *score_axes):
        _finish(axes, chosen_epoch)
    save_figure(figure, path)
    return figure


def plot_reliability(
    before: Reliability, path: str | Path, title: str, after: Reliability | None = None, temperature: float = 1.0
) -> Figure:
    """Draw accuracy over confidence, and how many utterances there are of each confidence, as a PNG.

    Args:
        before: of the plain probabilities.
        path: of the picture.
        title: a line above it.
        after: of the probabilities under the temperature, where one was fitted.
        temperature: that one.

    Returns:
        The figure, already written.
    """
    figure = Figure(figsize=(5, 6), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    axes.plot([0, 100], [0, 100], color="0.6", linewidth=1, linestyle=(0, (1, 1)), label="perfectly calibrated")
    curves = [(before, "plain", "emotion")] + ([(after, f"T = {temperature:.2f}", "gender")] if after else [])
    for curve, name, style in curves:
        some = curve.count > 0
        label = f"{name}: ECE {100 * curve.error:.1f} %"
        axes.plot(100 * curve.confidence[some], 100 * curve.accuracy[some], label=label, **_STYLES[style])
        edges = np.linspace(0, 100, BINS + 1)
        counts.stairs(curve.count, edges, **{k: v for k, v in _STYLES[style].items() if k != "marker"})
    axes.set(ylabel="Right (%)", xlim=(0, 100), ylim=(0, 103))
    counts.set(xlabel="Probability of the predicted emotion (%)", ylabel="Utterances")
    for panel in (axes, counts):
        panel.grid(axis="y", color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", frameon=False, handlelength=3.2)
    figure.suptitle(title, fontsize="medium")
    save_figure(figure, path)
    return figure


def plot_gradient_cosines(cosines: dict[str, tuple[Lines, Lines]], path: str | Path) -> Figure:
    """Draw the cosine between the gradients of every two losses, two panels side by side for each run, as a PNG.

    Args:
        cosines: by title, what `mean_cosines` gives: left, over the epochs, on all shared parameters; right, over the
            layers, mean of all measurements.
        path: of the picture.

    Returns:
        The figure, already written.
    """
    figure = Figure(figsize=(11, 0.6 + 3.7 * len(cosines)), layout="constrained")
    panels = figure.subplots(len(cosines), 2, sharey=True, squeeze=False)
    for (left, right), (title, (by_epoch, by_layer)) in zip(panels, cosines.items(), strict=True):
        _draw_cosines(left, by_epoch)
        _draw_cosines(right, by_layer)
        left.set(xlabel="Epoch", ylabel="Cosine of the gradients", title=f"{title}, whole encoder")
        right.set(xlabel="Transformer layer", title=f"{title}, mean of all epochs")
    lines = {label: line for axes in figure.axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(lines.values(), lines, loc="outside lower center", ncols=4, frameon=False, handlelength=3.2)
    save_figure(figure, path)
    return figure


def mean_cosines(groups: list[str], measurements: list[dict]) -> tuple[Lines, Lines]:
    """Mean cosines between gradients, by pair of losses: over the epochs and over the layers.

    Args:
        groups: of parameters, the first of them all together; those of layers are called "layer 1" and so on.
        measurements: of one run or of several, each with its "epoch" and "cosines" by pair and group.

    Returns:
        On all parameters, the epochs from 1 and the mean of each; the layers from 1 and the mean on each.
    """
    epochs = np.floor([m["epoch"] for m in measurements]).astype(int)
    layers = [i for i, group in enumerate(groups) if group.startswith("layer")]
    by_epoch, by_layer = {}, {}
    for pair in measurements[0]["cosines"]:
        cosines = np.array([m["cosines"][pair] for m in measurements], dtype=float)
        known = ~np.isnan(cosines[:, 0])  # unknown where nobody in the batch was annotated for a task
        some = np.unique(epochs[known])
        by_epoch[pair] = some + 1, np.array([cosines[known & (epochs == epoch), 0].mean() for epoch in some])
        of_layers = np.nanmean(cosines[:, layers], axis=0) if known.any() else np.full(len(layers), np.nan)
        by_layer[pair] = np.arange(1, len(layers) + 1), of_layers
    return by_epoch, by_layer


def _draw_cosines(axes: Axes, cosines: Lines) -> None:
    """Draw a line for each pair of losses: "emotion asr" -> places along the axis, cosines there."""
    for pair, (places, values) in cosines.items():
        label = " and ".join({"asr": "ASR", "scl": "SCL"}.get(loss, loss) for loss in pair.split())
        every = max(1, len(places) // 8)
        axes.plot(places, values, label=label, markevery=every, **_PAIR_STYLES[frozenset(pair.split())])
    axes.axhline(0, color="0.4", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def _curves(log_history: list[dict], keys: dict) -> dict[str, tuple[list[float], list[float]]]:
    """Epochs and values of each of `keys` that was logged."""
    curves = {}
    for key in keys:
        points = [(entry["epoch"], entry[key]) for entry in log_history if key in entry]
        if points:
            epochs, values = zip(*points, strict=True)
            curves[key] = (list(epochs), list(values))
    return curves


def _draw(axes: Axes, curves: dict, keys: dict, factor: float = 1) -> None:
    for key, (epochs, values) in curves.items():
        style, label = keys[key]
        every = max(1, len(epochs) // 8)
        values = [factor * value for value in values]
        axes.plot(epochs, values, label=label, markersize=5, markevery=every, **_STYLES[style])


def _finish(axes: Axes, chosen_epoch: float | None) -> None:
    if chosen_epoch is not None:
        axes.axvline(
            chosen_epoch, color="0.4", linewidth=1, linestyle=(0, (1, 1)), label=f"kept: epoch {chosen_epoch:g}"
        )
    axes.set_xlabel("Epoch")
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, frameon=False, handlelength=3.2)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG, the same bytes for the same figure."""
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150, metadata={"Software": None})
