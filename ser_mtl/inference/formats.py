"""What a model heard in files, as lines of text, JSON or CSV, written as the answers come."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from io import StringIO
from pathlib import Path

Answers = Iterable[tuple[Path, dict]]
"""Files, and for each what `ser_mtl.inference.recognizer.infer` gives."""


def as_text(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One line a file, for people: `clip.wav: angry 0.83, female 0.99, improvised 0.71: "it is what it is"`."""
    for file, answer in answers:
        heard = [answer[task] for task in labels]
        line = f"{file}: " + ", ".join(f"{part['label']} {part['probability']:.2f}" for part in heard)
        yield line + (f': "{answer["transcript"]}"' if "transcript" in answer else "")


def as_json(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One array, an object with `file` and the answer on each line."""
    line = "["
    for file, answer in answers:
        yield line
        line = json.dumps({"file": str(file), **answer}, ensure_ascii=False) + ","
    if line == "[":
        yield "[]"
    else:
        yield line.removesuffix(",")
        yield "]"


def as_csv(answers: Answers, labels: dict[str, list[str]]) -> Iterator[str]:
    """One row a file: each task's label and its probability, the probability of every label, the transcript."""
    columns = ["file"]
    for task, names in labels.items():
        columns += [task, f"{task}_probability", *(f"{task}_{name}" for name in names)]
    yield _csv_line([*columns, "transcript"])
    for file, answer in answers:
        row = [str(file)]
        for task in labels:
            part = answer[task]
            row += [part["label"], *(f"{p:.6g}" for p in (part["probability"], *part["probabilities"].values()))]
        yield _csv_line([*row, answer.get("transcript", "")])


def _csv_line(row: list[str]) -> str:
    line = StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()


FORMATS: dict[str, Callable[[Answers, dict[str, list[str]]], Iterator[str]]] = {
    "text": as_text,
    "json": as_json,
    "csv": as_csv,
}
