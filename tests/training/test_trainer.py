"""The Trainer: an update's loss and gradients depend on its utterances alone, not on how they were dealt out."""

import json
import os
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.encoders import LABELS
from helpers.trainers import N, noise_trainer, noises
from helpers.waiting import Waiting
from transformers import TrainerCallback

from answers_ser_mtl import greedy_ctc, transcripts_of
from modeling_ser_mtl import CTC_SCALES, weighted_loss
from ser_mtl.corpora.targets import character_tokenizer
from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments

ROOT = Path(__file__).resolve().parents[2]


def gradients(folder: Path, per_device: int, accumulation: int, **more) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the only update of an epoch."""
    flags = {"per_device_train_batch_size": per_device, "gradient_accumulation_steps": accumulation} | more
    made = noise_trainer(folder, **flags)
    made.create_optimizer_and_scheduler(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), accumulation, made.args.device)
    made.current_gradient_accumulation_steps = accumulation
    loss = sum(made.training_step(made.model, batch, counts) for batch in batches)
    return float(loss), {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("scale", CTC_SCALES)
def test_a_batch_of_eight_equals_two_of_four(tmp_path, scale):
    loss, whole = gradients(tmp_path, 8, 1, ctc_scale=scale)
    accumulated_loss, parts = gradients(tmp_path, 4, 2, ctc_scale=scale)
    assert accumulated_loss == pytest.approx(loss, rel=1e-5)
    assert set(parts) == set(whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6 * max(1.0, loss), rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("scale", "reduction", "divided"),
    [("characters", "mean", False), ("utterance", "sum", True), ("batch", "sum", False)],
)
def test_the_scales_of_ctc_are_the_reductions_of_torch_over_an_update(tmp_path, scale, reduction, divided):
    made = noise_trainer(
        tmp_path, ctc_scale=scale, per_device_train_batch_size=4, gradient_accumulation_steps=2, learning_rate=0.0
    )
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    labels = batch["asr_labels"]
    with torch.no_grad():
        output = made.model.train()(batch["input_values"], batch["attention_mask"])
    there = (labels >= 0).any(dim=1)
    expected = F.ctc_loss(
        output.asr_logits.log_softmax(-1).transpose(0, 1)[:, there], labels[there].clamp(min=0),
        output.frame_lengths[there], (labels[there] >= 0).sum(dim=1), reduction=reduction,
    )  # fmt: skip
    made.train()
    found = made.state.log_history[0]["loss_asr"]
    assert found == pytest.approx(float(expected) / (int(there.sum()) if divided else 1), rel=1e-4)


def test_the_loss_of_an_update_is_the_weighted_loss_of_its_utterances(tmp_path):
    made = noise_trainer(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    batch.pop("row")
    expected = made.model.train()(**batch).loss
    assert gradients(tmp_path, 4, 2)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_the_log_holds_every_task_and_they_add_up_to_the_loss(tmp_path):
    made = noise_trainer(
        tmp_path,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        logging_strategy="steps",
        logging_steps=1,
    )
    made.train()
    log = made.state.log_history[0]
    config = made.model.config
    losses = {task: torch.tensor([log[f"loss_{task}"]]) for task in [*config.tasks, "scl"]}
    assert weighted_loss(config, losses, dict.fromkeys(losses, 1)).item() == pytest.approx(log["loss"], rel=1e-4)


def test_the_encoder_waits_for_the_heads_and_then_warms_up(tmp_path):
    made = noise_trainer(
        tmp_path, head_start=0.2, warmup_steps=0.1, learning_rate=1.0, lr_scheduler_type="constant_with_warmup"
    )
    made.create_optimizer_and_scheduler(100)
    rates = {True: [], False: []}
    for _ in range(100):
        for of_encoder in rates:
            rates[of_encoder] += [next(g["lr"] for g in made.optimizer.param_groups if g["of_encoder"] == of_encoder)]
        made.optimizer.step()
        made.lr_scheduler.step()
    assert rates[False] == pytest.approx([min(1, step / 10) for step in range(100)])
    assert rates[True] == pytest.approx([min(1, max(0, step - 20) / 10) for step in range(100)])
    encoder = {id(p) for p in made.model.encoder.parameters()}
    for group in made.optimizer.param_groups:
        assert all((id(p) in encoder) == group["of_encoder"] for p in group["params"])


def test_predictions_come_back_whole_and_beside_their_rows(tmp_path):
    made = noise_trainer(tmp_path, per_device_eval_batch_size=3)
    predicted = made.predict(made.train_dataset)
    assert sorted(predicted.label_ids.tolist()) == list(range(N))
    row = made.rows(predicted.predictions, predicted.label_ids)[5]
    made.model.eval()
    with torch.inference_mode():
        alone = made.model(**{k: v for k, v in made.data_collator([made.train_dataset[5]]).items() if k != "row"})
    expected = dict(zip(LABELS["emotion"], alone.logits.softmax(dim=-1)[0].tolist(), strict=True))
    assert row["id"] == "05"
    assert row["emotion"]["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert row["asr"]["hypothesis"] == made.tokenizer.decode(alone.asr_logits[0].argmax(dim=-1)).replace("[UNK]", "")


ENDS_OF_EPOCHS = [(N, 1), (N + 2, 1), (N + 3, 2)]
"""Utterances and accumulation steps: epochs in whole updates of four, and with a last update of two or three."""
WEIGHTED = {"class_weights": "balanced", "label_smoothing_factor": 0.1, "ctc_scale": "batch"}
"""Flags of the cases with accumulation."""


def two_epochs(folder: Path, utterances: int, accumulation: int) -> dict:
    """Train and predict, in as many processes as there are. Returns losses and prediction rows."""
    made = noise_trainer(
        folder,
        utterances,
        values=True,
        logging_strategy="steps",
        logging_steps=1,
        learning_rate=1e-3,
        num_train_epochs=2.0,
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=4 // int(os.environ.get("WORLD_SIZE", 1)) // accumulation,
        per_device_eval_batch_size=3,
        **(WEIGHTED if accumulation > 1 else {}),
    )
    made.train()
    rows = made.predicted_rows("train")
    log = [{k: v for k, v in entry.items() if k.startswith("loss")} for entry in made.state.log_history]
    return {"log": log, "rows": rows}


@pytest.fixture(scope="module")
def two_processes(python, tmp_path_factory) -> list[dict]:
    """What two processes give for each of `ENDS_OF_EPOCHS`; they are started once, since that takes the longest."""
    folder = tmp_path_factory.mktemp("two")
    for utterances, _ in ENDS_OF_EPOCHS:
        noises(folder / f"{utterances}/noises", utterances)
    command = [python, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    subprocess.run([*command, __file__, str(folder)], check=True, env=environment)
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize("case", range(len(ENDS_OF_EPOCHS)), ids=lambda case: str(ENDS_OF_EPOCHS[case]))
def test_two_processes_equal_one(tmp_path, two_processes, case):
    utterances, accumulation = ENDS_OF_EPOCHS[case]
    one, two = json.loads(json.dumps(two_epochs(tmp_path, utterances, accumulation))), two_processes[case]
    ids = [f"{i:02}" for i in range(utterances)]
    assert sorted(row["id"] for row in one["rows"]) == ids
    assert [row["id"] for row in two["rows"]] == [row["id"] for row in one["rows"]]
    for first, second in zip(one["rows"], two["rows"], strict=True):
        assert second["emotion"]["probabilities"] == pytest.approx(first["emotion"]["probabilities"], abs=1e-4)
        assert second["asr"] == first["asr"]
        assert second["valence"] == pytest.approx(first["valence"], abs=1e-3)
    for first, second in zip(one["log"], two["log"], strict=True):
        assert second == pytest.approx(first, rel=1e-3)


def test_a_run_resumed_within_an_epoch_keeps_that_epochs_order(tmp_path):
    made = noise_trainer(tmp_path)
    sampler = made._get_train_sampler()
    made.state.epoch = 3.5
    made.callback_handler.on_epoch_begin(made.args, made.state, made.control)
    assert sampler.epoch == 3


def test_characters_of_frames_are_those_of_greedy_ctc():
    torch.manual_seed(0)
    logits, lengths = torch.randn(20, 30, 4), torch.randint(1, 31, (20,))
    heard = greedy_ctc(logits, lengths, blank=0)
    for best, length, found in zip(logits.argmax(dim=-1).tolist(), lengths.tolist(), heard.tolist(), strict=True):
        expected = [character for character, _ in groupby(best[:length]) if character != 0]
        assert found == expected + [-100] * (len(found) - len(expected))


def test_transcripts_are_those_of_the_tokenizer():
    tokenizer = character_tokenizer(["ab ba cd's"])
    random = np.random.default_rng(0)
    heard = [random.integers(1, len(tokenizer), n).tolist() for n in (0, 1, 9, 40)]
    padded = [row + [-100] * (40 - len(row)) for row in heard]
    assert transcripts_of(padded, tokenizer) == tokenizer.batch_decode(
        heard, group_tokens=False, skip_special_tokens=True
    )


def test_what_is_kept_of_an_utterance_does_not_grow_with_its_length(tmp_path):
    made = noise_trainer(tmp_path)
    made.model.eval()
    made.model.ctc_head.bias.data[0] += 100  # blanks only: nothing is heard
    sizes = []
    for row in (made.train_dataset[0], made.train_dataset[N - 1]):
        _, predictions, _ = made.prediction_step(made.model, made.data_collator([row]), prediction_loss_only=False)
        sizes.append(sum(values.nbytes for values in predictions.values()))
    assert sizes[0] == sizes[1] < 1000


@pytest.mark.parametrize("schedule", ["reduce_lr_on_plateau", "greedy"])
def test_a_head_start_is_refused_with_a_schedule_that_follows_dev(schedule):
    with pytest.raises(UserError, match="--head_start"):
        SerMtlArguments(output_dir="out", head_start=0.1, lr_scheduler_type=schedule, use_cpu=True)


class InSteps(TrainerCallback):
    """Notes what a Trainer waits for from the begin of a step to its end, and in no other place."""

    def __init__(self):
        self.waiting = Waiting()
        self.steps = 0

    def on_step_begin(self, args, state, control, **kwargs):
        self.waiting.__enter__()

    def on_step_end(self, args, state, control, **kwargs):
        self.waiting.__exit__(None, None, None)
        self.steps += 1


def test_a_step_of_the_trainer_never_waits_for_the_device(tmp_path):
    made = noise_trainer(tmp_path, per_device_train_batch_size=4, num_train_epochs=2, logging_strategy="epoch")
    made.add_callback(watch := InSteps())
    made.train()
    assert watch.steps == 4
    assert watch.waiting.found == []


if __name__ == "__main__":
    outcomes = [two_epochs(Path(sys.argv[1]) / str(n), n, accumulation) for n, accumulation in ENDS_OF_EPOCHS]
    if os.environ["RANK"] == "0":
        Path(sys.argv[1], "out.json").write_text(json.dumps(outcomes))
