"""Convergence of a row's runs, from their training losses."""

import numpy as np

from ser_mtl.tables.finished import FinishedRow, FinishedRun

STILL_FALLING = 0.05
"""A loss has not converged if more than this share of its whole fall is in the last quarter of the training."""
_FEWEST_EPOCHS = 4


def logs_of(runs: list[FinishedRun]) -> list[list[dict]]:
    """The entries of each run's history that have training losses, of the runs with any."""
    logs = [[entry for entry in run.history if "loss" in entry] for run in runs]
    return [log for log in logs if log]


def three_quarters(log: list[dict]) -> dict:
    """The entry after three quarters of the training."""
    return log[(3 * len(log) - 1) // 4]


def unconverged(runs: list[FinishedRun]) -> list[str] | None:
    """The tasks whose training loss, as a mean over the runs, has not converged; None with too few epochs to tell.

    The learning rate falls to zero, so a loss that has stopped falling may still be high. Pretraining has no tasks,
    and gives "loss".
    """
    logs = logs_of(runs)
    if not logs or min(map(len, logs)) < _FEWEST_EPOCHS:
        return None
    found = []
    for name in [name for name in logs[0][-1] if name.startswith("loss_")] or ["loss"]:
        losses = [[entry.get(name) for entry in (log[0], three_quarters(log), log[-1])] for log in logs]
        if any(None in of_run for of_run in losses):  # no utterance of that epoch had the task
            continue
        first, later, last = np.array(losses, dtype=float).mean(axis=0)
        if later - last > STILL_FALLING * abs(first - last):
            found.append(name.removeprefix("loss_"))
    return found


def mark(row: FinishedRow) -> str:
    """The remark beside the name of a row that has not converged, or that starts from such a run; else empty."""
    found = [("", row.runs), *((f"{name}: ", runs) for name, runs in row.steps.items())]
    names = [title + ", ".join(tasks) for title, runs in found if (tasks := unconverged(runs))]
    return f" (**not converged**: {'; '.join(names)})" if names else ""
