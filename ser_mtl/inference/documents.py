"""The segments of one recording as subtitles (SubRip, WebVTT) or as a TextGrid of Praat."""

import html
import textwrap
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from praatio.textgrid import IntervalTier, Textgrid
from pysubs2 import SSAEvent, SSAFile

from ser_mtl.files import writing
from ser_mtl.inference.formats import parts_of
from ser_mtl.safe_text import printable

_LINE = 42  # characters of a line of subtitles, the broadcasters' limit


def srt(answer: dict) -> str:
    """SubRip subtitles: each segment's labels and values, then its words: `[angry, valence 2.50] it is what it is`."""
    return _subtitles(answer, str).to_string("srt", keep_ssa_tags=True)


def vtt(answer: dict) -> str:
    """WebVTT subtitles, as `srt`."""
    return _subtitles(answer, html.escape).to_string("vtt", keep_ssa_tags=True)


def _subtitles(answer: dict, escaped: Callable[[str], str]) -> SSAFile:
    subtitles = SSAFile()
    for segment in answer["segments"]:
        labels = [f"{task} {text}" if "value" in segment[task] else text for task, text in _labels(segment).items()]
        text = f"[{', '.join(labels)}] {segment.get('transcript', '')}"
        # A backslash would begin a code of pysubs2, and an empty line or an arrow end the text.
        text = printable(text).replace("\\", "/").replace("-->", "->")
        lines = textwrap.wrap(" ".join(text.split()), _LINE)
        times = {name: round(1000 * segment[name]) for name in ("start", "end")}
        subtitles.append(SSAEvent(**times, text="\\N".join(map(escaped, lines))))
    return subtitles


def textgrid(answer: dict) -> str:
    """A tier of intervals for each task, and one of the transcripts. Where nobody speaks, they are empty."""
    duration, segments = answer["duration"], answer["segments"]
    tiers: dict[str, list] = {}
    for segment in segments:
        texts = _labels(segment) | ({"transcript": segment["transcript"]} if "transcript" in segment else {})
        for name, text in texts.items():
            tiers.setdefault(name, []).append((segment["start"], min(segment["end"], duration), printable(text)))
    grid = Textgrid(0, duration)
    for name, intervals in (tiers or {"emotion": []}).items():
        grid.addTier(IntervalTier(name, intervals, 0, duration))
    with TemporaryDirectory() as folder, writing(Path(folder)):  # praatio only writes to files
        file = Path(folder, "a.TextGrid")
        grid.save(str(file), "long_textgrid", includeBlankSpaces=True)
        return file.read_text(encoding="utf-8")


def _labels(segment: dict) -> dict[str, str]:
    return {
        task: part["label"] if "label" in part else f"{part['value']:.2f}" for task, part in parts_of(segment).items()
    }


DOCUMENTS: dict[str, Callable[[dict], str]] = {"srt": srt, "vtt": vtt, "textgrid": textgrid}
"""Formats with one file per recording."""
