"""Pins `ser-mtl predict`: the answers of the run, whatever the batch; any format; a broken file stops no other."""

import csv
import json
import shutil
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone
from transformers import Wav2Vec2Processor, pipeline

from answers_ser_mtl import length_groups
from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.audio import decode
from ser_mtl.evaluation.predictions import read_predictions
from ser_mtl.inference.formats import text_lines
from ser_mtl.inference.recognizer import infer


@pytest.fixture(scope="module")
def model(finished2) -> tuple[SerMtlModel, Wav2Vec2Processor]:
    return SerMtlModel.from_pretrained(finished2).eval(), Wav2Vec2Processor.from_pretrained(finished2)


def utterances() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 3000, n).astype(np.int16) for n in (3000, 9000, 4000, 100, 8000, 9000, 40)]


def flat(answer: dict) -> list[float]:
    return [p for part in answer.values() if isinstance(part, dict) for p in part["probabilities"].values()]


def answers_in(stdout: str) -> list[dict]:
    return json.loads(stdout)


# --------------------------------------------------------------------------------------------------------- inference


def test_emotion_probabilities_are_scaled_by_the_models_temperature(model, monkeypatch):
    monkeypatch.setattr(model[0].config, "temperature", 1.0)
    plain = infer(*model, utterances())
    monkeypatch.setattr(model[0].config, "temperature", 2.0)
    for answer, before in zip(infer(*model, utterances()), plain, strict=True):
        p = np.sqrt(list(before["emotion"]["probabilities"].values()))  # softmax(z / 2)
        assert list(answer["emotion"]["probabilities"].values()) == pytest.approx(list(p / p.sum()), abs=1e-6)
        assert answer["gender"] == before["gender"]
    for answer, before in zip(infer(*model, utterances(), raw=True), plain, strict=True):
        assert answer == before


@pytest.mark.parametrize("batch_seconds", [0.1, 1.2, 64])
def test_an_utterance_has_the_same_answer_alone_and_in_any_batch(model, batch_seconds):
    together = infer(*model, utterances(), batch_seconds)
    for samples, answer in zip(utterances(), together, strict=True):
        (alone,) = infer(*model, [samples])
        assert flat(answer) == pytest.approx(flat(alone), abs=1e-5)
        assert answer["transcript"] == alone["transcript"]


def test_integers_and_floats_are_the_same_sound(model):
    whole = utterances()
    for a, b in zip(infer(*model, whole), infer(*model, [s.astype(np.float32) / 32768 for s in whole]), strict=True):
        assert flat(a) == flat(b)


@torch.inference_mode()
def test_an_answer_is_what_the_model_says_of_the_waveform(model):
    network, processor = model
    samples = utterances()[1]
    output = network(**processor(samples / 32768, sampling_rate=SAMPLING_RATE, return_tensors="pt"))
    (answer,) = infer(*model, [samples])
    calibrated = output.task_logits["emotion"] / network.config.temperature
    assert torch.equal(output.logits, calibrated)
    for task, logits in (dict(output.task_logits) | {"emotion": calibrated}).items():
        p = logits.softmax(-1)[0]
        part = answer[task]
        assert part["label"] == network.config.labels[task][p.argmax()]
        assert part["probability"] == max(part["probabilities"].values()) == pytest.approx(float(p.max()), abs=1e-6)
        assert list(part["probabilities"]) == network.config.labels[task]


def test_a_pipeline_gives_the_probabilities_of_the_recognizer(model):
    network, processor = model
    assert network.config.temperature != 1
    classify = pipeline("audio-classification", model=network, feature_extractor=processor.feature_extractor)
    for samples in utterances():
        scores = {answer["label"]: answer["score"] for answer in classify(samples.astype(np.float32) / 32768)}
        (answer,) = infer(network, processor, [samples])
        assert answer["emotion"]["probabilities"] == pytest.approx(scores, abs=1e-6)


def test_the_temperature_changes_no_loss(model, monkeypatch):
    network, _ = model
    batch = {"input_values": torch.randn(2, 4000), "emotion_labels": torch.tensor([0, 1])}
    losses = []
    for temperature in (1.0, 3.0):
        monkeypatch.setattr(network.config, "temperature", temperature)
        losses.append(network(**batch).loss)
    assert losses[0] == losses[1]


@torch.inference_mode()
def test_a_transcript_is_what_the_processor_decodes(finished):
    network, processor = SerMtlModel.from_pretrained(finished).eval(), Wav2Vec2Processor.from_pretrained(finished)
    for samples in utterances():
        output = network(**processor(samples / 32768, sampling_rate=SAMPLING_RATE, return_tensors="pt"))
        (answer,) = infer(network, processor, [samples])
        assert answer["transcript"] == processor.batch_decode(output.asr_logits.argmax(-1))[0].replace("[UNK]", "")


def test_groups_hold_every_utterance_once_and_keep_to_the_budget():
    lengths = [5, 100, 7, 7, 30, 1, 29]
    groups = list(length_groups(lengths, 60))
    assert sorted(row for group in groups for row in group) == list(range(len(lengths)))
    assert groups[0] == [1]  # longer than the budget: alone
    assert all(len(group) * max(lengths[row] for row in group) <= 60 for group in groups[1:])
    assert len(groups) == 3
    assert list(length_groups([], 60)) == []


# -------------------------------------------------------------------------------------------------------- predict.py


def test_the_test_fold_gets_the_answers_of_the_run(finished2, good_corpus):
    rows = {str(good_corpus / row["id"]): row for row in read_predictions(finished2 / "predictions.jsonl")}
    ended = run_script("predict", [*rows, "--model", finished2, "--format", "json"])
    assert ended.code == 0, ended.stderr
    answers = answers_in(ended.stdout)
    assert [answer["file"] for answer in answers] == list(rows)
    assert json.loads((finished2 / "config.json").read_text())["temperature"] != 1
    for answer in answers:
        row = rows[answer["file"]]
        for task in ("emotion", "gender", "style"):
            assert answer[task]["probabilities"] == pytest.approx(row[task]["probabilities"], abs=1e-5)
        assert answer["transcript"] == row["asr"]["hypothesis"]


def test_a_folder_is_looked_through_and_other_files_are_left(finished2, tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.wav", "deep/a.flac", "c.WAV"):
        soundfile.write(tmp_path / name, tone(440, 0.4), SAMPLING_RATE)
    (tmp_path / "metadata.csv").write_text("file_name\n")
    ended = run_script("predict", [tmp_path, "--model", finished2, "--format", "json"])
    assert [Path(answer["file"]).name for answer in answers_in(ended.stdout)] == ["b.wav", "c.WAV", "a.flac"]


def test_a_file_named_twice_is_answered_twice(finished2, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    ended = run_script("predict", [tmp_path, tmp_path / "a.wav", "--model", finished2, "--format", "json"])
    first, second = answers_in(ended.stdout)
    assert flat(first) == pytest.approx(flat(second), abs=1e-6)


def test_any_rate_and_number_of_channels_is_decoded(model, finished2, tmp_path):
    file = tmp_path / "stereo.wav"
    both = np.stack([tone(330, 0.5, 44_100), tone(440, 0.5, 44_100)], axis=1)
    soundfile.write(file, both, 44_100)
    (answer,) = answers_in(run_script("predict", [file, "--model", finished2, "--format", "json"]).stdout)
    assert flat(answer) == pytest.approx(flat(infer(*model, [decode(file)])[0]), abs=1e-6)


def test_a_broken_file_is_one_line_and_the_rest_goes_on(finished2, tmp_path):
    for name in ("a.wav", "z.wav"):
        soundfile.write(tmp_path / name, tone(440, 0.4), SAMPLING_RATE)
    (tmp_path / "m.wav").write_bytes(b"RIFF and no more")
    ended = run_script("predict", [tmp_path, tmp_path / "gone.wav", "--model", finished2, "--format", "json"])
    assert [Path(answer["file"]).name for answer in answers_in(ended.stdout)] == ["a.wav", "z.wav"]
    lines = [line for line in ended.stderr.splitlines() if line.strip() and "%|" not in line]
    assert [name for line in lines for name in ("m.wav", "gone.wav", "2 of 4") if name in line] == [
        "m.wav", "gone.wav", "2 of 4",
    ]  # fmt: skip
    assert ended.code == 2 and "Traceback" not in ended.stderr


def test_csv_has_a_row_a_file_with_all_probabilities(finished2, tmp_path):
    soundfile.write(tmp_path / "a, b.wav", tone(440, 0.4), SAMPLING_RATE)
    flags = [tmp_path, "--model", finished2, "--format"]
    (row,) = csv.DictReader(StringIO(run_script("predict", [*flags, "csv"]).stdout))
    (answer,) = answers_in(run_script("predict", [*flags, "json"]).stdout)
    assert row["file"] == str(tmp_path / "a, b.wav")
    assert row["emotion"] == answer["emotion"]["label"]
    assert float(row["emotion_sad"]) == pytest.approx(answer["emotion"]["probabilities"]["sad"], abs=1e-5)
    assert float(row["gender_probability"]) == pytest.approx(answer["gender"]["probability"], abs=1e-5)
    assert row["transcript"] == answer["transcript"]
    (raw,) = csv.DictReader(StringIO(run_script("predict", [*flags, "csv", "--raw"]).stdout))
    temperature = json.loads((finished2 / "config.json").read_text())["temperature"]
    names = list(answer["emotion"]["probabilities"])
    plain = np.array([float(raw[f"emotion_{name}"]) for name in names]) ** (1 / temperature)
    assert list(plain / plain.sum()) == pytest.approx([float(row[f"emotion_{name}"]) for name in names], abs=1e-4)


def test_bfloat16_gives_nearly_the_same_probabilities(finished2, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    flags = [tmp_path, "--model", finished2, "--format", "json", "--dtype"]
    exact, near = (answers_in(run_script("predict", [*flags, dtype]).stdout)[0] for dtype in ("float32", "bfloat16"))
    for task in ("emotion", "gender", "style"):
        assert near[task]["probabilities"] == pytest.approx(exact[task]["probabilities"], abs=0.05)
        assert near[task]["probabilities"] != exact[task]["probabilities"]


def test_text_is_one_line_per_file_without_the_tasks_a_model_lacks(finished, tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    ended = run_script("predict", [tmp_path, "--model", finished])
    (answer,) = answers_in(run_script("predict", [tmp_path, "--model", finished, "--format", "json"]).stdout)
    assert set(answer) == {"file", "duration", "emotion", "transcript", "segments"}
    emotion = f"{answer['emotion']['label']} {answer['emotion']['probability']:.2f}"
    words = f': "{answer["transcript"]}"' if answer["transcript"] else ""
    assert ended.stdout == f"{tmp_path / 'a.wav'}: {emotion}{words}\n"


def test_nothing_but_broken_files_is_still_valid_json(finished2, tmp_path):
    (tmp_path / "m.wav").write_bytes(b"")
    ended = run_script("predict", [tmp_path, "--model", finished2, "--format", "json"])
    assert (ended.code, answers_in(ended.stdout)) == (2, [])


def test_without_a_model_it_takes_the_run_that_finished_last(finished, finished2, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    soundfile.write("a.wav", tone(440, 0.4), SAMPLING_RATE)
    check_one_line(run_script("predict", ["a.wav"]), "predict", "--model", "runs/")
    shutil.copytree(finished2, "runs/folder/stage2/fold1")
    shutil.copytree(finished, "runs/folder/stage1/fold1")
    Path("runs/folder/stage2/fold1/results.json").touch()
    ended = run_script("predict", ["a.wav", "--format", "json"])
    assert "model: runs/folder/stage2/fold1" in ended.stderr
    assert "gender" in answers_in(ended.stdout)[0]


def test_mistakes_are_one_line(hub, finished2, encoder, tmp_path):
    check_one_line(run_script("predict", [tmp_path, "--model", finished2]), "predict", tmp_path, "no audio file")
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    damaged = shutil.copytree(finished2, tmp_path / "damaged")
    (damaged / "adapter_model.safetensors").write_bytes(b"half of it")
    for model in ("ada/nowhere", tmp_path, encoder, damaged):
        check_one_line(run_script("predict", [tmp_path, "--model", model]), "predict", "--model", model)


def test_a_text_line_ends_with_the_words_if_there_are_any():
    answer = {"emotion": {"label": "sad", "probability": 0.7}, "transcript": ""}
    lines = text_lines(
        [(Path("a.wav"), answer), (Path("b.wav"), answer | {"transcript": "well"})], {"emotion": ["sad"]}
    )
    assert list(lines) == ["a.wav: sad 0.70", 'b.wav: sad 0.70: "well"']
