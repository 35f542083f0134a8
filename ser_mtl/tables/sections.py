"""The tables of the report, each made from the finished runs; None if they lack what it needs.

Cells are plain text, and shown as it is; those of type `Markup` are Markdown.
"""

from collections.abc import Iterable
from dataclasses import astuple

import numpy as np
from markupsafe import Markup

from ser_mtl.evaluation.intervals import Counts, counts, interval, ua, wa, with_ends
from ser_mtl.metrics import METRICS, Metric
from ser_mtl.tables.agreement import model_scores, rater_scores
from ser_mtl.tables.convergence import logs_of, mark, three_quarters, unconverged
from ser_mtl.tables.finished import FinishedRow, style_of
from ser_mtl.tables.rows import NOT_REBUILT, ROWS, Paper, Protocol
from ser_mtl.tables.statistics import spread
from ser_mtl.tables.text import Table, percent, with_spread
from ser_mtl.tasks import TASKS


def papers_tables(rows: list[FinishedRow], number: int) -> list[Table]:
    """A table of the paper, ours next to the paper's: emotion, and the other tasks if there are any."""
    rows = [row for row in rows if row.row.table == number]
    shown = [metric for metric in METRICS if metric.in_summary and any(row.metrics(metric.name) for row in rows)]
    emotion = [metric for metric in shown if metric.group == "emotion"]
    others = [metric for metric in shown if metric.group != "emotion"]
    with_others = [row for row in rows if any(row.metrics(metric.name) for metric in others)]
    tables = [_compared_with_paper(rows, emotion)]
    return [*tables, _compared_with_paper(with_others, others)] if others else tables


def _compared_with_paper(rows: list[FinishedRow], metrics: list[Metric]) -> Table:
    """Our metrics; next to those that the paper reports at all, its numbers and the differences."""
    header = ["row", "trained"]
    lines: list[list[str]] = [[row.code, Markup(row.row.name + mark(row))] for row in rows]
    for metric in metrics:
        reported = any(row.paper.value(metric.name) is not None for row in ROWS)
        header += [metric.title.removeprefix("emotion "), *(["paper", "difference"] if reported else [])]
        for line, row in zip(lines, rows, strict=True):
            values, paper = row.metrics(metric.name), row.row.paper.value(metric.name)
            ours = spread(values) if values else None
            line.append(with_spread(ours) if ours else "")
            if reported:
                line.append("" if paper is None else f"{paper:.2f}")
                line.append(f"{100 * ours.mean - paper:+.1f}" if ours and paper is not None else "")
    return Table(header, lines)


def quoted_table() -> Table:
    """The scores that Table 4 quotes, and how they were obtained."""
    systems: list[tuple[str, Paper, Protocol]] = [
        (Markup(f"`{row.id}`"), row.paper, row.quoted) for row in ROWS if row.quoted
    ]
    systems += [(name, paper, quoted) for name, (paper, quoted) in NOT_REBUILT.items()]
    lines = [
        [name, *("" if value is None else f"{value:.2f}" for value in (paper.ua, paper.wa)), *astuple(quoted)]
        for name, paper, quoted in systems
    ]
    return Table(["system", "UA", "WA", "speaker-independent", "checkpoint chosen on"], lines)


def certainty_table(rows: list[FinishedRow], emotion_counts: dict[str, Counts]) -> Table:
    """Emotion of each row: its spread over folds and seeds, and all folds together with their intervals."""
    header = ["row", "folds x seeds", "UA, mean of runs", "sd over folds", "sd over seeds"]
    lines = []
    for row in rows:
        seeds = len({run.seed for run in row.runs})
        intervals = [interval(emotion_counts[row.id], metric) for metric in (ua, wa)]
        spreads = spread(row.metrics("emotion_ua"))
        lines.append([row.code, f"{len(row.folds)} x {seeds}", *map(percent, spreads), *map(with_ends, intervals)])
    return Table([*header, "UA, folds together (95 %)", "WA, folds together (95 %)"], lines)


def style_table(rows: list[FinishedRow]) -> Table | None:
    """UA and WA by speaking style, all folds together; None if utterances have no style."""
    styles = sorted({style for row in rows for run in row.runs for style in run.results["test"]} - {"all"})
    header = ["row", *(f"{style} {metric}" for style in styles for metric in ("UA (95 %)", "WA"))]
    lines = [[row.code, *(cell for style in styles for cell in _ua_and_wa(row, style))] for row in rows]
    return Table(header, lines) if styles else None


def _ua_and_wa(row: FinishedRow, style: str) -> list[str]:
    rows = [utterance for run in row.predictions(group=style) for utterance in run]
    labelled = [utterance for utterance in rows if utterance["emotion"]["label"] is not None]
    if not labelled:
        return ["", ""]
    style_counts = counts([labelled])
    return [with_ends(interval(style_counts)), percent(style_counts.overall(wa))]


def rules_table(rows: list[FinishedRow]) -> Table | None:
    """UA under each selection rule; None if no run measured the test fold after each epoch."""
    header = ["row", "runs", "dev", "last", "oracle", "oracle over dev", "oracle over last"]
    lines = []
    for row in rows:
        runs = [by_rule for run in row.runs if (by_rule := run.ua_by_rule())]
        if not runs:
            continue
        means = {rule: _mean(run.get(rule, np.nan) for run in runs) for rule in ("dev", "last", "oracle")}
        gains = [100 * (means["oracle"] - means[rule]) for rule in ("dev", "last")]
        shown = ["-" if np.isnan(gain) else f"{gain:+.1f}" for gain in gains]
        lines.append([row.code, str(len(runs)), *map(percent, means.values()), *shown])
    return Table(header, lines) if lines else None


def words_table(rows: list[dict]) -> Table | None:
    """The text-only baseline, all folds together; None if the corpus has too few transcripts."""
    lines = []
    for group in ["all", *sorted({style for row in rows if (style := style_of(row)) is not None})] if rows else []:
        group_counts = counts([[row for row in rows if group in ("all", style_of(row))]])
        intervals = [interval(group_counts, metric) for metric in (ua, wa)]
        lines.append([group, str(int(group_counts.all.sum())), *map(with_ends, intervals)])
    return Table(["utterances", "n", "UA (95 %)", "WA (95 %)"], lines) if lines else None


def line_table(rows: list[FinishedRow]) -> Table | None:
    """Each row beside the frozen encoder, means over the runs that have its line; None if no run has one."""
    lines = []
    for row in rows:
        pairs = [(ua, run.results["line"]["ua"]) for run in row.runs if "line" in run.results
                 if (ua := run.metric("emotion_ua")) is not None]  # fmt: skip
        if pairs:
            ours, frozen = np.mean(pairs, axis=0)
            below = sum(one < other for one, other in pairs)
            difference = f"{100 * (ours - frozen):+.1f}"
            lines.append([row.code, str(len(pairs)), percent(ours), percent(frozen), difference, str(below)])
    return Table(["row", "runs", "UA", "frozen encoder", "difference", "runs below it"], lines) if lines else None


def agreement_table(rows: list[FinishedRow], ceiling: dict | None) -> Table | None:
    """Each row beside a random rater, on the same utterances and references; None if the corpus has no raters."""
    if ceiling is None:
        return None
    utterances = ceiling["utterances"]
    systems = [("the corpus's label", [(name, one["label"]) for name, one in utterances.items()])]
    for row in rows:
        predicted = [one for run in row.predictions() for one in run if one["id"] in utterances]
        systems.append((row.code, [(one["id"], one["emotion"]["predicted"]) for one in predicted]))
    lines = []
    for title, answers in systems:
        rated = {name: utterances[name] for name, _ in answers}
        if rated:
            (ua, wa), (rater_ua, rater_wa) = model_scores(rated, answers), rater_scores(rated)
            lines.append([title, str(len(rated)), *map(percent, (ua, rater_ua, wa, rater_wa))])
    return Table(["answers", "utterances", "UA", "a rater's UA", "WA", "a rater's WA"], lines)


def leaks_table(rows: list[FinishedRow]) -> Table | None:
    """Share of each fold's test transcripts with a near-duplicate in training; None if it was not counted."""
    runs = [run for row in rows for run in row.runs if "leaks" in run.results]
    by_fold = {run.fold: run.results["leaks"]["near_duplicates"] for run in runs}
    groups = sorted({group for duplicates in by_fold.values() for group in duplicates})
    lines = []
    for fold, duplicates in sorted(by_fold.items()):
        counted = [duplicates.get(group) for group in groups]
        lines.append([str(fold), *(f"{percent(one['share'])} of {one['n']}" if one else "" for one in counted)])
    return Table(["fold", *groups], lines) if groups else None


def calibration_table(rows: list[FinishedRow]) -> Table | None:
    """Expected calibration error on the test, mean of the runs, and the temperature; None if it was not computed."""
    lines = []
    for row in rows:
        runs = [run.results["calibration"] for run in row.runs if "calibration" in run.results]
        if runs:
            before = _mean(run["test"]["before"] for run in runs)
            after = _mean(run["test"]["after"] for run in runs if "after" in run["test"])
            temperature = _mean(run["temperature"] for run in runs if "temperature" in run)
            shown = "-" if np.isnan(temperature) else f"{temperature:.2f}"
            lines.append([row.code, percent(before), percent(after), shown])
    return Table(["row", "ECE", "ECE with the temperature", "temperature"], lines) if lines else None


def cosines_table(rows: list[FinishedRow]) -> Table | None:
    """Cosines between the losses' gradients on the whole encoder, of all runs; None if they were not measured.

    Beside each pair, the mean cosine of each of its losses with itself on the next batch.
    """
    lines = []
    for row in rows:
        encoder = {pair: values[:, 0] for pair, values in row.cosines().items()}
        for pair, values in encoder.items():
            one, other = pair.split()
            if one != other:
                with_itself = [_mean(encoder.get(f"{loss} {loss}", [])) for loss in (one, other)]
                shown = ["-" if np.isnan(mean) else f"{mean:+.3f}" for mean in (values.mean(), *with_itself)]
                lines.append([row.code, f"{one} and {other}", str(len(values)), *shown, percent((values < 0).mean())])
    header = ["row", "losses", "measured", "mean cosine", "first with itself", "second with itself"]
    return Table([*header, "below zero, % of times"], lines) if lines else None


def norms_table(rows: list[FinishedRow]) -> Table | None:
    """Mean norm of each loss's weighted gradient on the encoder, and times emotion's; None if it was not measured."""
    norms = {row.code: {loss: values.mean() for loss, values in row.norms().items()} for row in rows}
    losses = list(dict.fromkeys(loss for by_loss in norms.values() for loss in by_loss))

    def rounded(number: float) -> str:
        return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"

    def shown(by_loss: dict[str, float], loss: str) -> str:
        if loss not in by_loss:
            return ""
        times = (
            f" ({rounded(by_loss[loss] / by_loss['emotion'])} x)" if "emotion" in by_loss and loss != "emotion" else ""
        )
        return rounded(by_loss[loss]) + times

    lines = [[code, *(shown(by_loss, loss) for loss in losses)] for code, by_loss in norms.items() if by_loss]
    return Table(["row", *losses], lines) if lines else None


def losses_table(rows: list[FinishedRow]) -> Table | None:
    """Each task's final training loss: mean and maximum over runs, and the mean at three quarters; None without any.

    The runs that rows start from come after the rows.
    """
    systems = {row.id: row.runs for row in rows}
    for row in rows:
        for name, runs in row.steps.items():
            systems.setdefault(name, runs)
    lines, tasks = [], [task.name for task in TASKS.values() if task.kind != "value"]  # no row trains values
    for name, runs in systems.items():
        if logs := logs_of(runs):
            ends = [(log[-1], three_quarters(log)) for log in logs]
            epochs = sorted({(last["epoch"], before["epoch"]) for last, before in ends})
            shown = ", ".join(f"{last:g} ({before:g})" for last, before in epochs)
            falling = unconverged(runs)
            told = "too short to tell" if falling is None else f"no: {', '.join(falling)}" if falling else "yes"
            lines.append([Markup(f"`{name}`"), shown, *(_final_loss(ends, f"loss_{task}") for task in tasks), told])
    return Table(["row", "epoch", *tasks, "converged"], lines) if lines else None


def _final_loss(ends: list[tuple[dict, dict]], name: str) -> str:
    losses = np.array([(last[name], before[name]) for last, before in ends if name in last])
    return "{:.3f} ({:.3f}) ≤ {:.3f}".format(*losses.mean(0), losses[:, 0].max()) if len(losses) else ""


def _mean(values: Iterable[float]) -> float:
    """The mean; NaN, which the tables show as "-", if there is no value or one is NaN."""
    numbers = list(values)
    return float(np.mean(numbers)) if numbers else np.nan
