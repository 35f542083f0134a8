"""results.json: its schema, and its metrics as a table for the terminal and the model card."""

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
    """Near-duplicate transcripts in a group of test utterances."""

    n: Count
    share: Share


class SharedSpeakers(TypedDict, total=False):
    """Test speakers of an official split who are in train too."""

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
    """The development utterances that the temperature was fitted on."""

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


_Ends = Annotated[list[float], Field(min_length=2, max_length=2)]
Intervals = dict[Text, dict[Text, dict[Text, _Ends]]]
"""`intervals`: low and high by group of utterances, task and metric."""

Groups = Annotated[dict[Text, Scores], AfterValidator(has_all)]


class Line(TypedDict):
    """`line`: the test scores of a logistic regression on the frozen encoder."""

    ua: Share
    wa: Share
    macro_f1: Share
    n: Count
    layer: Count
    layers: Count
    C: Annotated[float, Field(gt=0, le=1e6)]
    train: Count
    chosen_on: Literal["dev", "train"]
    chosen_ua: Share
    encoder: Literal["pretrained", "stage 1"]


class Folds(TypedDict):
    """Runs beside one without a test: their names, and the mean of their metrics."""

    names: Annotated[list[Text], Field(min_length=1)]
    test: Groups


class _Results(TypedDict):
    stage: Literal[1, 2]
    fold: int | Literal["all"] | None
    seed: int
    corpus: Text
    encoder: Text
    stage1: NotRequired[Text]
    new_heads: NotRequired[list[Text]]
    tasks: Annotated[list[Text], Field(min_length=1)]
    trainable: Text
    selection: Text
    refit: NotRequired[bool]
    augment: NotRequired[list[Text]]
    research: NotRequired[Text]  # a model that `ser_mtl.load` cannot load, or a step without a test
    epoch: Amount
    stopped_at_epoch: NotRequired[Amount]
    minutes: Amount
    audio_seconds_per_second: Amount
    leaks: NotRequired[Leaks]
    calibration: NotRequired[Calibration]
    class_weights: NotRequired[dict[Text, dict[Text, Amount]]]
    line: NotRequired[Line]
    labels: NotRequired[dict[Text, list[Text]]]
    size: NotRequired[dict[Text, Amount]]
    sizes: NotRequired[dict[str, Count]]
    held_out_speakers: NotRequired[list[Text]]
    base: NotRequired[BaseOnHub]
    merged: NotRequired[bool]
    hashed_names: NotRequired[bool]
    commit: Text | None
    versions: dict[Text, Text]
    base_transcribes: NotRequired[bool]
    folds: NotRequired[Folds]
    dev: NotRequired[Groups]
    test: dict[Text, Scores]
    intervals: NotRequired[Intervals]
    speakers: NotRequired[Count]  # of the test


def _tested_unless_all(results: Any) -> Any:
    untested = results["fold"] == "all" or "research" in results
    if "all" not in results["test"] and (results["test"] or not untested):
        raise ValueError('test: must have the group "all", unless the fold is "all" too')
    return results


Results = Annotated[_Results, AfterValidator(_tested_unless_all)]
"""The content of `results.json`. Keys that only later versions write are optional."""

NO_TEST = "No test was held out (--fold all), so no score says how well the model does on new speakers."


def part_of(results: dict) -> str:
    """The part of the corpus that a run was tested on, or "all" if it was trained on everything."""
    return "all" if results["fold"] == "all" else f"fold {results['fold']}"


LINE = "frozen encoder"
"""The name of the line in tables."""

UNTRAINED_WER = 0.9
"""From this word error rate on, a model has not learned to transcribe, and the column is left out."""


def results_frame(results: dict) -> pd.DataFrame:
    """Lay out `results["test"]` with one row per group of utterances and one column per metric, all as text.

    The line, if there is one, is the last row. Metrics are percent with one decimal, or "-" where a group lacks one.
    Left out are metrics that no group has, such as those of tasks that were not trained, and word error rates if the
    model cannot transcribe (`transcription_note`).
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
    titled = [(printable(group), scores) for group, scores in groups.items()]
    if line := results.get("line"):
        titled.append((LINE, {"n": line["n"], "emotion": line}))
    rows = [{"n": str(one["n"])} | {metric.title: percent(one, metric) for metric in columns} for _, one in titled]
    return pd.DataFrame(rows, index=[title for title, _ in titled])


def results_table(results: dict) -> str:
    """Render the test metrics of `results` as plain text, 80 columns wide, with a note on what is left out.

    Without a test, the table is of the development set. The header has two lines, such as "emotion" above "UA".
    Columns beyond 80 characters continue in a second block.
    """
    if not results["test"]:
        dev = results.get("dev")
        lines = [textwrap.fill(NO_TEST, 80), *(["Development set:", results_table({"test": dev})] if dev else [])]
        return "\n\n".join(lines)
    frame = results_frame(results)
    frame.columns = pd.MultiIndex.from_tuples([title.rpartition(" ")[::2] for title in frame.columns])
    table = frame.to_string(line_width=80)
    notes = [note(results) for note in (transcription_note, shared_speakers_note, line_note)]
    return "\n\n".join([table, *(textwrap.fill(note, 80) for note in notes if note)])


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
        f"{shared['speakers']} speakers of train; expect lower scores for other speakers."
    )


def line_note(results: dict) -> str | None:
    """Sentences that explain the line, and by how much a run is below it; None if there is no line."""
    if not (line := results.get("line")):
        return None
    of = "the frozen encoder" if line["encoder"] == "pretrained" else "the encoder as stage 1 left it"
    on = "dev" if line["chosen_on"] == "dev" else "training speakers"
    note = (
        f"{LINE.capitalize()}: UA {100 * line['ua']:.1f} % by a logistic regression on {of}, on the mean of layer "
        f"{line['layer']} of {line['layers']} over time, with {line['train']} training utterances; layer and C "
        f"{line['C']:g} chosen on {on}."
    )
    return note if below_line(results) is None else f"{note} This run ends {below_line(results):.1f} points below it."


def below_line(results: dict) -> float | None:
    """Points of UA by which a run ends below its line; None if it does not."""
    ua = results.get("test", {}).get("all", {}).get("emotion", {}).get("ua")
    points = 100 * (results["line"]["ua"] - ua) if "line" in results and ua is not None else 0
    return points if points >= 0.05 else None


def percent(scores: dict, metric: Metric) -> str:
    """A metric of a group of utterances in percent; "-" if the group lacks it."""
    value = scores.get(metric.group, {}).get(metric.key)
    return "-" if value is None else f"{100 * value:.1f}"
