"""From rows to runs: the trainings the rows need for each fold and seed, their folders, and their state."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean, mode
from typing import Annotated

import pandas as pd
from pydantic import Field
from typing_extensions import TypedDict

from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import Amount
from ser_mtl.files import read_json
from ser_mtl.tables.rows import ROWS, Before, Row, Stage


class Training(TypedDict):
    """The part of `args.json` on training, as far as it is read here."""

    num_train_epochs: Annotated[float, Field(gt=0, le=1e6)]


class _Record(TypedDict):
    training: Training


class _Results(TypedDict):
    minutes: Amount


@dataclass(frozen=True)
class Run:
    """One training. Its folder is <folder of the tables>/seed<s>/fold<n>/<name>, with its log beside it."""

    name: str
    stage: int
    settings: Stage
    fold: int
    seed: int
    folder: Path
    starts: "tuple[tuple[str, Run], ...]" = ()  # flags, and the runs whose folders they name
    flags: tuple[str, ...] = ()  # of its cell of a grid, `name=value`
    rows: tuple[str, ...] = field(default=(), compare=False)  # the rows asked for that have its metrics

    def needed(self) -> "list[Run]":
        """The runs that it starts from, directly or indirectly, each after those that it needs itself."""
        return list(dict.fromkeys(one for _, start in self.starts for one in (*start.needed(), start)))

    @property
    def log(self) -> Path:
        """Its log, beside its folder, which holds only the run's own files."""
        return self.folder.with_name(f"{self.name}.log")

    @property
    def state(self) -> str:
        """finished, interrupted, or to do."""
        if (self.folder / "results.json").is_file():
            return "finished"
        return "interrupted" if (self.folder / "args.json").is_file() else "to do"

    def results(self) -> dict:
        """The `results.json` of a finished run."""
        return read_json(self.folder / "results.json", _Results)

    def epochs(self) -> float:
        """Its number of epochs, from its `args.json`."""
        return read_json(self.folder / "args.json", _Record)["training"]["num_train_epochs"]


def choose_rows(tables: list[int], ids: list[str], leave_out: list[str]) -> list[Row]:
    """The rows of these tables and ids, in the order of the paper, without the tasks to leave out.

    Raises:
        UserError: no such row, a row that needs one of these tasks, or two rows that would be the same without them.
    """
    if unknown := sorted(set(ids) - {row.id for row in ROWS}):
        raise UserError(f"--rows {unknown[0]}: no such row; there are {', '.join(row.id for row in ROWS)}")
    chosen: list[Row] = []
    twins: dict[tuple, Row] = {}
    for whole in ROWS:
        if whole.table in tables or whole.id in ids:
            if needed := set(whole.needs.split()) & set(leave_out):
                raise UserError(f"--leave_out {min(needed)}: {whole.id} needs that task; name --rows without it")
            row = whole.without(leave_out)
            twin = twins.setdefault((row.stage1, row.stage2), row)
            wrong = f"is then the same as {twin.id}" if twin.run != row.run else ""
            if any(before.tasks and not now.tasks for before, now in zip(whole.stages(), row.stages(), strict=True)):
                wrong = "has then a stage without a task"
            if wrong:
                raise UserError(f"--leave_out {' '.join(leave_out)}: {row.id} {wrong}; name --rows without it")
            chosen.append(row)
    return chosen


def plan(rows: Iterable[Row], folds: Iterable[int], seeds: Iterable[int], folder: Path) -> list[Run]:
    """The runs that these rows need, each once, before those that start from it."""
    runs: dict[tuple, Run] = {}
    rows = list(rows)
    for seed in seeds:
        for fold in folds:
            for row in rows:
                for run in runs_of(row, fold, seed, folder):
                    known = runs.setdefault((run.name, fold, seed), run)
                    if more := [name for name in run.rows if name not in known.rows]:
                        runs[run.name, fold, seed] = replace(known, rows=(*known.rows, *more))
    return list(runs.values())


def runs_of(row: Row, fold: int, seed: int, folder: Path) -> list[Run]:
    """The runs of a row, each after those that it starts from; the last one gives the row's metrics."""
    place = Path(folder) / f"seed{seed}" / f"fold{fold}"

    def run(name: str, number: int, stage: Stage, before: Iterable[Before]) -> Run:
        starts = tuple((one.flag, run(_name_of(one), 1, one.stage, one.stage.before)) for one in before)
        return Run(name, number, stage, fold, seed, place / name, starts)

    last = run(row.run, 2 if row.stage2 else 1, row.last, row.runs_before())
    return [*last.needed(), replace(last, rows=(row.id,))]


def _name_of(before: Before) -> str:
    """The id of the row that consists of this stage alone, if there is one; else the run's own name."""
    same = (candidate.id for candidate in ROWS if candidate.stage2 is None and candidate.stage1 == before.stage)
    return next(same, before.name)


def minutes_of(run: Run, finished: list[tuple[Run, dict]]) -> float | None:
    """The expected minutes of a run, from finished ones; None while no similar run is finished.

    Epochs, and minutes per epoch, are those of runs of the same name, else of the same kind, else of the same stage.

    Args:
        run: a run, finished or not.
        finished: finished runs, each with its `results.json` and its `epochs`.
    """
    same_stage = [(one, results) for one, results in finished if _what_runs(one) == _what_runs(run)]
    same_kind = [(one, results) for one, results in same_stage if one.settings.trainable == run.settings.trainable]
    same_name = [(one, results) for one, results in same_kind if one.name == run.name]
    similar = [results for _, results in same_name or same_kind or same_stage]
    if not similar:
        return None
    return mode(one["epochs"] for one in similar) * mean(one["minutes"] / one["epochs"] for one in similar)


def _what_runs(run: Run) -> str:
    """Its stage, or the last part of its program's name."""
    return run.settings.program.rpartition(".")[2] or str(run.stage)


def plan_table(runs: list[Run], jobs: int) -> str:
    """The plan as text: a line for each training, the number of runs, and the hours they will take."""
    finished = [(run, run.results() | {"epochs": run.epochs()}) for run in runs if run.state == "finished"]
    minutes = {run: minutes_of(run, finished) for run in runs if run.state != "finished"}
    lines = {}
    for run in runs:
        states = [one.state for one in runs if one.name == run.name]
        estimate = minutes_of(run, finished)
        lines[run.name] = {
            "stage": _what_runs(run),
            "starts from": ", ".join(start.name for _, start in run.starts) or "the encoder",
            **{state: states.count(state) for state in ("finished", "interrupted", "to do")},
            "minutes each": "" if estimate is None else f"{estimate:.1f}",
            "is also": ", ".join(name for name in run.rows if name != run.name),
        }
    table = pd.DataFrame.from_dict(lines, orient="index")
    table = table if table["is also"].any() else table.drop(columns="is also")
    number = "1 run" if len(runs) == 1 else f"{len(runs)} runs"
    hours = _hours(minutes.values(), jobs)
    return f"{table.to_string()}\n\n{number}, {len(finished)} finished, {len(minutes)} to do{hours}"


def _hours(minutes: Iterable[float | None], jobs: int) -> str:
    minutes = list(minutes)
    hours = sum(value for value in minutes if value is not None) / 60
    text = f": {hours:.1f} hours of training, {hours / jobs:.1f} with {jobs} at a time" if hours else ""
    unknown = sum(value is None for value in minutes)
    if unknown and not hours:
        return "; no estimate yet: no run has finished"
    return text + (f"; not counting {unknown}: no run of their stage is finished yet" if unknown else "")
