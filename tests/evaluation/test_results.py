"""The table of a run: percent, 80 columns, every metric of the summary, and no WER that says nothing."""

import re
from copy import deepcopy

import pytest

from ser_mtl.evaluation.results import UNTRAINED_WER, results_frame, results_table
from ser_mtl.evaluation.scores import SerMtlMetric, metrics_by_group
from ser_mtl.metrics import METRICS
from ser_mtl.tasks import VALUE_TASKS

LABELS = {"emotion": ["happy", "sad"], "gender": ["female", "male"], "style": ["improvised", "scripted"]}
NOTE = "WER is left out: the model has not learned to transcribe (WER 100.0 %)."


def results(*groups: str, wer: float = 0.2) -> dict:
    """Results with every metric, each of another value."""
    scores: dict = {}
    for number, metric in enumerate(METRICS):
        scores.setdefault(metric.group, {})[metric.key] = wer if metric.key == "wer" else number / 100
    return {"test": {group: {"n": 12345} | deepcopy(scores) for group in groups}}


def test_scores_are_percent_and_a_dash_without_a_value():
    references = [{"emotion": "sad", "style": "scripted", "text": "a b c"}, {"emotion": "sad"}]
    predictions = [{"emotion": "sad", "text": "a b"}, {"emotion": "happy", "text": "x"}]
    metric = SerMtlMetric(LABELS)
    frame = results_frame({"test": metrics_by_group(metric, predictions, references)})
    shown = ["n", "emotion UA", "emotion WA", "emotion F1", "WER"]
    assert list(frame) == shown, "tasks without predictions have no column"
    assert frame.loc["all", shown].to_list() == ["2", "50.0", "50.0", "33.3", "33.3"]
    assert frame.loc["scripted", shown].to_list() == ["1", "100.0", "100.0", "100.0", "33.3"]
    references[0]["gender"], predictions[0]["gender"] = "male", "male"
    references[1]["style"] = "improvised"
    frame = results_frame({"test": metrics_by_group(metric, predictions, references)})
    assert frame["gender UA"].to_dict() == {"all": "100.0", "improvised": "-", "scripted": "100.0"}
    predictions[0]["text_adapters_off"] = "a b c"
    frame = results_frame({"test": metrics_by_group(metric, predictions, references)})
    assert frame["WER, adapters off"].to_list() == ["0.0", "-", "0.0"]


def blocks_of(table: str) -> list[list[str]]:
    """The lines of a table, apart where it goes on below itself."""
    return [block.split("\n") for block in table.replace("\\", " ").split("\n\n")]


@pytest.mark.parametrize("style", ["improvised", "a speaking style with a very long name"])
def test_the_table_has_80_columns_and_is_aligned_to_the_right(style):
    everything = results("all", style)
    blocks = blocks_of(results_table(everything))
    for block in blocks:
        header, *rows = ([word.end() for word in re.finditer(r"\S+", line)] for line in block[1:])
        assert max(map(len, block)) <= 80 and len(rows) == 2
        assert rows[0][1:] == header == rows[1][-len(header) :]
    shown = [word for block in blocks for word in block[2].split()[1:]]
    assert shown == results_frame(everything).loc["all"].to_list()


def test_the_table_of_a_run_without_adapters_is_one_block():
    everything = results("all", "improvised", "scripted")
    for scores in everything["test"].values():
        for group in ("asr_adapters_off", *VALUE_TASKS):
            del scores[group]
    (block,) = blocks_of(results_table(everything))
    header = [line.split() for line in block[:2]]
    assert header[0][0] == "emotion" and header[1][:3] == ["n", "UA", "WA"] and header[1][-1] == "WER"


def test_each_metric_of_the_summary_is_a_column():
    everything = results("all")
    frame = results_frame(everything)
    summary = [metric for metric in METRICS if metric.in_summary]
    assert list(frame.columns) == ["n", *(metric.title for metric in summary)]
    for metric in summary:
        value = everything["test"]["all"][metric.group][metric.key]
        assert frame.loc["all", metric.title] == f"{100 * value:.1f}"


@pytest.mark.parametrize(("wer", "left_out"), [(UNTRAINED_WER - 0.001, False), (UNTRAINED_WER, True), (1.0, True)])
def test_a_wer_that_says_nothing_is_left_out_with_the_reason(wer, left_out):
    frame, table = results_frame(results("all", "scripted", wer=wer)), results_table(results("all", wer=wer))
    assert [title for title in frame if "WER" in title] == ([] if left_out else ["WER", "WER, adapters off"])
    assert ("WER is left out" in table) is left_out and max(map(len, table.splitlines())) <= 80
    if wer == 1:
        assert " ".join(table.split("\n\n")[-1].split()).startswith(NOTE)


def test_one_group_with_a_wer_is_enough_for_the_column():
    both = results("all", wer=1.0)
    both["test"]["scripted"] = results("all", wer=0.5)["test"]["all"]
    assert results_frame(both)["WER"].to_list() == ["100.0", "50.0"] and "left out" not in results_table(both)


def test_a_run_without_transcripts_has_nothing_to_leave_out():
    lines = results_table({"test": {"all": {"n": 2, "emotion": {"ua": 0.5, "wa": 0.5, "macro_f1": 0.5}}}}).splitlines()
    assert len(lines) == 3 and lines[2].split() == ["all", "2", "50.0", "50.0", "50.0"]
