"""The figure of losses and metrics over the epochs, from the log of the Trainer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter
from pydantic import AfterValidator

from ser_mtl.evaluation.drawing import DOTTED, LEGEND, blank_figure, line_style, literal, loss_title, save_figure, tidy
from ser_mtl.evaluation.results import UNTRAINED_WER
from ser_mtl.metrics import METRICS
from ser_mtl.tasks import TASKS


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

_PERCENT = "Metric (%)"
_WEIGHTED_SUM = {"color": "black", "linestyle": "-", "linewidth": 2.2}


@dataclass(frozen=True)
class _Curve:
    label: str
    style: dict
    epochs: list[float]
    values: list[float]


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
    panels = _panels(log_history, evaluated_on)
    figure = blank_figure(3.1 * len(panels) + (0.3 if title else 0))
    for axes, (curves, heading, unit) in zip(figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True):
        _draw_curves(axes, curves)
        axes.set(xlabel="Epoch", ylabel=unit)
        axes.set_title(heading, fontsize="medium")
        if line is not None and unit == _PERCENT:
            axes.axhline(100 * line, label="frozen encoder, UA", color="0.4", linestyle=(0, (4, 2)), linewidth=1)
        _set_scale(axes, curves, percent=unit == _PERCENT)
        if chosen_epoch is not None:
            axes.axvline(chosen_epoch, label=f"kept: epoch {chosen_epoch:g}", **DOTTED)
        wide = max((len(curve.label) for curve in curves), default=0) > 15
        axes.legend(loc="upper center", bbox_to_anchor=(0.45, -0.22), ncols=2 if wide else 3, **LEGEND)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)
    return figure


def _panels(log_history: list[dict], evaluated_on: str) -> list[tuple[list[_Curve], str, str]]:
    """The panels of the figure that have curves: the curves, a title and the unit of each."""
    tasks, terms = _loss_curves(log_history)
    panels = [
        (tasks, "Training: losses of the tasks", "Loss (nats)"),
        (terms, "Training: other terms", "Loss (no unit)"),
        (_metric_curves(log_history), evaluated_on, _PERCENT),
    ]
    return [panel for panel in panels if panel[0]] or panels[:1]


def _draw_curves(axes: Axes, curves: list[_Curve]) -> None:
    for curve in curves:
        every = max(1, len(curve.epochs) // 8)
        axes.plot(curve.epochs, curve.values, label=curve.label, markevery=every, **curve.style)


def _set_scale(axes: Axes, curves: list[_Curve], percent: bool) -> None:
    """Whole epochs from 0; percentages up to 100, and losses on a logarithmic scale if all are above 0."""
    if percent:
        lowest = min((value for curve in curves for value in curve.values), default=0)
        axes.set_ylim(min(0, lowest), max(103, axes.get_ylim()[1]))
    elif all(value > 0 for curve in curves for value in curve.values):
        _scale_to_logarithm(axes)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
    tidy(axes)


def _loss_curves(log_history: list[dict]) -> tuple[list[_Curve], list[_Curve]]:
    """Curves of the tasks' losses and of all other terms; the weighted sum is the first of the other terms, if any."""
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


def _scale_to_logarithm(axes: Axes) -> None:
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1, 2, 5) if high / low < 30 else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=subs, numticks=7))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
