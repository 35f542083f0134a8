"""Answers to files as lines of text, JSON or CSV, written as the answers come."""

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ser_mtl.files import json_text
from ser_mtl.safe_text import csv_line, printable

Answers = Iterable[tuple[Path, dict]]
"""Files, each with the answer of a `Recognizer`."""


def text_lines(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One line per file, for people: `clip.wav: angry 0.83, female 0.99, improvised 0.71: "it is what it is"`."""
    for file, answer in answers:
        line = f"{file}: " + ", ".join(_in_words(task, answer[task]) for task in labels)
        yield printable(line + (f': "{answer["transcript"]}"' if answer.get("transcript") else ""))


def _in_words(task: str, part: dict) -> str:
    """The answer of a task: its label and the probability, or its name and the value."""
    return f"{task} {part['value']:.2f}" if "value" in part else f"{part['label']} {part['probability']:.2f}"


def json_lines(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One array, with an object of `file` and the answer on each line."""
    line = "["
    for file, answer in answers:
        yield line
        line = _escaped(json_text({"file": str(file), **answer}, indent=None).rstrip("\n")) + ","
    if line == "[":
        yield "[]"
    else:
        yield line.removesuffix(",")
        yield "]"


def csv_lines(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One row per file: duration, each task's label with all probabilities, or its value; the transcript."""
    columns = ["file", "duration"]
    for task, names in labels.items():
        columns += [task, f"{task}_probability", *(f"{task}_{name}" for name in names)] if names else [task]
    yield _csv_line([*columns, "transcript"])
    for file, answer in answers:
        row = [str(file), f"{answer['duration']:g}"]
        for task in labels:
            part = answer[task]
            if "value" in part:
                row.append(f"{part['value']:.6g}")
                continue
            row += [part["label"], *(f"{p:.6g}" for p in (part["probability"], *part["probabilities"].values()))]
        yield _csv_line([*row, answer.get("transcript", "")])


def _csv_line(cells: list[str]) -> str:
    return csv_line(printable(cell, keep="\t\r\n") for cell in cells)


def _escaped(text: str) -> str:
    """JSON without the characters that steer some terminals or that UTF-8 lacks; json escapes the others itself."""
    return re.sub("[\x7f-\x9f\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)


FORMATS: dict[str, Callable[[Answers, dict[str, list[str]]], Iterator[str]]] = {
    "text": text_lines,
    "json": json_lines,
    "csv": csv_lines,
}
