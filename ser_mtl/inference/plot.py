"""Emotion over time, as a figure: the waveform, and below it the probabilities of each segment."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MultipleLocator

from recordings_ser_mtl import SAMPLING_RATE, Recording, blocks_of
from ser_mtl.corpora.level import Clipped
from ser_mtl.corpora.reading import audio_blocks
from ser_mtl.errors import UserError, write_errors
from ser_mtl.evaluation.drawing import LEGEND, blank_figure, literal, save_figure, tidy
from ser_mtl.inference.formats import NO_SPEECH, parts_of
from ser_mtl.inference.writing import is_folder, names_in

_COLUMNS = 800  # of the waveform
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 2 * 3600)
_CLOCK = 60  # seconds from which the time is minutes and seconds
# Light and dark in turns, and hatched: the figure can be read in grey.
COLORS = ("#D55E00", "#F0E442", "#7F7F7F", "#0072B2", "#CC79A7", "#009E73", "#E69F00", "#56B4E9")
_HATCHES = ("", "//", "", "..", "xx", "\\\\", "++", "oo")


def places(plot: str, files: list[Path]) -> list[Path]:
    """The path of each recording's figure.

    Raises:
        UserError: one file for several recordings, or one that is not a .png.
    """
    if is_folder(plot):
        return names_in(Path(plot), files, ".png")
    if len(files) > 1:
        raise UserError(f"--plot {plot}: has a figure for each recording; name a folder, with / at its end")
    if Path(plot).suffix.lower() != ".png":
        raise UserError(f"--plot {plot}: must end with .png, or with / for a folder")
    return [Path(plot)]


def draw(recording: Recording, file: Path, answer: dict, path: Path) -> Figure:
    """Draw a recording and its answer.

    Args:
        recording: read once more, for the waveform.
        file: its name, for the title.
        answer: of a `Recognizer`.
        path: where the figure is written (PNG).

    Raises:
        UserError: it cannot be written.
    """
    if hasattr(recording, "seek"):
        recording.seek(0)
    figure = blank_figure(3.6, 6.4)
    wave, emotions = figure.subplots(2, 1, sharex=True, height_ratios=(2, 3))
    seconds = max(answer["duration"], 1e-3)
    peaks = envelope(blocks_of(recording, str(file), audio_blocks, Clipped), seconds)
    x = np.linspace(0, seconds, len(peaks))
    wave.fill_between(x, -peaks, peaks, color="0.35", linewidth=0)
    wave.set(ylabel="Waveform", ylim=(-1.05, 1.05), yticks=[])
    if answer["segments"]:
        _stack(emotions, answer["segments"])
    else:
        emotions.set(yticks=[])
        emotions.text(0.5, 0.5, NO_SPEECH, ha="center", va="center", transform=emotions.transAxes)
    unit = "h:min:s" if seconds >= 3600 else "min:s" if seconds >= _CLOCK else "s"
    emotions.set(xlabel=f"Time ({unit})", xlim=(0, seconds))
    emotions.xaxis.set_major_locator(MultipleLocator(next((s for s in _TICKS if seconds / s <= 7), 6 * 3600)))
    emotions.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value, seconds)))
    for axes in (wave, emotions):
        tidy(axes, "x")
        axes.set_axisbelow(True)
    figure.suptitle(literal(file.name), fontsize="medium")
    with write_errors(f"--plot {path}"):
        save_figure(figure, path)
    return figure


def _stack(axes: Axes, segments: list[dict]) -> None:
    """The probabilities of the first task with classes, stacked; blank where nobody speaks."""
    task = next((name for name, part in parts_of(segments[0]).items() if "probabilities" in part), None)
    if task is None:
        return _values(axes, segments)
    axes.set(ylabel=f"{task} (%)".capitalize(), ylim=(0, 100))
    x = np.array([(s["start"], s["start"], s["end"], s["end"]) for s in segments]).ravel()
    below = np.zeros(len(x))
    for index, label in enumerate(segments[0][task]["probabilities"]):
        p = 100 * np.array([segment[task]["probabilities"][label] for segment in segments])
        above = below + np.outer(p, (0, 1, 1, 0)).ravel()
        style: dict = {"facecolor": COLORS[index % len(COLORS)], "hatch": _HATCHES[index % len(_HATCHES)]}
        axes.fill_between(x, below, above, label=literal(label), edgecolor="white", linewidth=0, **style)
        below = above
    axes.figure.legend(loc="outside lower center", ncols=4, **LEGEND)


def _values(axes: Axes, segments: list[dict]) -> None:
    """A line in each segment for each value, for a model that has only values."""
    axes.set(ylabel="Values")
    for index, task in enumerate(parts_of(segments[0])):
        values, color = [segment[task]["value"] for segment in segments], COLORS[index % len(COLORS)]
        starts, ends = ([segment[name] for segment in segments] for name in ("start", "end"))
        axes.hlines(values, starts, ends, label=task, color=color, linestyle=("-", "--", ":")[index % 3], linewidth=2)
    axes.figure.legend(loc="outside lower center", ncols=4, **LEGEND)


def envelope(blocks: Iterable[np.ndarray], seconds: float) -> np.ndarray:
    """The peak of the samples in each column of a figure, (columns,), relative to the highest peak."""
    step = max(1, int(np.ceil(seconds * SAMPLING_RATE / _COLUMNS)))
    peaks, position = np.zeros(_COLUMNS + 1), 0
    for block in blocks:
        columns = np.minimum((position + np.arange(len(block))) // step, _COLUMNS)
        np.maximum.at(peaks, columns, np.abs(block.astype(np.int32)))
        position += len(block)
    peaks = peaks[: max(1, -(-position // step))]
    return peaks / max(1, peaks.max())


def clock(value: float, longest: float) -> str:
    """Seconds as 1:02:03, 2:03 or, in a recording of less than a minute, 2.5."""
    if longest < _CLOCK:
        return f"{value:g}"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if longest >= 3600 else f"{minutes}:{seconds:02d}"
