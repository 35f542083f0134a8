"""predictions.jsonl: one line per test utterance. All metrics of a run are computed from it.

A line is an object:

- `id`, `speaker`: identify the utterance.
- `emotion`, and `gender` if trained: `label` (annotated, or null), `predicted`, `probabilities` {label: p}. Emotion's
  are calibrated with the temperature in `results.json`, as those of `ser_mtl.load` and of a pipeline are.
- `style`: the same object if trained; else only the annotated label, a string or null.
- `valence`, `activation`, `dominance`, if trained: `label` (annotated, or null) and `predicted`, on the corpus's scale.
- `asr`: `reference` (normalised by `normalise_text`, or null) and `hypothesis`. A stage 2 that was not trained to
  transcribe has the hypothesis of the frozen model, with the adapters off; one that was trained to has it as
  `hypothesis_adapters_off` beside its own.
- `points`: the embedding of each task in two dimensions (`ser_mtl.evaluation.embeddings`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, NotRequired

import numpy as np
from datasets import Dataset
from pydantic import AfterValidator, Field, create_model
from typing_extensions import TypedDict

from ser_mtl.corpora.utterances import normalise_text
from ser_mtl.files import read_json_lines, write_json_lines
from ser_mtl.tasks import CLASSIFICATION_TASKS, TASKS, VALUE_TASKS

_Number = Annotated[float, Field(ge=-1e9, le=1e9)]


class Answer(TypedDict):
    """A trained task of an utterance."""

    label: str | None
    predicted: str
    probabilities: Annotated[dict[str, Annotated[float, Field(ge=0, le=1)]], Field(min_length=1)]


class ValueAnswer(TypedDict):
    """A trained value of an utterance."""

    label: _Number | None
    predicted: _Number


class Transcript(TypedDict):
    """Speech recognition of an utterance."""

    reference: str | None
    hypothesis: str
    hypothesis_adapters_off: NotRequired[str]


_Point = Annotated[list[Annotated[float, Field(ge=-1e6, le=1e6)]], Field(min_length=2, max_length=2)]
_TASKS: dict[str, Any] = {task: (Answer | None, None) for task in CLASSIFICATION_TASKS}
_TASKS |= {task: (ValueAnswer | None, None) for task in VALUE_TASKS}
_TASKS |= {
    "style": (Answer | str | None, None),
    "asr": (Transcript, {}),
    "points": (dict[str, _Point], {}),
}
Prediction: Any = create_model("Prediction", id=(str, ...), speaker=(str | None, ...), **_TASKS)
"""A line of the file."""


def _with_emotion(row: Any) -> Any:
    if row.emotion is None:
        raise ValueError("must have an emotion")
    return row


WithEmotion = Annotated[Prediction, AfterValidator(_with_emotion)]
"""A line of the file of a run that was trained for emotion."""


def prediction_rows(
    utterances: Dataset,
    labels: dict[str, list[str]],
    probabilities: dict[str, np.ndarray],
    hypotheses: list[str] | None = None,
    hypotheses_adapters_off: list[str] | None = None,
    points: list[dict[str, list[float]]] | None = None,
    values: dict[str, np.ndarray] | None = None,
) -> list[dict]:
    """Join the test utterances with a model's predictions; probabilities are not calibrated here.

    Args:
        utterances: the n test utterances, with the columns of `FEATURES`.
        labels: the classes of each task, in the order of the columns of `probabilities`.
        probabilities: for each classification task that was trained, an array (n, classes).
        hypotheses: n transcripts, if the model transcribes.
        hypotheses_adapters_off: n transcripts of the same model with its adapters switched off.
        points: the result of `ser_mtl.evaluation.embeddings.two_dimensions`.
        values: for each task that gives a value and was trained, an array (n,).

    Raises:
        ValueError: predictions and utterances differ in number.
    """
    columns = utterances.select_columns(["id", "speaker", *(task.column for task in TASKS.values())]).to_list()
    rows = [{key: utterance[key] for key in ("id", "speaker", "style")} for utterance in columns]
    for task, scores in probabilities.items():
        for row, utterance, p in zip(rows, columns, scores, strict=True):
            row[task] = {"label": utterance[TASKS[task].column], **_scored(labels[task], p)}
    for task, predicted in (values or {}).items():
        for row, utterance, value in zip(rows, columns, predicted, strict=True):
            row[task] = {"label": _short(utterance[TASKS[task].column]), "predicted": _short(value)}
    if hypotheses is not None:
        for row, utterance, hypothesis in zip(rows, columns, hypotheses, strict=True):
            row["asr"] = {"reference": normalise_text(utterance["text"] or "") or None, "hypothesis": hypothesis}
    if hypotheses_adapters_off is not None:
        for row, hypothesis in zip(rows, hypotheses_adapters_off, strict=True):
            row["asr"]["hypothesis_adapters_off"] = hypothesis
    if points is not None:
        for row, row_points in zip(rows, points, strict=True):
            row["points"] = row_points
    return rows


def write_predictions(path: str | Path, rows: list[dict]) -> None:
    """Write the rows to `path`, one JSON object per line."""
    write_json_lines(path, rows)


def read_predictions(path: str | Path, schema: Any = Prediction) -> list[dict]:
    """Read the rows that `write_predictions` wrote; each fits the schema.

    Raises:
        UserError: the file is missing or damaged.
    """
    return read_json_lines(path, schema)


def references_and_predictions(rows: list[dict]) -> tuple[list[dict], list[dict]]:
    """Split rows into the references and the predictions that `SerMtlMetric` takes, in this order."""
    references, predictions = [], []
    for row in rows:
        asr = row.get("asr", {})
        reference = {"text": asr.get("reference")}
        prediction = {
            "text": asr.get("hypothesis"),
            "text_adapters_off": asr.get("hypothesis_adapters_off"),
        }
        for task in (*CLASSIFICATION_TASKS, *VALUE_TASKS):
            answer = row.get(task)
            answer = answer if isinstance(answer, dict) else {"label": answer}  # without a head, the label alone
            reference[task] = answer["label"]
            prediction[task] = answer.get("predicted")
        references.append(reference)
        predictions.append(prediction)
    return references, predictions


def rounded(labels: Iterable[str], p: np.ndarray) -> dict[str, float]:
    """Probabilities by label with six significant digits, as many as a float32 holds.

    Rounding to decimals would turn small probabilities into zero.
    """
    return {label: float(f"{x:.6g}") for label, x in zip(labels, p, strict=True)}


def _short(value: float | None) -> float | None:
    """A value with as many digits as a float32 holds."""
    return None if value is None else float(f"{value:.7g}")


def _scored(labels: list[str], p: np.ndarray) -> dict:
    return {"predicted": labels[int(np.argmax(p))], "probabilities": rounded(labels, p)}
