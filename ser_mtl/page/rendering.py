"""An answer as HTML. Labels, transcripts and file names are escaped."""

from base64 import b64encode
from io import BytesIO
from pathlib import Path

import jinja2
import numpy as np
import soundfile

from recordings_ser_mtl import SAMPLING_RATE
from ser_mtl.inference.formats import NO_SPEECH, parts_of
from ser_mtl.inference.plot import COLORS, clock, envelope
from ser_mtl.safe_text import printable

TEMPLATES = Path(__file__).with_name("templates")
_HEIGHT = 1000  # of the figure, in units of its own


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )


_ENVIRONMENT = _environment()


def page_head(labels: dict[str, list[str]], transcribes: bool) -> str:
    """The text above the clip: what the page does."""
    return _ENVIRONMENT.get_template("head.html.j2").render(parts=[*labels, *(["words"] if transcribes else [])])


def page_foot(labels: dict[str, list[str]]) -> str:
    """The text at the end: the model's limits, in two lines."""
    return _ENVIRONMENT.get_template("foot.html.j2").render(labels=labels)


def length(seconds: float) -> str:
    """Seconds in words: `5 minutes`, `90 seconds`."""
    return f"{seconds / 60:g} minutes" if seconds >= 120 and seconds % 60 == 0 else f"{seconds:g} seconds"


def error(line: str) -> str:
    """The reason why there is no answer, as HTML."""
    return _ENVIRONMENT.get_template("error.html.j2").render(line=line)


def answer(name: str, samples: np.ndarray, answered: dict) -> str:
    """The answer of a `Recognizer` to a clip.

    Args:
        name: of the clip.
        samples: at 16 kHz, (samples,) int16.
        answered: see `pipeline_ser_mtl.Recognizer.__call__`.
    """
    seconds = max(answered["duration"], 1e-3)
    main = main_task(answered)
    return _ENVIRONMENT.get_template("answer.html.j2").render(
        name=name,
        answer=answered,
        parts=parts_of(answered),
        main=main,
        colors=colors(answered[main]["probabilities"]) if main else {},
        wave=outline(envelope([samples], seconds)),
        bands=bands(answered["segments"], main, seconds) if main else [],
        seconds=seconds,
        clock=lambda value: clock(round(value, 1), seconds),
        unit="" if ":" in clock(seconds, seconds) else " s",
        sound=sound(samples),
        no_speech=NO_SPEECH,
        parts_of=parts_of,
    )


def main_task(answered: dict) -> str | None:
    """The task that is shown over time: emotion, or else the first one with classes."""
    tasks = [task for task, part in parts_of(answered).items() if "probabilities" in part]
    return "emotion" if "emotion" in tasks else next(iter(tasks), None)


def colors(labels: dict[str, float]) -> dict[str, str]:
    """A colour for each label."""
    return {label: COLORS[number % len(COLORS)] for number, label in enumerate(labels)}


def outline(peaks: np.ndarray) -> str:
    """The SVG path of a waveform around zero, 1000 wide and 1000 high, from the peaks in its columns."""
    x = np.linspace(0, _HEIGHT, len(peaks) + 1).round(1)[:-1] if len(peaks) > 1 else np.zeros(1)
    y = np.maximum(peaks, 0.005) * _HEIGHT / 2
    above = [f"{a:g},{_HEIGHT / 2 - b:.0f}" for a, b in zip(x, y, strict=True)]
    below = [f"{a:g},{_HEIGHT / 2 + b:.0f}" for a, b in zip(x, y, strict=True)]
    return f"M{'L'.join(above + below[::-1])}Z"


def bands(segments: list[dict], task: str, seconds: float) -> list[dict]:
    """Rectangles of the probabilities over time, stacked; x, y, width and height from 0 to 1000."""
    found = []
    for number, segment in enumerate(segments):
        y = 0.0
        shades = colors(segment[task]["probabilities"])
        for label, p in segment[task]["probabilities"].items():
            x, width = (_HEIGHT * part / seconds for part in (segment["start"], segment["end"] - segment["start"]))
            sizes = {"x": x, "y": _HEIGHT * y, "width": width, "height": _HEIGHT * p}
            found.append({"segment": number, "label": label, "p": p, "color": shades[label], **sizes})
            y += p
    return found


def sound(samples: np.ndarray) -> str:
    """The samples as FLAC in base64, which every browser plays: the upload is deleted by then."""
    file = BytesIO()
    soundfile.write(file, samples, SAMPLING_RATE, format="FLAC", subtype="PCM_16")
    return b64encode(file.getvalue()).decode()
