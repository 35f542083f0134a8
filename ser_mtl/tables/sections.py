"""The tables of the report, each made from the finished runs; None if they lack what it needs."""

import numpy as np

from ser_mtl.metrics import METRIC
from ser_mtl.tables.finished import FinishedRow, style_of
from ser_mtl.tables.rows import PAPER_METRICS
from ser_mtl.tables.statistics import Counts, counts, interval, spread, ua, wa
from ser_mtl.tables.text import Table, percent, with_ends, with_spread
from ser_mtl.tasks import TASKS


def papers_tables(rows: list[FinishedRow], number: int) -> list[Table]:
    """A table of the paper: emotion, and the other tasks if there are any, ours beside the paper's."""
    rows = [row for row in rows if row.row.table == number]
    emotion = [name for name, metric in PAPER_METRICS.items() if METRIC[metric].group == "emotion"]
    others = [name for name in PAPER_METRICS if name not in emotion and any(row.metrics(name) for row in rows)]
    with_others = [row for row in rows if any(row.metrics(name) for name in others)]
    tables = [_beside_the_paper(rows, emotion)]
    return [*tables, _beside_the_paper(with_others, others)] if others else tables


def _beside_the_paper(rows: list[FinishedRow], names: list[str]) -> Table:
    header = ["row", "trained"]
    for name in names:
        header += [METRIC[PAPER_METRICS[name]].title.removeprefix("emotion "), "paper", "difference"]
    lines = []
    for row in rows:
        line = [f"`{row.row.id}`", row.row.name]
        for name in names:
            values, paper = row.metrics(name), getattr(row.row.paper, name)
            ours = spread(values) if values else None
            line += [
                with_spread(ours) if ours else "",
                "" if paper is None else f"{paper:.2f}",
                f"{100 * ours.mean - paper:+.1f}" if ours and paper is not None else "",
            ]
        lines.append(line)
    return Table(header, lines)


def certainty_table(rows: list[FinishedRow], emotion_counts: dict[str, Counts]) -> Table:
    """Emotion of each row: its spread over folds and seeds, and all folds together with their intervals."""
    lines = []
    for row in rows:
        over = spread(row.metrics("ua"))
        pooled = [interval(emotion_counts[row.row.id], metric) for metric in (ua, wa)]
        seeds = len({run.seed for run in row.runs})
        lines.append(
            [
                f"`{row.row.id}`",
                f"{len(row.folds)} x {seeds}",
                *map(percent, over),
                *map(with_ends, pooled),
            ]
        )
    header = ["row", "folds x seeds", "UA, mean of runs", "sd over folds", "sd over seeds"]
    return Table([*header, "UA, folds together (95 %)", "WA, folds together (95 %)"], lines)


def style_table(rows: list[FinishedRow]) -> Table | None:
    """UA and WA by speaking style, all folds together; None if utterances have no style."""
    styles = sorted({style for row in rows for run in row.runs for style in run.results["test"]} - {"all"})
    if not styles:
        return None
    lines = []
    for row in rows:
        line = [f"`{row.row.id}`"]
        for style in styles:
            labelled = [one for rows_of_run in row.predictions(group=style) for one in rows_of_run
                        if one["emotion"]["label"] is not None]  # fmt: skip
            of_style = counts([labelled]) if labelled else None
            line += [with_ends(interval(of_style)), percent(of_style.overall(wa))] if of_style else ["", ""]
        lines.append(line)
    return Table(["row", *(f"{style} {metric}" for style in styles for metric in ("UA (95 %)", "WA"))], lines)


def rules_table(rows: list[FinishedRow]) -> Table | None:
    """UA under each selection rule; None if no run measured the test fold after each epoch."""
    lines = []
    for row in rows:
        measured = [by_rule for run in row.runs if (by_rule := run.ua_by_rule())]
        if not measured:
            continue
        rules = ("dev", "last", "oracle")
        means = {
            rule: float(np.mean([one[rule] for one in measured]))
            for rule in rules
            if all(rule in one for one in measured)
        }
        inflation = [f"{100 * (means['oracle'] - means[rule]):+.1f}" if rule in means else "-" for rule in rules[:2]]
        shown = [percent(means[rule]) if rule in means else "-" for rule in rules]
        lines.append([f"`{row.row.id}`", str(len(measured)), *shown, *inflation])
    header = ["row", "runs", "dev", "last", "oracle", "oracle over dev", "oracle over last"]
    return Table(header, lines) if lines else None


def words_table(rows: list[dict]) -> Table | None:
    """The text-only baseline, all folds together; None if the corpus has too few transcripts."""
    if not rows:
        return None
    lines = []
    for group in ["all", *sorted({style_of(row) for row in rows} - {None})]:
        of_group = counts([[row for row in rows if group in ("all", style_of(row))]])
        size = str(int(of_group.all.sum()))
        lines.append([group, size, with_ends(interval(of_group)), with_ends(interval(of_group, wa))])
    return Table(["utterances", "n", "UA (95 %)", "WA (95 %)"], lines)


def leaks_table(rows: list[FinishedRow]) -> Table | None:
    """Share of each fold's test transcripts with a near-duplicate in training; None if it was not counted."""
    by_fold = {run.fold: run.results["leaks"] for row in rows for run in row.runs if "leaks" in run.results}
    groups = sorted({group for leaks in by_fold.values() for group in leaks["near_duplicates"]})
    if not groups:
        return None
    lines = []
    for fold, leaks in sorted(by_fold.items()):
        found = [leaks["near_duplicates"].get(group) for group in groups]
        lines.append([str(fold), *(f"{percent(one['share'])} of {one['n']}" if one else "" for one in found)])
    return Table(["fold", *groups], lines)


def calibration_table(rows: list[FinishedRow]) -> Table | None:
    """Expected calibration error on the test, mean of the runs, and the temperature; None if it was not computed."""
    lines = []
    for row in rows:
        found = [run.results["calibration"] for run in row.runs if "calibration" in run.results]
        if found:
            after = [one["test"]["after"] for one in found if "after" in one["test"]]
            temperatures = [one["temperature"] for one in found if "temperature" in one]
            lines.append(
                [
                    f"`{row.row.id}`",
                    percent(np.mean([one["test"]["before"] for one in found])),
                    percent(np.mean(after)) if after else "-",
                    f"{np.mean(temperatures):.2f}" if temperatures else "-",
                ]
            )
    return Table(["row", "ECE", "ECE with the temperature", "temperature"], lines) if lines else None


def cosines_table(rows: list[FinishedRow]) -> Table | None:
    """Cosines between the losses' gradients on the whole encoder, of all runs; None if they were not measured."""
    lines = []
    for row in rows:
        for pair, values in row.cosines().items():
            whole = values[:, 0]
            lines.append(
                [
                    f"`{row.row.id}`",
                    " and ".join(pair.split()),
                    str(len(whole)),
                    f"{whole.mean():+.3f}",
                    percent((whole < 0).mean()),
                ]
            )
    return Table(["row", "losses", "measured", "mean cosine", "below zero, % of times"], lines) if lines else None


def losses_table(rows: list[FinishedRow]) -> Table | None:
    """Each task's training loss at the end of the runs: mean and highest, and the mean before; None without any."""
    lines = []
    for row in rows:
        by_run = [epochs for run in row.runs if (epochs := [entry for entry in run.history if "loss" in entry])]
        if by_run:
            ends = [(epochs[-1], epochs[(3 * len(epochs) - 1) // 4]) for epochs in by_run]
            lengths = sorted({(last["epoch"], before["epoch"]) for last, before in ends})
            shown = ", ".join(f"{last:g} ({before:g})" for last, before in lengths)
            lines.append([f"`{row.row.id}`", shown, *(_ended(ends, f"loss_{task}") for task in TASKS)])
    return Table(["row", "epoch", *TASKS], lines) if lines else None


def _ended(ends: list[tuple[dict, dict]], name: str) -> str:
    losses = np.array([(last[name], before[name]) for last, before in ends if name in last])
    return "{:.3f} ({:.3f}) ≤ {:.3f}".format(*losses.mean(0), losses[:, 0].max()) if len(losses) else ""
