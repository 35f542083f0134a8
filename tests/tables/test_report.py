"""The report: its numbers equal those of the runs' json, its verdicts, and a page that needs no other file."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from helpers.finished_runs import answer, results_of, write_runs
from sklearn.metrics import recall_score

from ser_mtl.errors import UserError
from ser_mtl.evaluation.cosine_figure import mean_cosines, plot_gradient_cosines
from ser_mtl.evaluation.intervals import Interval
from ser_mtl.evaluation.predictions import write_predictions
from ser_mtl.files import read_json, read_json_lines, write_json, write_json_lines
from ser_mtl.metrics import METRICS
from ser_mtl.tables.claims import CheckedClaim, check_claims, verdict
from ser_mtl.tables.convergence import mark, unconverged
from ser_mtl.tables.figures import plot_embeddings, plot_ua
from ser_mtl.tables.finished import FinishedRow, FinishedRun, finished_rows, finished_runs
from ser_mtl.tables.plan import choose_rows, plan
from ser_mtl.tables.report import about, read_baselines, write_report
from ser_mtl.tables.rows import CLAIMS, ROWS
from ser_mtl.tables.sections import (
    calibration_table,
    cosines_table,
    leaks_table,
    line_table,
    losses_table,
    norms_table,
    papers_tables,
    rules_table,
    style_table,
)
from ser_mtl.tables.statistics import Comparison

IDS = ["t1-full-ser", "t3-concat", "t3-scl-norm", "t3-scl-cos"]  # and t1-full-ser-asr, from which three of them start
RIGHT = {"t1-full-ser": 0.5, "t1-full-ser-asr": 0.85, "t3-concat": 0.9, "t3-scl-norm": 0.6, "t3-scl-cos": 0.6}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Five folds of one seed, one row with two seeds, and a report."""
    folder = tmp_path_factory.mktemp("tables")
    runs = plan(choose_rows([], IDS, []), [1, 2, 3, 4, 5], [0], folder)
    runs += plan(choose_rows([], ["t1-full-ser"], []), [1, 2, 3, 4, 5], [1], folder)
    write_runs(runs, RIGHT, oracle=True)
    text_only = [row | {"id": f"w{i}", "emotion": answer("sad", ["happy", "sad"], 0.5, np.random.default_rng(i))}
                 for i, row in enumerate(FinishedRun(1, 0, runs[0].folder).predictions)]  # fmt: skip
    rated = {"label": "angry", "right": [["angry"], ["angry", "sad"], ["happy"]], "rater": 0.5}
    ceiling = {"ua": 0.78, "wa": 0.8, "raters": 900, "tied": 0.2, "wa_of_label": 0.82}
    ceiling["utterances"] = {"1-0-00": rated, "2-1-04": rated}
    write_json(folder / "baselines.json", {"text_only": text_only, "ceiling": ceiling})
    runs = plan(choose_rows([], [*IDS, "t2-full-full"], []), [1, 2, 3, 4, 5], [0, 1], folder)
    write_report(folder, runs, "python run_tables.py --tables 1")
    return folder


def rows_of(folder: Path) -> list[FinishedRow]:
    return finished_rows(plan(choose_rows([1, 2, 3], [], []), [1, 2, 3, 4, 5], [0, 1], folder))


def row_of(folder: Path, name: str) -> FinishedRow:
    return next(row for row in rows_of(folder) if row.row.id == name)


def line_of(folder: Path, start: str) -> list[str]:
    """Cells of the first line of the report that starts with `start`."""
    line = next(line for line in (folder / "report.md").read_text().splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_tables_show_each_metric_of_the_summary_that_runs_have(folder):
    rows = [row for row in rows_of(folder) if row.row.table == 3]
    header = [title for table in papers_tables(rows, 3) for title in table.header]
    shown = [metric for metric in METRICS if metric.in_summary and any(row.metrics(metric.name) for row in rows)]
    assert {"emotion_ua", "emotion_macro_f1", "gender_ua"} < {metric.name for metric in shown}
    assert [title for title in header if title not in ("row", "trained", "paper", "difference")] == [
        metric.title.removeprefix("emotion ") for metric in shown
    ]


def test_a_row_has_mean_spread_the_papers_number_and_the_difference(folder):
    by_fold = np.array([list(row_of(folder, "t1-full-ser").metrics("emotion_ua").values())]).reshape(2, 5).mean(axis=0)
    _, trained, ua, paper, difference, *_ = line_of(folder, "`t1-full-ser`")
    assert trained == "all parameters: SER"
    assert ua == f"{100 * by_fold.mean():.1f} ± {100 * by_fold.std(ddof=1):.1f}"
    assert (paper, difference) == ("70.88", f"{100 * by_fold.mean() - 70.88:+.1f}")


def test_other_tasks_have_their_own_table_if_trained(folder):
    emotion, others = papers_tables(rows_of(folder), 1)
    assert [cells[0] for cells in emotion.rows] == ["`t1-full-ser`", "`t1-full-ser-asr`"]
    assert [cells[0] for cells in others.rows] == ["`t1-full-ser-asr`"] and others.header[2] == "WER"
    emotion, others = papers_tables(rows_of(folder), 3)
    assert "gender UA" in others.header and "gender UA" not in emotion.header and "WER" not in others.header
    cells = dict(zip(others.header[2:], others.rows[0][2:], strict=False))
    assert cells["gender UA"].startswith(
        f"{100 * np.mean(list(row_of(folder, 't3-concat').metrics('gender_ua').values())):.1f}"
    )


def test_a_setting_is_listed_by_what_it_differs_by(tmp_path):
    runs = plan(choose_rows([], ["t2-full-full", "t2-full-adapters"], []), [1], [0], tmp_path)
    write_runs(runs, {})
    for run in runs:
        args = json.loads((run.folder / "args.json").read_text())
        args["training"] |= {"learning_rate": 5e-4 if run.settings.trainable == "adapters" else 2e-4}
        write_json(run.folder / "args.json", args)
    facts = dict(about(finished_rows(runs), finished_runs(runs)).rows)
    assert facts["utterances per update"] == "16"
    assert facts["epochs"] == "stage 1: 8.0; stage 2: 4.0"
    assert facts["learning rate"] == "adapters: 0.0005; all: 0.0002"


def test_a_setting_of_one_row_is_listed_after_those_of_the_stages(tmp_path):
    runs = plan(choose_rows([], ["t3-mtl", "t3-concat", "t3-scl-norm"], []), [1, 2], [0], tmp_path)
    write_runs(runs, {})
    for run in runs:
        args = json.loads((run.folder / "args.json").read_text())
        args["training"] |= {"num_train_epochs": 120.0} if run.name == "t3-scl-norm" else {}
        write_json(run.folder / "args.json", args)
    facts = dict(about(finished_rows(runs), finished_runs(runs)).rows)
    assert facts["epochs"] == "stage 1: 8.0; stage 2: 4.0; t3-scl-norm: 120.0"


def test_folds_together_is_the_ua_of_all_predictions(folder):
    predicted = [row["emotion"] for rows in row_of(folder, "t3-scl-cos").predictions() for row in rows]
    expected = recall_score([e["label"] for e in predicted], [e["predicted"] for e in predicted], average="macro")
    lines = (folder / "report.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| `t3-scl-cos` | 5 x 1")]
    assert line.split("|")[6].split()[0] == f"{100 * expected:.1f}"


def test_metrics_by_style_are_of_the_utterances_of_that_style(folder):
    table = style_table(rows_of(folder))
    assert table.header == ["row", "improvised UA (95 %)", "improvised WA", "scripted UA (95 %)", "scripted WA"]
    (cells,) = [cells for cells in table.rows if cells[0] == "`t3-concat`"]
    answers = [
        row["emotion"]
        for rows in row_of(folder, "t3-concat").predictions()
        for row in rows
        if row["style"] == "scripted" or (isinstance(row["style"], dict) and row["style"]["label"] == "scripted")
    ]
    assert cells[4] == f"{100 * np.mean([e['label'] == e['predicted'] for e in answers]):.1f}"


def test_the_gain_of_the_oracle_over_both_rules_is_shown(folder):
    table = rules_table(rows_of(folder))
    for cells in table.rows:
        dev, last, oracle = map(float, cells[2:5])
        assert (oracle - dev, oracle - last) == pytest.approx((5, 8), abs=0.11)
        assert cells[5:] == ["+5.0", "+8.0"]


def test_ua_by_rule_needs_measurements_of_the_test_fold(tmp_path):
    write_json(tmp_path / "results.json", some_results(tmp_path) | {"selection": "last"})
    write_json(tmp_path / "history.json", [{"epoch": 1.0, "eval_emotion_ua": 0.5}])
    assert FinishedRun(1, 0, tmp_path).ua_by_rule() is None
    tested = [{"epoch": float(e), "test_emotion_ua": ua} for e, ua in enumerate((0.4, 0.6, 0.5))]
    write_json(tmp_path / "history.json", tested)
    assert FinishedRun(1, 0, tmp_path).ua_by_rule() == {"last": 0.5, "oracle": 0.6}  # no development set
    dev = [{"epoch": float(e), "eval_emotion_ua": ua} for e, ua in enumerate((0.7, 0.7, 0.1))]
    write_json(tmp_path / "history.json", tested + dev)
    assert FinishedRun(1, 0, tmp_path).ua_by_rule()["dev"] == 0.4  # the first of the best, as the Trainer keeps it
    write_json(tmp_path / "results.json", some_results(tmp_path) | {"selection": "oracle"})
    assert FinishedRun(1, 0, tmp_path).ua_by_rule() is None


def test_a_row_that_the_paper_lacks_has_no_paper_numbers(tmp_path):
    rows = choose_rows([], ["t1-full-all", "t5-full-all-pcgrad", "t6-single", "t6-surgery-pcgrad"], [])
    runs = plan(rows, [1, 2, 3, 4, 5], [0], tmp_path)
    write_runs(runs, {"t1-full-all": 0.5, "t5-full-all-pcgrad": 0.9})
    write_report(tmp_path, runs, "python run_tables.py --tables 5")
    assert line_of(tmp_path, "`t5-full-all-pcgrad` | all parameters")[3:5] == ["", ""]
    _, ours, others, _, papers, *_ = line_of(tmp_path, "`t5-full-all-pcgrad` against")
    assert papers == "-" and float(ours) > float(others)
    text = (tmp_path / "report.md").read_text()
    assert "Not claimed by the paper:\n\n- PCGrad improves single-stage multi-task learning. **holds**" in text
    assert text.count(" against `t") == 1  # the same runs under other ids are no further test
    assert "`t6-single` | one stage of all tasks" in text


def test_planted_differences_give_their_verdicts(folder):
    by_text = {one.claim.better + " " + one.claim.worse: one for one in check_claims(rows_of(folder))}
    assert set(by_text) == {"t1-full-ser-asr t1-full-ser", "t3-scl-norm t3-concat", "t3-scl-cos t3-concat",
                            "t3-scl-cos t3-scl-norm", "t3-scl-cos t1-full-ser"}  # fmt: skip
    assert verdict(by_text["t1-full-ser-asr t1-full-ser"]).startswith("**holds**")
    assert verdict(by_text["t3-scl-cos t3-concat"]).startswith("**the opposite holds**")
    assert verdict(by_text["t3-scl-cos t3-scl-norm"]).startswith("**not shown**")
    # Holm: the smallest of five is multiplied by five.
    smallest = min(by_text.values(), key=lambda one: one.comparison.p)
    assert smallest.p == pytest.approx(5 * smallest.comparison.p)
    for one in by_text.values():
        assert f"{one.claim.text} {verdict(one)}" in (folder / "report.md").read_text()


def test_a_claim_holds_by_its_corrected_p_and_not_by_its_interval():
    comparison = Comparison(Interval(0.1, 0.01, 0.19), 0.04, 5)
    assert verdict(CheckedClaim(CLAIMS[0], comparison, 0.12, 0.9, 0.8)).startswith("**not shown**")
    assert verdict(CheckedClaim(CLAIMS[0], comparison, 0.04, 0.9, 0.8)).startswith("**holds**")


def test_a_difference_that_is_nothing_but_rounding_has_no_sign():
    comparison = Comparison(Interval(1e-17, -0.03, 0.03), 1.0, 5)
    said = verdict(CheckedClaim(CLAIMS[0], comparison, 1.0, 0.8, 0.8))
    assert said.startswith("**not shown**: there is no difference")


@pytest.mark.parametrize(
    ("folds", "said"), [([1], "**cannot be decided** with 1 fold"), ([1, 2], "**cannot"), ([1, 2, 3, 4], "**holds**")]
)
def test_fewer_than_three_folds_decide_nothing(tmp_path, folds, said):
    runs = plan(choose_rows([], ["t3-concat", "t3-scl-cos"], []), folds, [0], tmp_path)
    write_runs(runs, {"t3-scl-cos": 1.0, "t3-concat": 0.1})
    (checked,) = check_claims(finished_rows(runs))
    assert verdict(checked).startswith(said)


def test_a_single_speaker_gives_a_report(tmp_path):
    runs = plan(choose_rows([], ["t1-full-ser", "t1-full-ser-asr"], []), [1], [0], tmp_path)
    write_runs(runs, {})
    for run in runs:
        rows = [row | {"speaker": "ann"} for row in FinishedRun(1, 0, run.folder).predictions]
        write_predictions(run.folder / "predictions.jsonl", rows)
    write_report(tmp_path, runs, "")
    assert "**cannot be decided** with 1 fold" in (tmp_path / "report.md").read_text()


def test_a_style_without_labelled_utterances_has_empty_cells(tmp_path):
    runs = plan(choose_rows([], ["t1-full-ser", "t1-full-ser-asr"], []), [1], [0], tmp_path)
    write_runs(runs, {})
    rows = FinishedRun(1, 0, runs[0].folder).predictions
    for row in rows:
        if row["style"] == "scripted":
            row["emotion"]["label"] = None
    write_predictions(runs[0].folder / "predictions.jsonl", rows)
    (_, *improvised, ua, wa), (_, *others) = style_table(finished_rows(runs)).rows
    assert (ua, wa) == ("", "") and all([*improvised, *others])


def test_stage_1_of_a_row_counts_among_the_runs(tmp_path):
    runs = plan(choose_rows([], ["t4-gao-2023"], []), [1], [0], tmp_path)
    write_runs(runs, {})
    assert dict(about(finished_rows(runs), finished_runs(runs)).rows)["runs; minutes of training"] == "2; 25"


def test_no_difference_at_all_shows_nothing():
    nothing = Comparison(Interval(0.0, 0.0, 0.0), 1.0, 5)
    said = verdict(CheckedClaim(CLAIMS[0], nothing, 1.0, 0.7, 0.7))
    assert said.startswith("**not shown**: there is no difference")


def test_tasks_that_the_corpus_lacks_are_named(tmp_path):
    runs = plan(choose_rows([], ["t1-full-all"], ["style"]), [1], [0], tmp_path)
    write_runs(runs, {})
    write_report(tmp_path, runs, "")
    assert "| tasks left out of all rows | style |" in (tmp_path / "report.md").read_text()


def test_claims_are_tested_on_the_folds_that_both_rows_have(folder):
    rows = rows_of(folder)
    short = [
        FinishedRow(row.row, [run for run in row.runs if run.fold > 2]) if row.row.id == "t1-full-ser" else row
        for row in rows
    ]
    assert next(one for one in check_claims(short) if one.claim.worse == "t1-full-ser").comparison.folds == 3


def test_missing_runs_are_listed(folder):
    text = " ".join((folder / "report.md").read_text().split())
    assert "**Not complete**: `t1-full-ser-asr` has 5 of 10 runs, `t2-full-full` has 0 of 10 runs, `t3-concat`" in text
    assert "`t1-full-ser` has" not in text


def test_baselines_are_in_the_report(folder):
    assert line_of(folder, "all")[1] == "48"
    assert "UA 78.0, WA 80.0 (900 ratings)" in (folder / "report.md").read_text()


def test_rows_and_raters_are_scored_against_the_same_references(folder):
    # The label, angry, is right for two of the three ratings of both utterances.
    lines = (folder / "report.md").read_text().splitlines()
    table = lines[lines.index("## Human agreement") :]
    assert "| the corpus's label | 2 | 66.7 | 50.0 | 66.7 | 50.0 |" in table
    right = {"angry": 2 / 3, "sad": 1 / 3, "happy": 1 / 3, "neutral": 0.0}
    answers = [row["emotion"]["predicted"] for run in row_of(folder, "t3-concat").predictions() for row in run
               if row["id"] in ("1-0-00", "2-1-04")]  # fmt: skip
    wa = f"{100 * np.mean([right[answer] for answer in answers]):.1f}"
    assert f"| `t3-concat` | 2 | {wa} | 50.0 | {wa} | 50.0 |" in table


def test_baselines_of_an_earlier_version_are_refused(folder, tmp_path):
    write_json(tmp_path / "baselines.json", {"text_only": [], "ceiling": {"ua": 0.7}})
    with pytest.raises(UserError, match=r"baselines\.json: is of an earlier version"):
        read_baselines(tmp_path / "baselines.json")


def test_the_page_embeds_every_figure(folder):
    text, page = (folder / "report.md").read_text(), (folder / "report.html").read_text()
    figures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(figures) == 2 + 2 * 5  # UA, embeddings; confusion and curves of each row
    assert all((folder / figure).is_file() for figure in figures)
    assert page.count('src="data:image/png;base64,') == len(figures) == page.count("<img")
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert page.count("<table>") == len(re.findall(r"^\|---", text, re.MULTILINE))
    assert "<details>" in page and "{{" not in text and "\n\n\n" not in text


def test_another_corpus_is_stated_and_named_without_its_path(tmp_path):
    runs = plan(choose_rows([], ["t1-full-ser"], []), [1], [0], tmp_path)
    write_runs(runs, {}, corpus="folder")
    write_report(tmp_path, runs, "")
    text = (tmp_path / "report.md").read_text()
    assert "These runs are on another corpus" in text
    assert "| corpus | recordings |" in text and "some/where" not in text
    assert "None can be tested" in text
    assert "Which epoch is kept" not in text and "Text-only baseline" not in text and "Not complete" not in text


def test_runs_of_different_lengths_have_separate_curves(tmp_path):
    runs = plan(choose_rows([], ["t3-concat"], []), [1, 2, 3], [0], tmp_path)
    write_runs(runs, {})
    longer = next(run for run in runs if run.name == "t3-concat" and run.fold == 3)
    args = json.loads((longer.folder / "args.json").read_text())
    args["training"] |= {"num_train_epochs": 6.0}
    write_json(longer.folder / "args.json", args)
    write_report(tmp_path, runs, "")
    text = (tmp_path / "report.md").read_text()
    assert "| epochs | stage 1: 8.0; t3-concat: 4.0, 6.0 |" in text
    figures = re.findall(r"curves-(.*)\.png", text)
    assert figures == ["t1-full-ser-asr", "t3-concat-4-epochs", "t3-concat-6-epochs"]


def test_epochs_are_averaged_where_all_runs_have_them(tmp_path):
    logs = [
        [{"epoch": 1.0, "loss": 2.0, "loss_emotion": 1.0}, {"epoch": 1.0, "eval_emotion_ua": 0.5}],
        [{"epoch": 1.0, "loss": 4.0}, {"epoch": 1.0, "eval_emotion_ua": 0.7}, {"epoch": 2.0, "loss": 1.0}],
    ]
    runs = []
    for fold, log in enumerate(logs, 1):
        write_json(tmp_path / str(fold) / "history.json", log)
        runs.append(FinishedRun(fold, 0, tmp_path / str(fold)))
    (mean,) = FinishedRow(ROWS[0], runs).mean_history()
    assert mean == pytest.approx({"epoch": 1.0, "loss": 3.0, "eval_emotion_ua": 0.6})


def test_losses_are_those_at_the_end_and_at_three_quarters_of_each_run(tmp_path):
    for fold, ctc in ((1, [9.0, 5.0, 1.0, 0.2]), (2, [9.0, 6.0, 5.0, 4.0, 3.0, 3.0, 1.0, 0.4])):
        log = [{"epoch": e, "loss": 1.0, "loss_emotion": 0.02 * e, "loss_asr": loss} for e, loss in enumerate(ctc, 1)]
        write_json(tmp_path / str(fold) / "history.json", [*log, {"epoch": len(ctc), "train_loss": 2.0}])
    table = losses_table([FinishedRow(ROWS[1], [FinishedRun(fold, 0, tmp_path / str(fold)) for fold in (1, 2)])])
    assert table.header == ["row", "epoch", "emotion", "gender", "style", "asr", "converged"]
    losses = {"emotion": "0.120 (0.090) ≤ 0.160", "asr": "0.300 (2.000) ≤ 0.400", "converged": "no: asr"}
    assert table.rows == [["`t1-adapters-ser-asr`", "4 (3), 8 (6)", *(losses.get(one, "") for one in table.header[2:])]]
    write_json(tmp_path / "1" / "history.json", [{"epoch": 1, "train_loss": 2.0}])
    assert losses_table([FinishedRow(ROWS[1], [FinishedRun(1, 0, tmp_path / "1")])]) is None


@pytest.mark.parametrize(
    ("losses", "found", "marked"),
    [
        ([1.0, 0.5, 0.2, 0.15, 0.1, 0.08, 0.06, 0.05], [], ""),  # the last quarter has 3 of 95 hundredths
        ([1.0, 0.8, 0.6, 0.4, 0.3, 0.25, 0.2, 0.19], ["emotion"], " (**not converged**: emotion)"),  # 6 of 81
        ([2.8, 2.79, 2.78, 2.77, 2.76, 2.75, 2.74, 2.73], ["emotion"], " (**not converged**: emotion)"),
        ([0.5] * 8, [], ""),
        ([1.0, 0.1, 0.0], None, ""),  # three epochs cannot tell
    ],
)
def test_a_row_whose_loss_still_falls_at_the_end_is_marked(tmp_path, losses, found, marked):
    log = [{"epoch": epoch, "loss": 1.0, "loss_emotion": loss} for epoch, loss in enumerate(losses, 1)]
    write_json(tmp_path / "history.json", log)
    row = FinishedRow(ROWS[0], [FinishedRun(1, 0, tmp_path)])
    assert (unconverged(row.runs), mark(row)) == (found, marked)


def test_a_row_is_marked_for_the_runs_that_it_starts_from(tmp_path):
    runs = plan(choose_rows([], ["t4-chen-ptapt"], []), [1, 2], [0], tmp_path)
    write_runs([run for run in runs if run.settings.tasks], {})
    falling = [{"epoch": e, "loss": 8.0 - e} for e in range(8)]
    for run in runs:
        if run.name == "t4-chen-ptapt-units":
            write_json(run.folder / "history.json", falling)
            write_json(run.folder / "results.json", {})
        if run.name == "t4-chen-ptapt-frames":
            write_json(run.folder / "history.json", [one | {"loss_emotion": one["loss"]} for one in falling])
    (row,) = finished_rows(runs)
    assert mark(row) == " (**not converged**: t4-chen-ptapt-frames: emotion; t4-chen-ptapt-units: loss)"
    lines = {line[0]: line[-1] for line in losses_table([row]).rows}
    assert lines == {"`t4-chen-ptapt`": "yes", "`t4-chen-ptapt-frames`": "no: emotion",
                     "`t4-chen-ptapt-units`": "no: loss"}  # fmt: skip


def some_results(folder: Path) -> dict:
    """The content of the results.json of a run."""
    run = plan([ROWS[6]], [1], [0], folder)[0]
    return results_of(run, "demo", {"all": {"n": 0}})


def row_with(folder: Path, results: list[dict], cosines: dict | None = None) -> FinishedRow:
    for fold, result in enumerate(results, 1):
        write_json(folder / str(fold) / "results.json", some_results(folder) | result)
        if cosines:
            write_json(folder / str(fold) / "gradient_cosines.json", cosines)
    return FinishedRow(ROWS[6], [FinishedRun(fold, 0, folder / str(fold)) for fold in range(1, len(results) + 1)])


def test_leaks_and_calibration_are_shown_if_measured(tmp_path):
    leaks = {"near_duplicates": {"all": {"n": 50, "share": 0.3}, "scripted": {"n": 20, "share": 0.6}}}
    calibration = {"bins": 15, "temperature": 1.5, "test": {"before": 0.1, "after": 0.04}}
    without_dev = {"bins": 15, "test": {"before": 0.2}}
    row = row_with(tmp_path, [{"leaks": leaks, "calibration": calibration}, {"calibration": without_dev}])
    assert leaks_table([row]).header == ["fold", "all", "scripted"]
    assert leaks_table([row]).rows == [["1", "30.0 of 50", "60.0 of 20"]]
    assert calibration_table([row]).rows == [["`t1-full-all`", "15.0", "4.0", "1.50"]]
    nothing = row_with(tmp_path / "none", [{}])
    assert leaks_table([nothing]) is calibration_table([nothing]) is None


def test_each_row_stands_beside_the_frozen_encoder_on_the_same_runs(tmp_path):
    line = {"wa": 0.5, "macro_f1": 0.5, "n": 9, "layer": 3, "layers": 6, "C": 0.1, "train": 90, "chosen_on": "dev"}
    line |= {"chosen_ua": 0.8, "encoder": "pretrained"}
    scores = [(0.75, 0.6), (0.65, 0.7), (0.9, None), (0.7, 0.5)]
    results = [
        {"test": {"all": {"n": 9, "emotion": {"ua": ua}}}} | ({"line": line | {"ua": frozen}} if frozen else {})
        for ua, frozen in scores
    ]
    table = line_table([row_with(tmp_path, results)])
    assert table.rows == [["`t1-full-all`", "3", "70.0", "60.0", "+10.0", "1"]]
    assert line_table([row_with(tmp_path / "none", [{}])]) is None


def test_cosines_are_averaged_over_all_measurements_that_have_one(tmp_path):
    measured = [{"cosines": {"emotion asr": [-0.2, -0.4, 0.0]}}, {"cosines": {"emotion asr": [0.1, 0.2, 0.0]}}]
    measured[0]["cosines"] |= {"emotion emotion": [0.1, 0.0, 0.0], "asr asr": [None] * 3}
    measured.append({"cosines": {"emotion asr": [None, None, None]}})
    measured = [{"update": 0, "epoch": 0.0} | one for one in measured]
    groups = ["encoder", "layer 1", "layer 2"]
    row = row_with(tmp_path, [{}, {}], {"seconds": 1.0, "groups": groups, "measurements": measured})
    assert cosines_table([row]).rows == [["`t1-full-all`", "emotion and asr", "4", "-0.050", "+0.100", "-", "50.0"]]
    assert cosines_table([row_with(tmp_path / "none", [{}])]) is norms_table([row]) is None


def test_norms_are_means_beside_that_of_emotion(tmp_path):
    norms = [{"emotion": [0.2, 0.1], "asr": [10.0, 1.0]}, {"emotion": [0.4, 0.1], "asr": [0.0, 0.0]}]  # no transcripts
    measured = [{"update": 0, "epoch": 0.0, "cosines": {"emotion asr": [None] * 2}, "norms": one} for one in norms]
    row = row_with(tmp_path, [{}], {"seconds": 1.0, "groups": ["encoder", "layer 1"], "measurements": measured})
    assert norms_table([row]).header == ["row", "emotion", "asr"]
    assert norms_table([row]).rows == [["`t1-full-all`", "0.3", "10 (33 x)"]]


@pytest.mark.parametrize(
    ("file", "change", "named"),
    [
        (
            "results.json",
            lambda content: content["test"]["all"]["emotion"].update(labels=["a", "b", "c", "d"]),
            "need the same",
        ),
        ("results.json", lambda content: content["test"]["all"].pop("emotion"), "no labels"),
        ("predictions.jsonl", lambda rows: rows.clear(), "no utterance with an emotion label"),
        ("predictions.jsonl", lambda rows: rows[0].update(id="another"), "t1-full-ser-asr, t1-full-ser"),
    ],
)
def test_runs_that_do_not_go_together_are_one_line(tmp_path, file, change, named):
    runs = plan(choose_rows([], ["t1-full-ser", "t1-full-ser-asr"], []), [1, 2, 3], [0], tmp_path)
    write_runs(runs, {})
    path = next(run.folder for run in runs if run.name == "t1-full-ser") / file
    content = read_json(path) if file == "results.json" else read_json_lines(path)
    change(content)
    write_json(path, content) if file == "results.json" else write_json_lines(path, content)
    with pytest.raises(UserError, match=named):
        write_report(tmp_path, runs, "python run_tables.py")
    assert not (tmp_path / "report.md").exists()


# --------------------------------------------------------------------------------------------------------- figures


def test_the_figure_of_ua_shows_each_row_its_interval_and_the_paper(tmp_path):
    intervals = {"one": Interval(0.7, 0.6, 0.75), "two": Interval(0.5, np.nan, np.nan)}
    titles = {"one": "all parameters", "two": "adapters"}
    axes = plot_ua(intervals, tmp_path / "ua.png", titles, {"one": 71.0, "two": 52.0}, {"words": 0.55}).axes[0]
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights["all parameters"] == heights["one"] < heights["adapters"] == heights["two"]
    ends = axes.containers[0].lines[2][0].get_segments()[0]
    assert sorted(x for x, _ in ends) == pytest.approx([60, 75])
    assert {y for _, y in ends} == {heights["one"]}
    drawn = {line.get_label(): list(line.get_xdata()) for line in axes.get_lines()}
    assert drawn["the paper"] == [71, 52] and drawn["words"] == pytest.approx([55, 55])
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # from top to bottom


def test_a_baseline_off_the_scale_is_named_and_does_not_stretch_it(tmp_path):
    intervals = {"one": Interval(0.8, 0.75, 0.85), "two": Interval(0.82, 0.78, 0.86)}
    titles = {"one": "1", "two": "2"}
    alone = plot_ua(intervals, tmp_path / "ua.png", titles, {}).axes[0]
    axes = plot_ua(intervals, tmp_path / "ua.png", titles, {}, {"words": 0.25, "people": 0.95}).axes[0]
    assert axes.get_xlim() == alone.get_xlim()
    assert 70 < axes.get_xlim()[0] < 75 and 86 < axes.get_xlim()[1] < 90
    assert axes.get_title(loc="left") == "◀ words: 25.0" and axes.get_title(loc="right") == "people: 95.0 ▶"
    assert not {"words", "people"} & {line.get_label() for line in axes.get_lines()}


def test_embeddings_are_drawn_by_task_with_markers_of_their_own(tmp_path):
    points = [{"emotion": [0, 1], "gender": [1, 0]}, {"emotion": [0.5, 1], "gender": [1, 0.5]}]
    figure = plot_embeddings({"without": points, "with": points}, tmp_path / "points.png")
    for axes in figure.axes:
        emotion, gender = axes.get_lines()
        assert list(emotion.get_xdata()) == [0, 0.5] and list(gender.get_ydata()) == [0, 0.5]
        assert emotion.get_marker() != gender.get_marker()
        assert emotion.get_markersize() < gender.get_markersize()  # seen inside one another


def test_each_panel_of_embeddings_fits_its_points(tmp_path):
    random = np.random.default_rng(0)
    wide, narrow = ([{"emotion": list(scale * random.normal(size=2))} for _ in range(400)] for scale in (1.0, 0.01))
    figure = plot_embeddings({"wide": wide, "narrow": narrow}, tmp_path / "points.png")
    for axes in figure.axes:
        (drawn,) = axes.get_lines()
        assert len(drawn.get_xdata()) == 150
        assert np.ptp(axes.get_ylim()) < 2 * np.ptp(drawn.get_ydata())
    again = plot_embeddings({"wide": wide, "narrow": narrow}, tmp_path / "again.png")
    assert np.array_equal(again.axes[0].get_lines()[0].get_xydata(), figure.axes[0].get_lines()[0].get_xydata())


def test_cosines_are_means_over_runs_by_epoch_and_by_layer():
    def measured(epoch: float, values: list[float | None]) -> dict:
        return {"epoch": epoch, "cosines": {"emotion asr": [*values, 0.9], "emotion scl": [None] * 4}}

    one_run = [measured(0.0, [0.1, 0.2, 0.6]), measured(1.4, [None, None, None])]
    another = [measured(0.9, [0.3, 0.4, 0.0]), measured(2.0, [-0.4, 0.0, -0.3])]
    by_epoch, by_layer = mean_cosines(["encoder", "layer 1", "layer 2", "other"], one_run + another)
    epochs, values = by_epoch["emotion asr"]
    assert list(epochs) == [1, 3] and list(values) == pytest.approx([0.2, -0.4])
    layers, values = by_layer["emotion asr"]
    assert list(layers) == [1, 2] and list(values) == pytest.approx([0.2, 0.1])
    assert len(by_epoch["emotion scl"][0]) == 0 and np.isnan(by_layer["emotion scl"][1]).all()


def test_a_pair_of_losses_looks_the_same_in_each_panel_of_cosines(tmp_path):
    def lines(**values: list[float]) -> dict:
        return {name.replace("_", " "): (np.arange(1, len(y) + 1), y) for name, y in values.items()}

    figure = plot_gradient_cosines(
        {
            "single": (lines(emotion_asr=[0.1], emotion_gender=[0.2]), lines(emotion_asr=[0.1, 0.2])),
            "first": (lines(asr_emotion=[0.5]), lines(asr_emotion=[0.3, 0.4])),
        },
        tmp_path / "cosines.png",
    )
    over_epochs, _, other_epochs, over_layers = figure.axes
    assert [line.get_label() for line in over_epochs.get_lines()[:2]] == ["emotion and ASR", "emotion and gender"]
    looks = [(line.get_color(), line.get_marker(), line.get_linestyle()) for line in over_epochs.get_lines()[:2]]
    for axes, expected in ((other_epochs, [0.5]), (over_layers, [0.3, 0.4])):
        (same,) = axes.get_lines()[:1]
        assert (same.get_color(), same.get_marker(), same.get_linestyle()) == looks[0] != looks[1]
        assert list(same.get_ydata()) == expected
    assert (tmp_path / "cosines.png").is_file()
