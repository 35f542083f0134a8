"""Answers to files as lines of text, JSON or CSV, written as the answers come."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ser_mtl.files import json_text
from ser_mtl.safe_text import csv_line, printable

Answers = Iterable[tuple[Path, dict]]
"""Files, each with the answer of a `Recognizer`."""

NO_SPEECH = "no speech"
"""In place of labels where nobody speaks."""


def text_lines(answers: Answers, labels: dict[str, list[str]], segments: bool = False) -> Iterator[str]:
    """One line per file, for people: `clip.wav: angry 0.83, female 0.99, improvised 0.71: "it is what it is"`.

    With `segments`, another line for each: `clip.wav 3.2-7.9: angry 0.97 ...`, in seconds.
    """
    for file, answer in answers:
        yield printable(f"{file}: {text_of(answer)}")
        for segment in answer.get("segments", []) if segments else []:
            yield printable(f"{file} {segment['start']:.1f}-{segment['end']:.1f}: {text_of(segment)}")


def text_of(answer: dict) -> str:
    """The labels and values of an answer or a segment, and its words: `angry 0.83, valence 2.50: "it is"`."""
    tasks = [
        f"{task} {part['value']:.2f}" if "value" in part else f"{part['label']} {part['probability']:.2f}"
        for task, part in parts_of(answer).items()
    ]
    words = f': "{answer["transcript"]}"' if answer.get("transcript") else ""
    return (", ".join(tasks) or NO_SPEECH) + words


def parts_of(answer: dict) -> dict[str, dict]:
    """The tasks of an answer or of a segment, each with a label or a value."""
    return {task: part for task, part in answer.items() if isinstance(part, dict) and {"label", "value"} & part.keys()}


def json_lines(answers: Answers, labels: dict[str, list[str]], segments: bool = False) -> Iterator[str]:
    """One array, with an object of `file` and the answer on each line."""
    line = "["
    for answer in jsonl_lines(answers, labels):
        yield line
        line = answer + ","
    if line == "[":
        yield "[]"
    else:
        yield line.removesuffix(",")
        yield "]"


def jsonl_lines(answers: Answers, labels: dict[str, list[str]], segments: bool = False) -> Iterator[str]:
    """One object per file, on a line of its own."""
    for file, answer in answers:
        yield _escaped(json_text({"file": str(file), **answer}, indent=None).rstrip("\n"))


def csv_lines(answers: Answers, labels: dict[str, list[str]], segments: bool = False) -> Iterator[str]:
    """One row per file: duration, each task's label with all probabilities, or its value; the transcript.

    With `segments`, one row for each segment, with its start and end in place of the duration. A file without speech
    has one row.
    """
    times = ("start", "end") if segments else ("duration",)
    columns = ["file", *times]
    for task, names in labels.items():
        columns += [task, f"{task}_probability", *(f"{task}_{name}" for name in names)] if names else [task]
    yield _csv_line([*columns, "transcript"])
    for file, answer in answers:
        silence = {"start": 0.0, "end": answer["duration"]}
        for part in (answer["segments"] or [silence]) if segments else [answer]:
            seconds = (f"{part[name]:.10g}" for name in times)
            yield _csv_line([str(file), *seconds, *_cells(part, labels), part.get("transcript", "")])


def _cells(answer: dict, labels: dict[str, list[str]]) -> Iterator[str]:
    for task, names in labels.items():
        part = answer.get(task)
        if part is None:
            yield from (NO_SPEECH, "", *("" for _ in names)) if names else ("",)
        elif "value" in part:
            yield f"{part['value']:.6g}"
        else:
            yield from (part["label"], *(f"{p:.6g}" for p in (part["probability"], *part["probabilities"].values())))


def _csv_line(cells: list[str]) -> str:
    return csv_line(printable(cell, keep="\t\r\n") for cell in cells)


def _escaped(text: str) -> str:
    """JSON with escapes for characters that steer some terminals, or that UTF-8 lacks; json escapes the others."""
    return re.sub(
        "[\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text
    )


FORMATS: dict[str, Callable[..., Iterator[str]]] = {
    "text": text_lines,
    "json": json_lines,
    "jsonl": jsonl_lines,
    "csv": csv_lines,
}
