"""Grid search: each row is trained with every setting, and the development set, never the test, selects one.

The test score is shown for the selected setting only.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import product
from math import prod
from operator import attrgetter
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import pandas as pd

from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json, write_text
from ser_mtl.metrics import METRIC, Metric
from ser_mtl.safe_text import printable
from ser_mtl.tables.plan import Run, plan
from ser_mtl.tables.rows import Row
from ser_mtl.tables.rows import Stage as RowStage

_MOST = 1000  # settings

Cell = tuple[str, ...]
"""One setting: `name=value` of each flag of the grid."""


def cells(grid: Iterable[str]) -> list[Cell]:
    """All combinations of a grid, `name=value,value` for each flag.

    Raises:
        UserError: a flag without values, or twice.
    """
    values: dict[str, list[str]] = {}
    for text in grid:
        name, _, listed = text.partition("=")
        name = name.removeprefix("--").replace("-", "_")
        values_of = listed.split(",")
        if not name or "" in values_of or len(set(map(_as_number, values_of))) < len(values_of):
            raise UserError(f"--grid {text}: must be name=value,value with different values, learning_rate=5e-5,1e-4")
        if name in values:
            raise UserError(f"--grid {text}: {name} appears twice")
        values[name] = [f"{name}={value}" for value in values_of]
    if (number := prod(map(len, values.values()))) > _MOST:
        raise UserError(f"--grid: makes {number} settings, each of which is trained; {_MOST} at most")
    return list(product(*values.values()))


def _as_number(value: str) -> float | str:
    """The number, if it is one: 1e-4 and 0.0001 are one setting."""
    try:
        return float(value)
    except ValueError:
        return value


def plan_grid(
    rows: list[Row],
    folds: Iterable[int],
    seeds: Iterable[int],
    folder: Path,
    grid: Iterable[str],
    idle_in: Callable[[RowStage], list[str]],
) -> dict[str, dict[Cell, list[Run]]]:
    """The last runs of each row, by row and setting.

    Settings share a run if they differ only in flags that do nothing in its stage or its row.

    Args:
        rows, folds, seeds, folder: as for `plan`.
        grid: as for `cells`.
        idle_in: the flags that do nothing in a stage.
    """

    def in_cell(run: Run, cell: Cell) -> Run:
        idle = idle_in(run.settings)
        own = tuple(pair for pair in cell if pair.split("=")[0] not in idle)
        made = replace(run, starts=tuple((flag, in_cell(one, cell)) for flag, one in run.starts), flags=own)
        shown = ",".join(_differing(made, cell)) or "as planned"
        return replace(made, folder=folder / shown.replace("/", "_") / run.folder.relative_to(folder))

    found: dict[str, dict[Cell, list[Run]]] = {row.id: {} for row in rows}
    for cell in cells(grid):
        for run in plan(rows, folds, seeds, folder):
            for name in run.rows:
                one = in_cell(run, cell)
                runs = found[name].setdefault(_differing(one, cell), [])
                runs += [one] if one not in runs else []
    return found


def _differing(run: Run, cell: Cell) -> Cell:
    """The part of a cell that has an effect on a run, or on one that it starts from."""
    return tuple(pair for pair in cell if any(pair in one.flags for one in (run, *run.needed())))


def runs_in(planned: dict[str, dict[Cell, list[Run]]]) -> list[Run]:
    """All runs of a grid, each once, before those that start from it."""
    last = [run for by_cell in planned.values() for runs in by_cell.values() for run in runs]
    return list(dict.fromkeys([one for run in last for one in run.needed()] + last))


class Score(NamedTuple):
    """A setting of a row: its score on the development set, and how many of its runs are finished."""

    cell: Cell
    dev: float | None
    finished: int
    runs: list[Run]


def scores_of(by_cell: dict[Cell, list[Run]], metric: Metric) -> list[Score]:
    """The mean score of each setting's finished runs, on the development set."""
    scores = []
    for cell, runs in by_cell.items():
        values = [_score(run, "dev", metric) for run in runs if run.state == "finished"]
        scores.append(Score(cell, mean(values) if values else None, len(values), runs))
    return scores


def best_of(scores: list[Score], metric: Metric) -> Score | None:
    """The best setting on the development set, the first of equals; None until the runs of all are finished."""
    if any(score.finished < len(score.runs) for score in scores):
        return None
    return (max if metric.higher_is_better else min)(scores, key=attrgetter("dev"))


def write_grid(folder: Path, planned: dict[str, dict[Cell, list[Run]]], command: str) -> str:
    """Write `grid.md`: the settings of each row with their scores on the development set, and the best one.

    Returns:
        Its text.

    Raises:
        UserError: a finished run has no score on a development set.
    """
    parts = [f"# Settings compared on the development set\n\n    {printable(command)}"]
    for row, by_cell in planned.items():
        metric = _metric_of(run for runs in by_cell.values() for run in runs)
        scores = scores_of(by_cell, metric)
        best = best_of(scores, metric)
        lines = {
            _shown(score.cell): {
                f"dev {metric.title}": "-" if score.dev is None else f"{100 * score.dev:.1f}",
                "runs": f"{score.finished} of {len(score.runs)}",
                "": "chosen" if score is best else "",
            }
            for score in scores
        }
        table = pd.DataFrame.from_dict(lines, orient="index").to_string()
        indented = "\n".join(f"    {line.rstrip()}" for line in table.splitlines())
        parts.append(f"## {row}\n\n{indented}\n\n{_conclusion(best, metric)}")
    text = "\n\n".join(parts) + "\n"
    write_text(folder / "grid.md", text)
    return text


def _conclusion(best: Score | None, metric: Metric) -> str:
    if best is None:
        return "Nothing is chosen before all runs are finished."
    test = mean(_score(run, "test", metric) for run in best.runs)
    flags = " ".join(f"--{pair.replace('=', ' ', 1)}" for pair in best.cell)
    return f"Chosen: {printable(flags) or 'as planned'}; its test {metric.title} is {100 * test:.1f}."


def _shown(cell: Cell) -> str:
    return printable(", ".join(cell)) or "as planned"


def _score(run: Run, part: str, metric: Metric) -> float:
    file = run.folder / "results.json"
    scores: dict[str, Any] = read_json(file, Results).get(part, {})
    value = scores.get("all", {}).get(metric.group, {}).get(metric.key)
    if value is None:
        raise UserError(f"{file}: has no {metric.title} on {part}, which --grid compares; train the run again")
    return value


def _metric_of(runs: Iterable[Run]) -> Metric:
    """The metric that the runs compare their epochs by; emotion's UA if they compare losses."""
    finished = next((run for run in runs if run.state == "finished"), None)
    args = read_json(finished.folder / "args.json") if finished else {}
    name = str(args.get("training", {}).get("metric_for_best_model") or "")
    return METRIC.get(name.removeprefix("eval_"), METRIC["emotion_ua"])
