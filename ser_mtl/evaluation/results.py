"""results.json: what it holds, and its metrics as a table for the terminal and the model card."""

import textwrap
from typing import Annotated, Any, Literal, NotRequired, Required, TypeAlias

import pandas as pd
from pydantic import AfterValidator, Field, create_model
from typing_extensions import TypedDict

from ser_mtl.metrics import METRICS, Metric
from ser_mtl.safe_text import printable

Text = Annotated[str, Field(max_length=10_000)]
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0, le=1e12)]
Count = Annotated[int, Field(ge=0)]


def _square(emotion: Any) -> Any:
    sizes = {len(emotion.labels), len(emotion.confusion_matrix), *map(len, emotion.confusion_matrix)}
    if emotion.labels and len(sizes) > 1:
        raise ValueError("must have a confusion matrix with a row and a column for each of its labels")
    return emotion


def _scale(metric: Metric) -> Any:
    if metric.key == "ccc":
        return Annotated[float, Field(ge=-1, le=1)]
    return Amount if metric.key == "rmse" or metric.group.startswith("asr") else Share


def _scores_model() -> Any:
    """The schema of the scores of a group of utterances, from the table of metrics."""
    groups: dict[str, Any] = {}
    for group in {metric.group: None for metric in METRICS}:
        own: dict[str, Any] = {metric.key: (_scale(metric), None) for metric in METRICS if metric.group == group}
        if group == "emotion":
            own |= {"labels": (list[Text], []), "confusion_matrix": (list[list[Count]], [])}
        scores = create_model(group, **own)
        groups[group] = (Annotated[scores, AfterValidator(_square)] if group == "emotion" else scores, None)
    return create_model("Scores", n=(Count, ...), **groups)


Scores: TypeAlias = _scores_model()  # type: ignore[valid-type]


class NearDuplicates(TypedDict):
    """Of a group of test utterances."""

    n: Count
    share: Share


class SharedSpeakers(TypedDict, total=False):
    """Of an official split."""

    speakers: Count
    utterances: Required[Count]


class Leaks(TypedDict):
    """The part of `leaks` that is read."""

    near_duplicates: dict[Text, NearDuplicates]
    test_speakers_in_train: NotRequired[SharedSpeakers]


class BaseOnHub(TypedDict):
    """The base of published adapters."""

    repo_id: Text
    revision: Text


class FittedOn(TypedDict):
    """The development utterances of the temperature."""

    utterances: Count
    speakers: Count
    also_in_training: Count


class Errors(TypedDict):
    """Expected calibration error."""

    before: Share
    after: NotRequired[Share]


class Calibration(TypedDict, total=False):
    """`calibration`; empty without emotion."""

    temperature: Annotated[float, Field(gt=0, le=1e6)]
    test: Errors
    fitted_on: FittedOn


def has_all(groups: dict) -> dict:
    """Check that scores have the group of all utterances."""
    if "all" not in groups:
        raise ValueError('must have the group "all"')
    return groups


class Results(TypedDict):
    """The content of `results.json`. What only later versions write need not be there."""

    stage: Literal[1, 2]
    fold: int | Literal["all"] | None
    seed: int
    corpus: Text
    encoder: Text
    stage1: NotRequired[Text]
    tasks: Annotated[list[Text], Field(min_length=1)]
    trainable: Text
    selection: Text
    augment: NotRequired[list[Text]]
    epoch: Amount
    minutes: Amount
    audio_seconds_per_second: Amount
    leaks: NotRequired[Leaks]
    calibration: NotRequired[Calibration]
    labels: NotRequired[dict[Text, list[Text]]]
    size: NotRequired[dict[Text, Amount]]
    sizes: NotRequired[dict[str, Count]]
    held_out_speakers: NotRequired[list[Text]]
    base: NotRequired[BaseOnHub]
    merged: NotRequired[bool]
    hashed_names: NotRequired[bool]
    commit: Text | None
    versions: dict[Text, Text]
    test: Annotated[dict[Text, Scores], AfterValidator(has_all)]


UNTRAINED_WER = 0.9
"""At this word error rate or above, a model has not learned to transcribe; the column would tell the reader nothing."""


def results_frame(results: dict) -> pd.DataFrame:
    """Lay out `results["test"]` with one row per group of utterances and one column per metric, all as text.

    Metrics are percent with one decimal, or "-" where a group lacks one. Left out are metrics that no group has, such
    as those of tasks that were not trained, and word error rates if the model cannot transcribe (`transcription_note`).
    """
    groups = results["test"]
    transcribes = transcription_note(results) is None
    columns = [
        metric
        for metric in METRICS
        if metric.in_summary
        and any(metric.key in scores.get(metric.group, {}) for scores in groups.values())
        and (transcribes or metric.key != "wer")
    ]
    rows = {
        printable(group): {"n": str(scores["n"])} | {metric.title: percent(scores, metric) for metric in columns}
        for group, scores in groups.items()
    }
    return pd.DataFrame.from_dict(rows, orient="index")


def results_table(results: dict) -> str:
    """Render the test metrics of `results` as plain text, 80 columns wide, with a note on what is left out.

    The header has two lines, such as "emotion" above "UA". Columns beyond 80 characters continue in a second block.
    """
    frame = results_frame(results)
    frame.columns = pd.MultiIndex.from_tuples([title.rpartition(" ")[::2] for title in frame.columns])
    table = frame.to_string(line_width=80)
    notes = [note for note in (transcription_note(results), shared_speakers_note(results)) if note]
    return "\n\n".join([table, *(textwrap.fill(note, 80) for note in notes)])


def transcription_note(results: dict) -> str | None:
    """Why the tables leave out word error rates, as a sentence; None if they show them."""
    groups = [scores[group] for scores in results["test"].values() for group in scores if group.startswith("asr")]
    rates = [group["wer"] for group in groups if group.get("wer") is not None]
    if not rates or min(rates) < UNTRAINED_WER:
        return None
    if "part" in results:  # an evaluation on another corpus
        return f"WER is left out: the model does not transcribe this corpus (WER {100 * rates[0]:.1f} %)."
    return (
        f"WER is left out: the model has not learned to transcribe (WER {100 * rates[0]:.1f} %). That takes a "
        "pretrained encoder or longer training."
    )


def shared_speakers_note(results: dict) -> str | None:
    """How many test utterances are by speakers of train, as a sentence; None if there are none."""
    shared = results.get("leaks", {}).get("test_speakers_in_train", {})
    if not shared.get("speakers"):
        return None
    return (
        f"Official split: {shared['utterances']} of {results['test']['all']['n']} test utterances are by "
        f"{shared['speakers']} speakers of train; for people that it has not heard, expect lower scores."
    )


def percent(scores: dict, metric: Metric) -> str:
    """A metric of a group of utterances in percent; "-" if the group lacks it."""
    value = scores.get(metric.group, {}).get(metric.key)
    return "-" if value is None else f"{100 * value:.1f}"
