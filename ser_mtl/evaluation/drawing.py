"""The common style of all figures: size, colours, file format.

They are narrow, with panels one above the other, so that the text is readable when a page shrinks them to 400 pixels.
Every line has its own marker and line style, so that the figures can be read in grey.
"""

from io import BytesIO
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from ser_mtl.files import replacing
from ser_mtl.safe_text import printable
from ser_mtl.tasks import TASKS

WIDTH = 4.8
"""Width of a figure in inches; only a confusion matrix of many classes is wider."""

LEGEND = {"frameon": False, "handlelength": 2.6, "fontsize": 9, "columnspacing": 1.2}
"""Arguments of every legend."""

# Colours of Okabe and Ito. The lengths of the three have no common factor, so 280 lines can be told apart.
_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#7F7F7F", "#E69F00", "#56B4E9")
_MARKERS = "os^Dxv*P"
_DASHES = ("-", "--", "-.", ":", (0, (6, 2, 1, 2, 1, 2)))
DOTTED = {"color": "0.4", "linestyle": (0, (1, 1)), "linewidth": 1}
_LOSS_TITLES = {"scl": "SCL"}  # losses that are not a task's; others are shown under their own names


def line_style(index: int) -> dict:
    """Colour, marker and line style of the index-th line of a figure, as arguments of `Axes.plot`."""
    return {
        "color": _COLORS[index % len(_COLORS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "markersize": 5,
    }


def blank_figure(height: float, width: float = WIDTH) -> Figure:
    """A figure of this size in inches, with a margin."""
    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    figure.set_layout_engine("constrained", w_pad=0.08, h_pad=0.08)
    return figure


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure as a PNG with a palette of 256 colours, a third of the size of one without.

    The same figure gives the same bytes.
    """
    figure.draw_without_rendering()  # the layout of one draw may still change the ticks, and so the space they need
    if (layout := figure.get_layout_engine()) is not None:
        layout.execute(figure)
        figure.set_layout_engine(None)  # `savefig` would draw twice, and lay out each time
    drawn = BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    with replacing(path) as partial:
        Image.open(drawn).convert("RGB").quantize().save(partial, optimize=True)


def tidy(axes: Axes, grid: Literal["x", "y"] = "y") -> None:
    """Remove the top and right of the frame, and draw light grid lines across one axis."""
    axes.grid(axis=grid, color="0.9")
    axes.spines[["top", "right"]].set_visible(False)


def literal(text: str) -> str:
    """Escape text from outside for matplotlib, where a $ would begin a formula."""
    return printable(text).replace("$", r"\$")


def loss_title(name: str) -> str:
    """Title of a loss in figures: the task's title or, for an unknown loss, its own name."""
    of_value = name in TASKS and TASKS[name].kind == "value"
    return f"{TASKS[name].title if name in TASKS else _LOSS_TITLES.get(name, name)}{', 1 - CCC' if of_value else ''}"
