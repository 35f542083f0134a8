"""Draw the figure of the method, docs/method.png.

python docs/draw_method.py

One unit is one inch. Stage 1 is on the left and stage 2 on the right. Both are read from the bottom to the top, and
what corresponds in the two is at the same height.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Rectangle

WIDTH, HEIGHT = 10.8, 8.2
INK = "0.1"

# Height of the middle of each row.
WAVE, FRONT_END, ATTENTION, FEED_FORWARD, BOTTLENECK = 0.42, 1.08, 1.9, 2.68, 3.18
SPLIT, TASK_ADAPTER, MEAN, PROJECTION, EMBEDDING, CLASSIFIER, ANSWER = 4.08, 4.48, 4.94, 5.4, 5.96, 6.78, 7.22
FUSION = 6.36
LAYER = (1.56, 3.78)
"""Bottom and top of the box that stands for a Transformer layer."""
PANEL = (0.1, 7.42)
"""Bottom and top of the frame of a stage."""
HEAD_WIDTH = 1.38

KINDS = {  # told apart in grey too: by the hatching and by the weight of the edge
    "trained": {"facecolor": "#FFD79A", "linewidth": 1.8},
    "frozen": {"facecolor": "0.92", "linewidth": 0.8, "hatch": "////"},
    "plain": {"facecolor": "white", "linewidth": 0.8},
}


def box(axes: Axes, x: float, y: float, width: float, text: str, kind: str, height: float = 0.3) -> None:
    """A box with a text, around its middle."""
    corner = (x - width / 2 + 0.04, y - height / 2 + 0.04)
    style = KINDS[kind]
    shape = {"boxstyle": "round,pad=0.04", "mutation_aspect": 1}
    inner = (corner, width - 0.08, height - 0.08)
    axes.add_patch(FancyBboxPatch(*inner, **shape, **{**style, "linewidth": 0}, edgecolor="0.78"))
    axes.add_patch(FancyBboxPatch(*inner, **shape, facecolor="none", edgecolor=INK, linewidth=style["linewidth"]))
    behind = {"facecolor": style["facecolor"], "edgecolor": "none", "pad": 0.8} if kind == "frozen" else None
    axes.text(x, y, text, ha="center", va="center", bbox=behind)


def line(axes: Axes, *points: tuple[float, float], arrow: bool = True, dashed: bool = False) -> None:
    """A line through points, with an arrow head at its end."""
    style = {"color": INK, "linewidth": 1, "linestyle": (0, (3, 2)) if dashed else "-", "solid_capstyle": "butt"}
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, zorder=0.5, **style)
    if arrow:
        head = {"arrowstyle": "-|>,head_width=0.18,head_length=0.35", "color": INK, "linewidth": 1}
        start = np.array(points[-1]) - 0.02 * np.subtract(points[-1], points[-2])
        axes.annotate("", points[-1], start, arrowprops={**head, "shrinkA": 0, "shrinkB": 0})


def plus(axes: Axes, x: float, y: float) -> None:
    """The sign of a sum, where a residual connection ends."""
    axes.add_patch(Circle((x, y), 0.075, facecolor="white", edgecolor=INK, linewidth=1))
    axes.plot([x - 0.045, x + 0.045], [y, y], color=INK, linewidth=1)
    axes.plot([x, x], [y - 0.045, y + 0.045], color=INK, linewidth=1)


def waveform(axes: Axes, x: float) -> None:
    """Something like speech, made of a few waves."""
    time = np.linspace(0, 1, 500)
    loudness = np.abs(np.sin(3 * np.pi * time**1.2)) * np.sin(np.pi * time) ** 0.6
    wave = loudness * (np.sin(130 * time) + 0.6 * np.sin(311 * time)) / 1.6
    axes.plot(x + 1.7 * (time - 0.5), WAVE + 0.2 * wave, color=INK, linewidth=0.7)


def panel(axes: Axes, left: float, right: float, title: str, loss: str) -> None:
    """The frame of a stage with its title and its loss above."""
    bottom, top = PANEL
    axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, facecolor="none", edgecolor="0.6", lw=0.8))
    axes.text(left, top + 0.52, title, ha="left", va="center", fontsize=12, fontweight="bold")
    axes.text(left, top + 0.2, loss, ha="left", va="center", fontsize=11)


def encoder(axes: Axes, x: float, transformer: str, adapters: bool) -> None:
    """Waveform, front end and a Transformer layer, in the middle `x`; f leaves it at the top."""
    bottom, top = LAYER
    waveform(axes, x)
    line(axes, (x, WAVE + 0.24), (x, FRONT_END - 0.15))
    box(axes, x, FRONT_END, 2.1, "CNN front end", "frozen")
    right = 2.15 if adapters else 1.25
    for shift in (0.1, 0.05, 0):
        corner, size = (x - 1.25 + shift, bottom + shift), (1.25 + right, top - bottom)
        axes.add_patch(Rectangle(corner, *size, facecolor="white", edgecolor="0.35", linewidth=0.8, zorder=0.3))
    axes.text(x - 1.33, (bottom + top) / 2, "Transformer, N layers", rotation=90, ha="right", va="center")

    line(axes, (x, FRONT_END + 0.15), (x, ATTENTION - 0.15))
    box(axes, x, ATTENTION, 1.7, "attention", transformer)
    first_sum, second_sum = ATTENTION + 0.35, top - 0.17
    line(axes, (x, ATTENTION + 0.15), (x, first_sum - 0.075))
    line(axes, (x, first_sum + 0.075), (x, FEED_FORWARD - 0.15))
    box(axes, x, FEED_FORWARD, 1.7, "feed-forward", transformer)
    above = BOTTLENECK + 0.15 if adapters else FEED_FORWARD + 0.15
    line(axes, (x, above), (x, second_sum - 0.075))
    for lower, upper in ((bottom + 0.1, first_sum), (first_sum + 0.13, second_sum)):
        line(axes, (x, lower), (x - 1.05, lower), (x - 1.05, upper), (x - 0.075, upper))
        plus(axes, x, upper)
    line(axes, (x, second_sum + 0.075), (x, SPLIT), arrow=False)
    if adapters:
        line(axes, (x, FEED_FORWARD + 0.15), (x, BOTTLENECK - 0.15))
        box(axes, x, BOTTLENECK, 1.7, "bottleneck", "trained")
        box(axes, x + 1.5, ATTENTION, 0.9, "LoRA", "trained")
        line(axes, (x + 1.05, ATTENTION), (x + 0.85, ATTENTION))
        axes.text(x + 1.5, ATTENTION + 0.3, "on q, k, v, out", ha="center", va="center", fontsize=9)
    axes.text(x + 0.1, SPLIT - 0.13, "$f$", ha="left", va="center", fontsize=11)


def ctc(axes: Axes, x: float, kind: str) -> None:
    """The CTC head, which reads every frame of f."""
    line(axes, (x, SPLIT), (x, CLASSIFIER - 0.15))
    box(axes, x, CLASSIFIER, 0.95, "CTC head", kind)
    line(axes, (x, CLASSIFIER + 0.15), (x, ANSWER - 0.1))
    axes.text(x, ANSWER, "text", ha="center", va="center", fontstyle="italic")


def head(axes: Axes, x: float, task: str, adapter: bool) -> None:
    """A classification task: adapter, mean over frames, FC layer, embedding, classifier."""
    steps = [(MEAN, "mean over frames", "plain"), (PROJECTION, "FC", "trained")]
    steps = [(TASK_ADAPTER, "bottleneck", "trained"), *steps] if adapter else steps
    below = SPLIT
    for y, text, kind in steps:
        line(axes, (x, below), (x, y - 0.15))
        box(axes, x, y, HEAD_WIDTH, text, kind)
        below = y + 0.15
    line(axes, (x, below), (x, EMBEDDING - 0.19))
    axes.add_patch(Circle((x, EMBEDDING), 0.19, facecolor="white", edgecolor=INK, linewidth=1))
    axes.text(x, EMBEDDING - 0.01, f"$x_{task[0]}$", ha="center", va="center", fontsize=11)
    line(axes, (x, EMBEDDING + 0.19), (x, CLASSIFIER - 0.15))
    box(axes, x, CLASSIFIER, HEAD_WIDTH, "classifier", "trained")
    line(axes, (x, CLASSIFIER + 0.15), (x, ANSWER - 0.1))
    axes.text(x, ANSWER, task, ha="center", va="center", fontstyle="italic")


def self_contrastive_loss_and_fusion(axes: Axes, gender: float, emotion: float, style: float) -> None:
    """What ties the three tasks together: SCL on the embeddings, fusion into the emotion classifier."""
    band = FancyBboxPatch(
        (gender - 0.22, EMBEDDING - 0.2), style - gender + 0.44, 0.4, boxstyle="round,pad=0.06", zorder=0.2
    )
    band.set(facecolor="#E3ECF7", edgecolor=INK, linewidth=0.9, linestyle=(0, (3, 2)))
    axes.add_patch(band)
    for left, right in ((gender, emotion), (emotion, style)):
        axes.text((left + right) / 2, EMBEDDING, "SCL", ha="center", va="center", fontsize=9)
        for start, end in ((left + 0.55, left + 0.24), (right - 0.55, right - 0.24)):
            line(axes, (start, EMBEDDING), (end, EMBEDDING))
    for side, x in ((-1, gender), (1, style)):
        line(axes, (x, FUSION), (emotion + side * 0.45, FUSION), (emotion + side * 0.45, CLASSIFIER - 0.15))
        axes.add_patch(Circle((x, FUSION), 0.03, color=INK))
    axes.text((gender + emotion) / 2 - 0.22, FUSION + 0.1, "fusion", ha="center", va="center", fontsize=9)


def legend(axes: Axes, left: float, top: float) -> None:
    """What the looks of a box mean."""
    for row, (kind, text) in enumerate((("trained", "trained"), ("frozen", "frozen"), ("plain", "no parameters"))):
        y = top - 0.32 * row
        box(axes, left + 0.17, y, 0.34, "", kind, height=0.2)
        axes.text(left + 0.45, y, text, ha="left", va="center")


def draw() -> Figure:
    """Both stages side by side."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, WIDTH), ylim=(0, HEIGHT))
    axes.axis("off")

    loss = r"$(1-\alpha)\,L_\mathrm{emotion} + \alpha\,L_\mathrm{ASR}$"
    panel(axes, 0.1, 3.75, "Stage 1: finetune the Transformer", loss)
    encoder(axes, 2.3, "trained", adapters=False)
    line(axes, (0.75, SPLIT), (2.3, SPLIT), arrow=False)
    ctc(axes, 0.75, "trained")
    head(axes, 2.3, "emotion", adapter=False)

    line(axes, (3.75, FEED_FORWARD), (4.4, FEED_FORWARD))
    axes.text(4.07, FEED_FORWARD + 0.13, "weights", ha="center", va="center", fontsize=9)

    loss = r"$(1-2\beta)\,L_\mathrm{emotion} + \beta\,L_\mathrm{gender} + \beta\,L_\mathrm{style} + L_\mathrm{SCL}$"
    panel(axes, 4.4, 10.7, "Stage 2: train adapters on the frozen model", loss)
    encoder(axes, 8.0, "frozen", adapters=True)
    line(axes, (4.95, SPLIT), (9.7, SPLIT), arrow=False)
    ctc(axes, 4.95, "frozen")
    for x, task in ((6.3, "gender"), (8.0, "emotion"), (9.7, "style")):
        head(axes, x, task, adapter=True)
    self_contrastive_loss_and_fusion(axes, gender=6.3, emotion=8.0, style=9.7)
    legend(axes, left=4.6, top=1.08)
    return figure


if __name__ == "__main__":
    draw().savefig(Path(__file__).with_name("method.png"), dpi=160, metadata={"Software": None})
