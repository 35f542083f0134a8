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
from datasets import Dataset
from helpers.encoders import LABELS, all_tasks_config
from helpers.waiting import Waiting
from transformers import TrainerCallback, Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from modeling_ser_mtl import SerMtlModel, weighted_loss
from ser_mtl.cli import command_line
from ser_mtl.corpora.batching import Collator
from ser_mtl.corpora.targets import character_tokenizer, with_targets
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.errors import UserError
from ser_mtl.inference.recognizer import as_text, heard_characters
from ser_mtl.training.adapters import freeze_for_full_finetuning
from ser_mtl.training.arguments import RunArguments
from ser_mtl.training.trainer import SerMtlTrainer

ROOT = Path(__file__).resolve().parents[2]
N = 8


def corpus_of(n: int = N) -> Dataset:
    """Noises of different lengths; every second one lacks a label, differently for each task."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        row = dict.fromkeys(FEATURES) | {"id": str(i), "speaker": f"s{i}", "fold": 1, "raters": []}
        row["emotion"] = LABELS["emotion"][i % 4] if i != 1 else None
        row["gender"] = LABELS["gender"][i % 2] if i % 4 else None
        row["style"] = LABELS["style"][i // 4] if i < 6 else None
        row["text"] = "ab ba abba"[: 2 + i] if i % 3 else None
        rows.append(row)
    corpus = Dataset.from_list(rows, features=FEATURES)
    samples = [random.integers(-9000, 9000, 3000 + 500 * i).astype(np.int16) for i in range(n)]
    corpus = corpus.add_column("samples", samples).add_column("length", [len(s) for s in samples])
    return corpus.add_column("row", list(range(n)))


def trainer(folder: Path, utterances: int = N, **flags) -> SerMtlTrainer:
    """A Trainer on `corpus_of(utterances)` with a model without any randomness."""
    tokenizer = character_tokenizer(["ab ba"])
    torch.manual_seed(0)
    config = all_tasks_config(scl="cos", fusion="concat", vocab_size=len(tokenizer))
    config.encoder_config.mask_time_prob = 0.0
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(config.encoder_config, name, 0.0)
    model = SerMtlModel(config)
    freeze_for_full_finetuning(model, train_front_end=True)
    corpus = with_targets(corpus_of(utterances), LABELS, tokenizer)
    numbers = corpus.select_columns(
        ["row", "length", "samples", *(name for name in corpus.column_names if name.endswith("_labels"))]
    ).with_format("numpy")
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    flags = {"eval_strategy": "no", "save_strategy": "no", "use_cpu": True, "num_train_epochs": 1.0} | flags
    return SerMtlTrainer(
        corpus=corpus,
        labels=LABELS,
        model=model,
        args=RunArguments(output_dir=str(folder), disable_tqdm=True, **flags),
        train_dataset=numbers,
        eval_dataset=numbers,
        data_collator=Collator(extractor),
        processing_class=Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer),
    )


def gradients(folder: Path, per_device: int, accumulation: int) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients of the only update of an epoch."""
    made = trainer(folder, per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation)
    made.create_optimizer_and_scheduler(1)
    batches, counts = made.get_batch_samples(iter(made.get_train_dataloader()), accumulation, made.args.device)
    made.current_gradient_accumulation_steps = accumulation
    loss = sum(made.training_step(made.model, batch, counts) for batch in batches)
    return float(loss), {name: p.grad for name, p in made.model.named_parameters() if p.grad is not None}


def test_a_batch_of_eight_equals_two_of_four(tmp_path):
    loss, whole = gradients(tmp_path, 8, 1)
    accumulated_loss, parts = gradients(tmp_path, 4, 2)
    assert accumulated_loss == pytest.approx(loss, rel=1e-5)
    assert set(parts) == set(whole)
    for name, gradient in whole.items():
        torch.testing.assert_close(parts[name], gradient, atol=1e-6, rtol=1e-3, msg=name)


def test_the_loss_of_an_update_is_the_weighted_loss_of_its_utterances(tmp_path):
    made = trainer(tmp_path, per_device_train_batch_size=4, gradient_accumulation_steps=2)
    batch = made.data_collator([made.train_dataset[i] for i in range(N)])
    batch.pop("row")
    expected = made.model.train()(**batch).loss
    assert gradients(tmp_path, 4, 2)[0] == pytest.approx(expected.item(), rel=1e-5)


def test_the_log_holds_every_task_and_they_add_up_to_the_loss(tmp_path):
    made = trainer(
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
    made = trainer(
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
    made = trainer(tmp_path, per_device_eval_batch_size=3)
    predicted = made.predict(made.eval_dataset)
    assert sorted(predicted.label_ids.tolist()) == list(range(N))
    row = made.rows(predicted.predictions, predicted.label_ids)[5]
    made.model.eval()
    with torch.inference_mode():
        alone = made.model(**{k: v for k, v in made.data_collator([made.eval_dataset[5]]).items() if k != "row"})
    expected = dict(zip(LABELS["emotion"], alone.logits.softmax(dim=-1)[0].tolist(), strict=True))
    assert row["id"] == "5"
    assert row["emotion"]["probabilities"] == pytest.approx(expected, abs=1e-5)
    assert row["asr"]["hypothesis"] == made.tokenizer.decode(alone.asr_logits[0].argmax(dim=-1))


def two_epochs(folder: Path, utterances: int, accumulation: int) -> None:
    """Train and predict, in as many processes as there are, and leave what came out; run by the test below."""
    made = trainer(
        folder,
        utterances,
        logging_strategy="steps",
        logging_steps=1,
        learning_rate=1e-3,
        num_train_epochs=2.0,
        gradient_accumulation_steps=accumulation,
        per_device_train_batch_size=4 // int(os.environ["WORLD_SIZE"]) // accumulation,
        per_device_eval_batch_size=3,
    )
    made.train()
    predicted = made.predict(made.eval_dataset)
    if made.is_world_process_zero():
        rows = made.rows(predicted.predictions, predicted.label_ids)
        log = [{k: v for k, v in entry.items() if k.startswith("loss")} for entry in made.state.log_history]
        (folder / "out.json").write_text(json.dumps({"log": log, "rows": rows}))


def run_processes(number: int, folder: Path, utterances: int, accumulation: int) -> dict:
    folder.mkdir()
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(number), "--standalone"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, __file__, str(folder), str(utterances), str(accumulation)], check=True, env=environment)
    return json.loads((folder / "out.json").read_text())


@pytest.mark.parametrize(("utterances", "accumulation"), [(N, 1), (N + 2, 1), (N + 3, 2)])
def test_two_processes_equal_one(tmp_path, utterances, accumulation):
    """In whole updates of four, and where the last one of an epoch has two or three utterances."""
    one, two = (run_processes(number, tmp_path / str(number), utterances, accumulation) for number in (1, 2))
    ids = [str(i) for i in range(utterances)]
    assert [row["id"] for row in two["rows"]] == [row["id"] for row in one["rows"]] == ids
    for first, second in zip(one["rows"], two["rows"], strict=True):
        assert second["emotion"]["probabilities"] == pytest.approx(first["emotion"]["probabilities"], abs=1e-4)
        assert second["asr"] == first["asr"]
    for first, second in zip(one["log"], two["log"], strict=True):
        assert second == pytest.approx(first, rel=1e-3)


def test_the_sampler_of_a_run_resumed_within_an_epoch_has_the_order_of_that_epoch(tmp_path):
    made = trainer(tmp_path)
    sampler = made._get_train_sampler()
    made.state.epoch = 3.5
    made.callback_handler.on_epoch_begin(made.args, made.state, made.control)
    assert sampler.epoch == 3


if __name__ == "__main__":
    command_line(lambda: two_epochs(Path(sys.argv[1]), *map(int, sys.argv[2:])))


def test_heard_characters_are_those_of_greedy_ctc():
    torch.manual_seed(0)
    logits, lengths = torch.randn(20, 30, 4), torch.randint(1, 31, (20,))
    heard = heard_characters(logits, lengths, blank=0)
    for best, length, found in zip(logits.argmax(dim=-1).tolist(), lengths.tolist(), heard.tolist(), strict=True):
        expected = [character for character, _ in groupby(best[:length]) if character != 0]
        assert found == expected + [-100] * (len(found) - len(expected))


def test_transcripts_are_those_of_the_tokenizer():
    tokenizer = character_tokenizer(["ab ba cd's"])
    random = np.random.default_rng(0)
    heard = [random.integers(1, len(tokenizer), n).tolist() for n in (0, 1, 9, 40)]
    padded = [row + [-100] * (40 - len(row)) for row in heard]
    assert as_text(padded, tokenizer) == tokenizer.batch_decode(heard, group_tokens=False)


def test_what_is_kept_of_an_utterance_does_not_grow_with_its_length(tmp_path):
    made = trainer(tmp_path)
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
        RunArguments(output_dir="out", head_start=0.1, lr_scheduler_type=schedule, use_cpu=True)


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
    made = trainer(tmp_path, per_device_train_batch_size=4, num_train_epochs=2, logging_strategy="epoch")
    made.add_callback(watch := InSteps())
    made.train()
    assert watch.steps == 4
    assert watch.waiting.found == []


def test_the_filter_of_losses_that_are_not_finite_would_wait_in_each_step(tmp_path):
    made = trainer(tmp_path, per_device_train_batch_size=4, logging_nan_inf_filter=True)
    made.add_callback(watch := InSteps())
    made.train()
    assert watch.waiting.found == ["aten::_local_scalar_dense"] * watch.steps
