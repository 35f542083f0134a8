"""Draw the figure of the method, docs/method.png.

python docs/draw_method.py

One model, read from the bottom to the top. The look of a box says which stage trains it. One unit is one inch; the
figure is narrow, so that its text is readable at a width of 400 pixels.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

from ser_mtl.evaluation.drawing import save_figure

WIDTH, HEIGHT = 5.6, 7.9
INK = "0.1"

TEXT, GENDER, EMOTION, STYLE = 0.62, 1.92, 3.37, 4.82
"""Middle of each column."""

# Middle of each row.
WAVE, FRONT_END, ATTENTION, FEED_FORWARD, BOTTLENECK = 0.38, 1.0, 1.78, 2.54, 3.02
SPLIT, TASK_ADAPTER, MEAN, PROJECTION, EMBEDDING, CLASSIFIER, ANSWER = 3.9, 4.3, 4.76, 5.22, 5.78, 6.58, 7.0
FUSION = 6.18
LAYER = (1.44, 3.6)
"""Bottom and top of the box that stands for a Transformer layer."""
HEAD_WIDTH = 1.3

STAGE_1, STAGE_2 = "#CFE2F3", "#F7B955"
KINDS = {  # colours of the left and the right half, and the width of the edge; can be told apart in grey
    "frozen": ("0.93", "0.93", 0.8),
    "stage 1": (STAGE_1, STAGE_1, 0.8),
    "both": (STAGE_1, STAGE_2, 1.8),
    "stage 2": (STAGE_2, STAGE_2, 1.8),
    "plain": ("white", "white", 0.8),
}


def box(axes: Axes, x: float, y: float, width: float, text: str, kind: str, height: float = 0.32) -> None:
    """A box with a text, around its middle."""
    left, right, linewidth = KINDS[kind]
    corner, inner = (x - width / 2 + 0.04, y - height / 2 + 0.04), (width - 0.08, height - 0.08)
    edge = FancyBboxPatch(corner, *inner, boxstyle="round,pad=0.04", facecolor="none", edgecolor=INK, lw=linewidth)
    axes.add_patch(edge)
    for start, color in ((x - width / 2, left), (x, right)):
        hatch = "////" if kind == "frozen" else None
        half = Rectangle((start, y - height / 2), width / 2, height, fc=color, ec="0.8", lw=0, hatch=hatch, zorder=0.9)
        axes.add_patch(half)
        half.set_clip_path(edge)
    behind = {"facecolor": left, "edgecolor": "none", "pad": 0.8} if kind == "frozen" and text else None
    axes.text(x, y, text, ha="center", va="center", bbox=behind)


def line(axes: Axes, *points: tuple[float, float], arrow: bool = True) -> None:
    """A line through points, with an arrow head at its end."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, zorder=0.5, color=INK, linewidth=1, solid_capstyle="butt")
    if arrow:
        head = {"arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": INK, "linewidth": 1}
        start = np.array(points[-1]) - 0.02 * np.subtract(points[-1], points[-2])
        axes.annotate("", points[-1], start, arrowprops={**head, "shrinkA": 0, "shrinkB": 0})


def plus(axes: Axes, x: float, y: float) -> None:
    """The plus sign where a residual connection ends."""
    axes.add_patch(Circle((x, y), 0.075, facecolor="white", edgecolor=INK, linewidth=1))
    axes.plot([x - 0.045, x + 0.045], [y, y], color=INK, linewidth=1)
    axes.plot([x, x], [y - 0.045, y + 0.045], color=INK, linewidth=1)


def waveform(axes: Axes, x: float) -> None:
    """A waveform that looks like speech, made of a few waves."""
    time = np.linspace(0, 1, 500)
    loudness = np.abs(np.sin(3 * np.pi * time**1.2)) * np.sin(np.pi * time) ** 0.6
    wave = loudness * (np.sin(130 * time) + 0.6 * np.sin(311 * time)) / 1.6
    axes.plot(x + 1.7 * (time - 0.5), WAVE + 0.2 * wave, color=INK, linewidth=0.7)


def encoder(axes: Axes, x: float) -> None:
    """Waveform, front end and a Transformer layer with its adapters; f leaves it at the top."""
    bottom, top = LAYER
    waveform(axes, x)
    line(axes, (x, WAVE + 0.24), (x, FRONT_END - 0.16))
    box(axes, x, FRONT_END, 1.7, "CNN front end", "frozen")
    left, right = x - 1.2, x + 2.02
    for shift in (0.1, 0.05, 0):
        corner, size = (left + shift, bottom + shift), (right - left, top - bottom)
        axes.add_patch(Rectangle(corner, *size, facecolor="white", edgecolor="0.35", linewidth=0.8, zorder=0.3))
    axes.text(right - 0.08, top - 0.2, "Transformer,\nN layers", ha="right", va="top", fontsize=9.5)

    line(axes, (x, FRONT_END + 0.16), (x, ATTENTION - 0.16))
    box(axes, x, ATTENTION, 1.3, "attention", "stage 1")
    first_sum, second_sum = ATTENTION + 0.36, top - 0.17
    line(axes, (x, ATTENTION + 0.16), (x, first_sum - 0.075))
    line(axes, (x, first_sum + 0.075), (x, FEED_FORWARD - 0.16))
    box(axes, x, FEED_FORWARD, 1.3, "feed-forward", "stage 1")
    line(axes, (x, FEED_FORWARD + 0.16), (x, BOTTLENECK - 0.16))
    box(axes, x, BOTTLENECK, 1.3, "bottleneck", "stage 2")
    line(axes, (x, BOTTLENECK + 0.16), (x, second_sum - 0.075))
    for lower, upper in ((bottom + 0.09, first_sum), (first_sum + 0.13, second_sum)):
        line(axes, (x, lower), (x - 0.92, lower), (x - 0.92, upper), (x - 0.075, upper))
        plus(axes, x, upper)
    line(axes, (x, second_sum + 0.075), (x, SPLIT), arrow=False)
    box(axes, x + 1.42, ATTENTION, 0.8, "LoRA", "stage 2")
    line(axes, (x + 1.02, ATTENTION), (x + 0.65, ATTENTION))
    axes.text(x + 1.42, ATTENTION + 0.3, "on q, k, v, out", ha="center", va="center", fontsize=9)
    axes.text(x + 0.1, SPLIT - 0.12, "$f$", ha="left", va="center", fontsize=11)


def ctc(axes: Axes, x: float) -> None:
    """The CTC head, which reads every frame of f."""
    line(axes, (x, SPLIT), (x, CLASSIFIER - 0.16))
    box(axes, x, CLASSIFIER, 1.0, "CTC head", "stage 1")
    line(axes, (x, CLASSIFIER + 0.16), (x, ANSWER - 0.1))
    axes.text(x, ANSWER, "text", ha="center", va="center", fontstyle="italic")


def head(axes: Axes, x: float, task: str, kind: str) -> None:
    """A classification task: adapter, mean over frames, FC layer, embedding, classifier."""
    below = SPLIT
    for y, text, look in (
        (TASK_ADAPTER, "bottleneck", "stage 2"),
        (MEAN, "mean of frames", "plain"),
        (PROJECTION, "FC layer", kind),
    ):
        line(axes, (x, below), (x, y - 0.16))
        box(axes, x, y, HEAD_WIDTH, text, look)
        below = y + 0.16
    line(axes, (x, below), (x, EMBEDDING - 0.19))
    axes.add_patch(Circle((x, EMBEDDING), 0.19, facecolor="white", edgecolor=INK, linewidth=1))
    axes.text(x, EMBEDDING - 0.01, f"$x_{task[0]}$", ha="center", va="center", fontsize=11)
    line(axes, (x, EMBEDDING + 0.19), (x, CLASSIFIER - 0.16))
    box(axes, x, CLASSIFIER, HEAD_WIDTH, "classifier", kind)
    line(axes, (x, CLASSIFIER + 0.16), (x, ANSWER - 0.1))
    axes.text(x, ANSWER, task, ha="center", va="center", fontstyle="italic")


def self_contrastive_loss_and_fusion(axes: Axes) -> None:
    """The two links between the tasks in stage 2: SCL on the embeddings, fusion into the emotion classifier."""
    band = FancyBboxPatch(
        (GENDER - 0.22, EMBEDDING - 0.2), STYLE - GENDER + 0.44, 0.4, boxstyle="round,pad=0.06", zorder=0.2
    )
    band.set(facecolor="#FDF0D9", edgecolor=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.add_patch(band)
    for left, right in ((GENDER, EMOTION), (EMOTION, STYLE)):
        middle = (left + right) / 2
        axes.text(middle, EMBEDDING, "SCL", ha="center", va="center", fontsize=9)
        for start, end in ((middle - 0.2, left + 0.2), (middle + 0.2, right - 0.2)):
            line(axes, (start, EMBEDDING), (end, EMBEDDING))
    for side, x in ((-1, GENDER), (1, STYLE)):
        line(axes, (x, FUSION), (EMOTION + side * 0.42, FUSION), (EMOTION + side * 0.42, CLASSIFIER - 0.16))
        axes.add_patch(Circle((x, FUSION), 0.03, color=INK))
    axes.text((GENDER + EMOTION) / 2 - 0.2, FUSION + 0.11, "fusion", ha="center", va="center", fontsize=9)


def legend(axes: Axes, left: float, top: float) -> None:
    """The meaning of each kind of box."""
    texts = {
        "frozen": "frozen",
        "stage 1": "trained in stage 1,\nthen frozen",
        "both": "trained in both\nstages",
        "stage 2": "added and trained\nin stage 2",
        "plain": "no parameters",
    }
    for row, (kind, text) in enumerate(texts.items()):
        y = top - 0.46 * row
        box(axes, left + 0.2, y, 0.4, "", kind, height=0.26)
        axes.text(left + 0.5, y, text, ha="left", va="center", fontsize=9.5, linespacing=1.1)


def losses(axes: Axes, left: float, top: float) -> None:
    """The loss of each stage."""
    formulas = (
        r"$(1-\alpha)\,L_\mathrm{emotion} + \alpha\,L_\mathrm{ASR}$",
        r"$(1-2\beta)\,L_\mathrm{emotion} + \beta\,L_\mathrm{gender} + \beta\,L_\mathrm{style} + L_\mathrm{SCL}$",
    )
    for stage, formula in enumerate(formulas, 1):
        y = top - 0.3 * (stage - 1)
        axes.text(left, y, f"Stage {stage}", va="center", fontsize=11, fontweight="bold")
        axes.text(left + 0.75, y, formula, va="center", fontsize=11)


def draw() -> Figure:
    """The model, its losses and the legend."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")
    losses(axes, left=0.12, top=HEIGHT - 0.22)
    encoder(axes, EMOTION)
    line(axes, (TEXT, SPLIT), (STYLE, SPLIT), arrow=False)
    ctc(axes, TEXT)
    for x, task, kind in ((GENDER, "gender", "stage 2"), (EMOTION, "emotion", "both"), (STYLE, "style", "stage 2")):
        head(axes, x, task, kind)
    self_contrastive_loss_and_fusion(axes)
    legend(axes, left=0.12, top=3.1)
    return figure


if __name__ == "__main__":
    save_figure(draw(), Path(__file__).with_name("method.png"))
