"""The finished runs of a folder, read from their JSON files, by row, fold and seed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NotRequired

import numpy as np
from markupsafe import Markup
from typing_extensions import TypedDict

from ser_mtl.errors import UserError
from ser_mtl.evaluation.predictions import WithEmotion, read_predictions
from ser_mtl.evaluation.results import Results
from ser_mtl.evaluation.training_curves import History
from ser_mtl.files import read_json
from ser_mtl.metrics import METRIC
from ser_mtl.research.cosines import Cosines
from ser_mtl.tables.plan import Run, Training
from ser_mtl.tables.rows import ROWS, Row


class _Corpus(TypedDict):
    dev: str
    data_dir: NotRequired[list[str] | None]


class _RecordOfScript(TypedDict):
    corpus: _Corpus
    training: Training


@dataclass(frozen=True)
class FinishedRun:
    """A finished run. Each of its files is read when it is first needed."""

    fold: int
    seed: int
    folder: Path

    @cached_property
    def results(self) -> dict:
        """`results.json`."""
        results = read_json(self.folder / "results.json", Results)
        if not results["test"]:
            raise UserError(f"{self.folder / 'results.json'}: is of a run without a test (--fold all)")
        return results

    @cached_property
    def args(self) -> dict:
        """`args.json`."""
        return read_json(self.folder / "args.json", _RecordOfScript)

    @cached_property
    def history(self) -> list[dict]:
        """`history.json`: the log of the Trainer."""
        return read_json(self.folder / "history.json", History)

    @cached_property
    def predictions(self) -> list[dict]:
        """`predictions.jsonl`."""
        rows = read_predictions(self.folder / "predictions.jsonl", WithEmotion)
        if all(row["emotion"]["label"] is None for row in rows):
            raise UserError(f"{self.folder / 'predictions.jsonl'}: holds no utterance with an emotion label")
        return rows

    @cached_property
    def cosines(self) -> dict | None:
        """`gradient_cosines.json`, if they were measured."""
        file = self.folder / "gradient_cosines.json"
        return read_json(file, Cosines) if file.is_file() else None

    def metric(self, name: str, group: str = "all") -> float | None:
        """A metric, such as "emotion_ua", on the test utterances of a group, a fraction; None if the run has none."""
        metric = METRIC[name]
        return self.results["test"].get(group, {}).get(metric.group, {}).get(metric.key)

    def ua_by_rule(self) -> dict[str, float] | None:
        """Test UA of the epoch that each selection rule keeps; None if the test was not measured after each epoch.

        "dev" is left out if no development set was evaluated.
        """
        test = self._by_epoch("test_emotion_ua")
        if not test or self.results["selection"] == "oracle":  # its dev evaluations are the test's
            return None
        dev = {epoch: ua for epoch, ua in self._by_epoch("eval_emotion_ua").items() if epoch in test}
        by_dev = {"dev": test[max(dev, key=dev.__getitem__)]} if dev else {}
        return by_dev | {"last": test[max(test)], "oracle": max(test.values())}

    def _by_epoch(self, name: str) -> dict[float, float]:
        return {entry["epoch"]: entry[name] for entry in self.history if entry.get(name) is not None}


@dataclass(frozen=True)
class FinishedRow:
    """A row of the tables with its finished runs."""

    row: Row
    runs: list[FinishedRun]
    steps: dict[str, list[FinishedRun]] = field(default_factory=dict)
    """The runs that they start from, by name."""

    @property
    def id(self) -> str:
        """The id of the row."""
        return self.row.id

    @property
    def code(self) -> Markup:
        """The id in Markdown."""
        return Markup(f"`{self.id}`")

    @property
    def tasks(self) -> list[str]:
        """The tasks of the row's last stage."""
        return self.row.last.tasks.split()

    @property
    def folds(self) -> set[int]:
        """Folds with at least one run."""
        return {run.fold for run in self.runs}

    def metrics(self, name: str, group: str = "all") -> dict[tuple[int, int], float]:
        """A metric, such as "emotion_ua", by fold and seed, of the runs that have it."""
        values = {(run.fold, run.seed): run.metric(name, group) for run in self.runs}
        return {key: value for key, value in values.items() if value is not None}

    def predictions(self, folds: Iterable[int] | None = None, group: str | None = None) -> Iterator[list[dict]]:
        """Prediction rows of each run; only of these folds and this speaking style, if given."""
        for run in self.runs:
            if folds is None or run.fold in folds:
                yield [row for row in run.predictions if group is None or style_of(row) == group]

    def labels(self) -> list[str]:
        """The classes of emotion.

        Raises:
            UserError: a run has none, or others than the first one.
        """
        emotions = [run.results["test"]["all"].get("emotion") or {} for run in self.runs]
        first: list[str] = emotions[0].get("labels") or []
        for run, emotion in zip(self.runs, emotions, strict=True):
            if not first or emotion.get("labels") != first:
                there = emotion.get("labels") or "no labels"
                raise UserError(
                    f"{run.folder / 'results.json'}: has {there} for emotion; all runs of a row need the same"
                )
        return first

    def confusion(self) -> np.ndarray:
        """Confusion matrix of emotion, summed over all runs."""
        return np.sum([run.results["test"]["all"]["emotion"]["confusion_matrix"] for run in self.runs], axis=0)

    def cosines(self) -> dict[str, np.ndarray]:
        """All measured cosines between gradients, by pair of losses: (times, groups), first the whole encoder."""
        measured: dict[str, list] = {}
        for run in self.runs:
            for measurement in run.cosines["measurements"] if run.cosines else []:
                for pair, values in measurement["cosines"].items():
                    if None not in values:  # None: no utterance of the batch was annotated for the task
                        measured.setdefault(pair, []).append(values)
        return {pair: np.array(values) for pair, values in measured.items()}

    def norms(self) -> dict[str, np.ndarray]:
        """All measured norms of weighted gradients on the whole encoder, by loss, where they are not zero: (times,)."""
        measured: dict[str, list[float]] = {}
        for run in self.runs:
            for measurement in run.cosines["measurements"] if run.cosines else []:
                for loss, values in measurement.get("norms", {}).items():
                    if values[0]:  # 0: no utterance of the batch was annotated for the task
                        measured.setdefault(loss, []).append(values[0])
        return {loss: np.array(values) for loss, values in measured.items()}

    def by_epochs(self) -> "dict[float, FinishedRow]":
        """The row's runs by the number of epochs that they were trained for."""
        groups: dict[float, list[FinishedRun]] = {}
        for run in self.runs:
            groups.setdefault(run.args["training"]["num_train_epochs"], []).append(run)
        return {epochs: FinishedRow(self.row, groups[epochs]) for epochs in sorted(groups)}

    def mean_history(self) -> list[dict]:
        """An entry for each epoch that all runs logged, with the mean of each number that all have."""
        by_run = []
        for run in self.runs:
            epochs: dict[float, dict] = {}
            for entry in run.history:
                epochs.setdefault(round(entry["epoch"], 2), {}).update(entry)
            by_run.append(epochs)
        shared = sorted(set.intersection(*map(set, by_run)))
        means = []
        for epoch in shared:
            entries = [epochs[epoch] for epochs in by_run]
            numeric = [{name for name, value in entry.items() if isinstance(value, int | float)} for entry in entries]
            names = set.intersection(*numeric) - {"epoch", "step"}
            numbers = {name: float(np.mean([entry[name] for entry in entries])) for name in names}
            means.append({"epoch": epoch} | numbers)
        return means


def style_of(prediction: dict) -> str | None:
    """The annotated speaking style of a prediction row, whether style was a task or not."""
    style = prediction.get("style")
    return style["label"] if isinstance(style, dict) else style


def finished_runs(runs: Iterable[Run]) -> list[FinishedRun]:
    """The finished runs of a plan that have metrics."""
    done = [run for run in runs if run.state == "finished" and run.settings.tasks]
    return [FinishedRun(run.fold, run.seed, run.folder) for run in done]


def finished_rows(runs: Iterable[Run]) -> list[FinishedRow]:
    """The rows with finished runs, in the paper's order: those asked for, and those that their runs started from."""
    by_name: dict[str, dict[Run, FinishedRun]] = {}
    for run in runs:
        for name in (run.rows or (run.name,)) if run.state == "finished" else ():
            by_name.setdefault(name, {})[run] = FinishedRun(run.fold, run.seed, run.folder)
    return [
        FinishedRow(row, list(by_name[row.id].values()), _steps(by_name[row.id])) for row in ROWS if row.id in by_name
    ]


def _steps(runs: Iterable[Run]) -> dict[str, list[FinishedRun]]:
    """The finished runs that these start from, by name."""
    steps: dict[str, list[FinishedRun]] = {}
    for step in dict.fromkeys(step for run in runs for step in run.needed()):
        if step.state == "finished":
            steps.setdefault(step.name, []).append(FinishedRun(step.fold, step.seed, step.folder))
    return steps
