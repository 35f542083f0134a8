"""The metrics of the folds beside a model that held nothing out: the nearest thing to metrics of its own."""

import statistics
from contextlib import suppress
from pathlib import Path

from ser_mtl.corpora.dealing import FOLDS
from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json

_THE_SAME = ("stage", "corpus", "encoder", "tasks", "trainable", "labels")
"""The settings that folds must share with the model: else their metrics would say nothing about it."""


def with_folds(run: Path, results: dict) -> dict:
    """The results of a run without a test, with `"folds"`: the names and the mean of the runs fold1 to fold5 beside it.

    Only finished runs of the same kind count, and none whose epoch was chosen on its test fold. Results of a run with a
    test stay as they are, and so do those without such runs.

    Args:
        run: its folder.
        results: the content of its `results.json`.
    """
    if results["test"]:
        return results
    folds = {}
    for name in (f"fold{fold}" for fold in FOLDS):
        file = run.resolve().parent / name / "results.json"
        with suppress(UserError):  # a damaged neighbour does not concern this run
            other = read_json(file, Results) if file.is_file() else {}
            alike = all(name in other and other[name] == results.get(name) for name in _THE_SAME)
            if alike and other["test"] and other["selection"] != "oracle":
                folds[name] = other["test"]["all"]
    if not folds:
        return results
    return results | {"folds": {"names": list(folds), "test": {"all": means(list(folds.values()))}}}


def means(folds: list[dict]) -> dict:
    """The metrics of one set of utterances, as means over the folds."""
    mean = {"n": sum(fold["n"] for fold in folds)}
    for task, scores in folds[0].items():
        if isinstance(scores, dict) and all(task in fold for fold in folds):
            numbers = [name for name, value in scores.items() if isinstance(value, float)]
            mean[task] = {name: statistics.mean(fold[task][name] for fold in folds) for name in numbers}
    return mean
