"""Checkpoints are written where dev got better, and when the last one is old enough; not after every epoch."""

import torch
from transformers import TrainerControl, TrainerState
from transformers.trainer_callback import DefaultFlowCallback

from ser_mtl.training import callbacks as checkpoints
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.callbacks import SparingCheckpoints


def saved(monkeypatch, figures: list[float], best_is_kept: bool = True) -> list[int]:
    """Epochs after which a checkpoint is written, of epochs of four minutes with these figures on dev."""
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    args = SerMtlArguments(output_dir="out", selection="dev" if best_is_kept else "last", use_cpu=True)
    callback, state, written = SparingCheckpoints(args.save_minutes), TrainerState(), []
    for epoch, figure in enumerate(figures, start=1):
        now[0] += 240
        control = TrainerControl()
        DefaultFlowCallback().on_epoch_end(args, state, control)
        callback.on_epoch_end(args, state, control)
        callback.on_evaluate(args, state, control, {"eval_emotion_ua": figure})
        state.best_metric = max(figure, state.best_metric or 0)
        if control.should_save:
            written.append(epoch)
            callback.on_save(args, state, control)
    return written


def test_a_checkpoint_is_written_where_dev_got_better(monkeypatch):
    assert saved(monkeypatch, [0.5, 0.4, 0.6]) == [1, 3]


def test_a_checkpoint_is_written_ten_minutes_after_the_last(monkeypatch):
    assert saved(monkeypatch, [0.5, 0.4, 0.4, 0.4, 0.4, 0.4, 0.4]) == [1, 4, 7]


def test_without_a_selection_checkpoints_follow_the_clock_alone(monkeypatch):
    assert saved(monkeypatch, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], best_is_kept=False) == [3, 6]


def test_a_metric_that_is_better_lower_has_its_checkpoints():
    args = SerMtlArguments(
        output_dir="out",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        use_cpu=True,
    )
    state, control = TrainerState(best_metric=1.0), TrainerControl()
    SparingCheckpoints(10).on_evaluate(args, state, control, {"eval_loss": 1.1})
    assert not control.should_save
    SparingCheckpoints(10).on_evaluate(args, state, control, {"eval_loss": 0.9})
    assert control.should_save


def test_the_token_is_not_among_the_arguments_beside_a_checkpoint(tmp_path):
    args = SerMtlArguments(output_dir="out", hub_token="hf_secret", num_train_epochs=3, use_cpu=True)
    torch.save(args, tmp_path / "training_args.bin")
    assert b"hf_secret" not in (tmp_path / "training_args.bin").read_bytes()
    saved_args = torch.load(tmp_path / "training_args.bin", weights_only=False)
    assert (saved_args.hub_token, saved_args.num_train_epochs, args.hub_token) == (None, 3, "hf_secret")
    for text in (args.to_json_string(), str(args), repr(args), str(args.to_sanitized_dict())):
        assert "hf_secret" not in text
