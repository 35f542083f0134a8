"""The figure of the values: predicted over annotated ones."""

from pathlib import Path

from matplotlib.figure import Figure

from ser_mtl.evaluation.drawing import blank_figure, line_style, literal, save_figure, tidy
from ser_mtl.evaluation.scores import ccc


def plot_values(rows: list[dict], tasks: list[str], path: str | Path, title: str) -> Figure:
    """Draw predicted over annotated values of the test utterances, with the diagonal, one panel for each task.

    Args:
        rows: of `predictions.jsonl`.
        tasks: those that give a value.
        path: where the figure is written (PNG).
        title: printed above all panels.
    """
    figure = blank_figure(0.3 + 3.2 * len(tasks))
    for index, (axes, task) in enumerate(zip(figure.subplots(len(tasks), squeeze=False)[:, 0], tasks, strict=True)):
        pairs = [(row[task]["label"], row[task]["predicted"]) for row in rows if row[task]["label"] is not None]
        heading = f"{task} (n = {len(pairs)})"
        if pairs:
            annotated, predicted = zip(*pairs, strict=True)
            axes.plot(annotated, predicted, **line_style(index) | {"linestyle": "", "markersize": 3, "alpha": 0.6})
            axes.axline((annotated[0], annotated[0]), slope=1, color="0.4", linestyle=":", linewidth=1)
            heading = f"{task}: CCC {ccc(annotated, predicted):.3f} (n = {len(pairs)})"
        axes.set(xlabel="Annotated", ylabel="Predicted")
        axes.set_title(heading, fontsize="medium")
        axes.set_aspect("equal", adjustable="datalim")
        tidy(axes)
    figure.suptitle(literal(title), fontsize="medium")
    save_figure(figure, path)
    return figure
