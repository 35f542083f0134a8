"""The metrics in results.json as a table, for the terminal and the model card."""

import textwrap

import pandas as pd

from ser_mtl.metrics import METRICS, Metric
from ser_mtl.safe_text import printable

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
    rates = [group["wer"] for group in groups]
    if not rates or min(rates) < UNTRAINED_WER:
        return None
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
        f"Official split: {shared['utterances']} of {results['sizes']['test']} test utterances are by "
        f"{shared['speakers']} speakers of train; for people that it has not heard, expect lower scores."
    )


def percent(scores: dict, metric: Metric) -> str:
    """A metric of a group of utterances in percent; "-" if the group lacks it."""
    value = scores.get(metric.group, {}).get(metric.key)
    return "-" if value is None else f"{100 * value:.1f}"
