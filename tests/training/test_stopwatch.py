"""The minutes of a run are those of all its training."""

import pytest
from transformers import TrainerControl, TrainerState

from ser_mtl.training import callbacks
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.callbacks import Stopwatch


def begun_at(monkeypatch, state: TrainerState, clock: list[float]) -> Stopwatch:
    """A stopwatch made at 0 and started at 5 seconds of `clock`, whose only element can be changed."""
    monkeypatch.setattr(callbacks.time, "monotonic", lambda: clock[0])
    watch = Stopwatch()
    clock[0] = 5.0
    watch.on_train_begin(SerMtlArguments(output_dir="out", use_cpu=True), state, TrainerControl())
    return watch


def test_a_new_run_counts_from_its_first_update(monkeypatch):
    clock = [0.0]
    watch = begun_at(monkeypatch, TrainerState(), clock)
    clock[0] = 7.0
    assert watch.seconds == 2.0


def test_a_resumed_run_counts_on_from_its_checkpoint(monkeypatch):
    clock = [0.0]
    first = begun_at(monkeypatch, TrainerState(), clock)
    clock[0] = 105.0
    kept = TrainerState(global_step=3, stateful_callbacks={"Stopwatch": first.state()})
    clock[0] = 0.0  # that of another machine
    watch = begun_at(monkeypatch, kept, clock)
    clock[0] = 7.0
    assert watch.seconds == pytest.approx(102.0)


def test_a_checkpoint_without_a_count_is_gone_on_from(monkeypatch):
    clock = [0.0]
    state = TrainerState(global_step=3)
    watch = begun_at(monkeypatch, state, clock)
    clock[0] = 7.0
    assert watch.seconds == pytest.approx(7.0)
    assert "Stopwatch" in state.stateful_callbacks  # where the Trainer puts the count of its next checkpoint
