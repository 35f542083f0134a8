"""A run that diverges stops: with the step, the losses and the utterances, and nothing that is not finite on disk."""

import json
import math
from pathlib import Path

import pytest
import torch
from helpers.trainers import N, noise_trainer
from safetensors.torch import load_file

import ser_mtl
from ser_mtl.errors import UserError
from ser_mtl.files import json_lines_text, json_text
from ser_mtl.training import divergence


def diverging(folder, **flags):
    more = {"per_device_train_batch_size": 4, "num_train_epochs": 3.0, "save_strategy": "epoch", "save_minutes": 0.0}
    return noise_trainer(folder, **more | flags)


def check_stopped(made, *named: str) -> None:
    """It stops in one line with all of these, and what is saved is finite."""
    with pytest.raises(UserError) as stopped:
        made.train()
    (line,) = str(stopped.value).splitlines()
    for part in named:
        assert part in line, line
    folder = Path(made.args.output_dir)
    assert not (folder / "model.safetensors").exists()
    for weights in folder.rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(weights).values())
    for file in folder.rglob("*.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)


def test_a_learning_rate_of_a_million_stops_the_run(tmp_path):
    check_stopped(diverging(tmp_path, learning_rate=1e6), "step", "training diverged", "--learning_rate (now 1e+06)")


def poisoned(made, row: int, first: int):
    """The Trainer, with NaN in one utterance's samples from update `first` on."""
    collate = made.data_collator

    def damaged(rows):
        batch = collate(rows)
        if made.state.global_step + 1 >= first:
            batch["input_values"][batch["row"] == row, 100] = math.nan
        return batch

    made.data_collator = damaged
    return made


@pytest.mark.parametrize("first", [1, 3])
def test_the_first_bad_update_and_its_utterance_are_named(tmp_path, first):
    made = poisoned(diverging(tmp_path, per_device_train_batch_size=N), row=5, first=first)
    check_stopped(made, f"step {first}:", "emotion nan", "utterances: 05;", "its loss is not finite")
    assert sorted(path.name for path in (tmp_path / "run").glob("checkpoint-*")) == (
        [] if first == 1 else [f"checkpoint-{first - 1}"]
    )


def test_one_bad_batch_of_an_update_is_found(tmp_path):
    made = poisoned(diverging(tmp_path, gradient_accumulation_steps=2), row=2, first=1)
    check_stopped(made, "step 1:", "utterances: 02;")
    assert not (tmp_path / "run").exists()  # the corrected command can use it


def test_a_gradient_that_is_not_finite_is_found_where_the_loss_is(tmp_path):
    made = diverging(tmp_path)
    made.model.heads["gender"].classifier.weight.register_hook(lambda gradient: gradient * math.inf)
    check_stopped(made, "step 1:", "its gradient is not finite", "emotion 1.")


def test_weights_that_overflow_in_the_last_update_are_not_saved(tmp_path):
    made = diverging(tmp_path, max_steps=1, per_device_train_batch_size=N)
    step = made.create_optimizer().step

    def overflowing(*args, **kwargs):
        step(*args, **kwargs)
        made.model.ctc_head.bias.data[0] = math.inf

    made.optimizer.step = overflowing
    check_stopped(made, "step 1:", "a weight is not finite")


def test_many_updates_are_looked_at_together(tmp_path, monkeypatch):
    looks = []
    look = divergence.Divergence.look
    monkeypatch.setattr(divergence.Divergence, "look", lambda self: looks.append(len(self.updates)) or look(self))
    made = diverging(tmp_path, num_train_epochs=1.0, per_device_train_batch_size=1, save_strategy="no")
    monkeypatch.setattr(divergence, "UPDATES_PER_LOOK", 3)
    made.train()
    assert looks == [1, 3, 3, 1]


def test_a_model_whose_weights_are_not_finite_gives_no_answer(finished, tmp_path):
    recognizer = ser_mtl.load(finished)
    recognizer.model.heads["emotion"].classifier.bias.data[0] = math.nan
    with pytest.raises(UserError, match="not finite"):
        recognizer((0.1 * torch.randn(16_000), 16_000))
    recognizer.model.save_pretrained(tmp_path / "bad")
    recognizer.processor.save_pretrained(tmp_path / "bad")
    with pytest.raises(UserError, match="holds weights that are not finite"):
        ser_mtl.load(tmp_path / "bad")


def test_json_knows_no_nan():
    content = {"a": [math.nan, 1.5, {"b": -math.inf}], "c": (math.inf,)}
    expected = {"a": [None, 1.5, {"b": None}], "c": [None]}
    assert json.loads(json_text(content)) == json.loads(json_lines_text([content])) == expected
