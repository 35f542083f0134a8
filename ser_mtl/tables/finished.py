"""What the finished runs of a folder say: their json, by row, fold and seed."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.files import read_json
from ser_mtl.tables.plan import Run
from ser_mtl.tables.rows import ROWS, Row

FIGURES = {
    "ua": ("emotion", "ua"),
    "wa": ("emotion", "wa"),
    "wer": ("asr", "wer"),
    "gender_ua": ("gender", "ua"),
    "style_ua": ("style", "ua"),
}
"""Where `results.json` holds the figures that the paper's tables give, by their names in `rows.Paper`."""


@dataclass(frozen=True)
class FinishedRun:
    """One finished run, read from its folder as far as it is asked for."""

    fold: int
    seed: int
    folder: Path

    @cached_property
    def results(self) -> dict:
        """`results.json`."""
        return self._json("results.json")

    @cached_property
    def args(self) -> dict:
        """`args.json`."""
        return self._json("args.json")

    @cached_property
    def history(self) -> list[dict]:
        """`history.json`: what the Trainer logged."""
        return self._json("history.json")

    @cached_property
    def predictions(self) -> list[dict]:
        """`predictions.jsonl`."""
        return read_predictions(self.folder / "predictions.jsonl")

    @cached_property
    def cosines(self) -> dict | None:
        """`gradient_cosines.json`, where they were measured."""
        return self._json("gradient_cosines.json") if (self.folder / "gradient_cosines.json").is_file() else None

    def figure(self, name: str, group: str = "all") -> float | None:
        """One of `FIGURES` on the test utterances of a group, a fraction; None where the run has none."""
        task, key = FIGURES[name]
        return self.results["test"].get(group, {}).get(task, {}).get(key)

    def ua_by_rule(self) -> dict[str, float] | None:
        """Test UA of the epoch that each selection rule keeps; None where the test was not measured after each epoch.

        "dev" is left out where no development set was evaluated.
        """
        test = {entry["epoch"]: entry["test_emotion_ua"] for entry in self.history if "test_emotion_ua" in entry}
        if not test or self.results["selection"] == "oracle":  # which evaluates the test in the place of dev
            return None
        dev = {e["epoch"]: e["eval_emotion_ua"] for e in self.history if "eval_emotion_ua" in e and e["epoch"] in test}
        by_dev = {"dev": test[max(dev, key=dev.__getitem__)]} if dev else {}
        return by_dev | {"last": test[max(test)], "oracle": max(test.values())}

    def _json(self, name: str):
        return read_json(self.folder / name)


@dataclass(frozen=True)
class FinishedRow:
    """A row of the tables with the runs that give its figures."""

    row: Row
    runs: list[FinishedRun]

    @property
    def tasks(self) -> list[str]:
        """What the row trains in its last stage, where the corpus has it all."""
        return (self.row.stage2 or self.row.stage1).tasks.split()

    @property
    def folds(self) -> set[int]:
        """Folds with a run at least."""
        return {run.fold for run in self.runs}

    def figures(self, name: str, group: str = "all") -> dict[tuple[int, int], float]:
        """A figure by fold and seed, where the run has it."""
        found = {(run.fold, run.seed): run.figure(name, group) for run in self.runs}
        return {key: value for key, value in found.items() if value is not None}

    def predictions(self, folds: Iterable[int] | None = None, group: str | None = None) -> Iterator[list[dict]]:
        """Prediction rows of each run, of these folds and this speaking style alone where they are given."""
        for run in self.runs:
            if folds is None or run.fold in folds:
                yield [row for row in run.predictions if group is None or style_of(row) == group]

    def confusion(self) -> np.ndarray:
        """Confusion matrix of emotion, the sum over all runs."""
        return np.sum([run.results["test"]["all"]["emotion"]["confusion_matrix"] for run in self.runs], axis=0)

    def cosines(self) -> dict[str, np.ndarray]:
        """Every cosine measured between gradients, by pair of losses: (times, groups), the first the whole encoder."""
        found: dict[str, list] = {}
        for run in self.runs:
            for measurement in run.cosines["measurements"] if run.cosines else []:
                for pair, values in measurement["cosines"].items():
                    if None not in values:  # of a task that nobody in the batch was annotated for
                        found.setdefault(pair, []).append(values)
        return {pair: np.array(values) for pair, values in found.items()}

    def by_epochs(self) -> "dict[float, FinishedRow]":
        """The row's runs by the number of epochs that they were trained for."""
        found: dict[float, list[FinishedRun]] = {}
        for run in self.runs:
            found.setdefault(run.args["training"]["num_train_epochs"], []).append(run)
        return {epochs: FinishedRow(self.row, found[epochs]) for epochs in sorted(found)}

    def mean_history(self) -> list[dict]:
        """An entry for each epoch that all runs logged: the mean of each number that all of them have."""
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
            names = set.intersection(*map(set, entries)) - {"epoch", "step"}
            numbers = {name: float(np.mean([entry[name] for entry in entries])) for name in names}
            means.append({"epoch": epoch} | numbers)
        return means


def style_of(prediction: dict) -> str | None:
    """The annotated speaking style of a prediction row, whether style was a task or not."""
    style = prediction["style"]
    return style["label"] if isinstance(style, dict) else style


def finished_runs(runs: Iterable[Run]) -> list[FinishedRun]:
    """All that a plan has finished."""
    return [FinishedRun(run.fold, run.seed, run.folder) for run in runs if run.state == "finished"]


def finished_rows(runs: Iterable[Run]) -> list[FinishedRow]:
    """The rows that a plan has finished runs of, in the order of the paper."""
    found: dict[str, list[FinishedRun]] = {}
    for run in runs:
        if run.state == "finished":
            found.setdefault(run.name, []).append(FinishedRun(run.fold, run.seed, run.folder))
    return [FinishedRow(row, found[row.id]) for row in ROWS if row.id in found]
