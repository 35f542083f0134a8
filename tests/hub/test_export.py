"""The stock classes of transformers, with a trained model's weights, compute the same logits."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from helpers.encoders import ENCODERS, all_tasks_config
from helpers.tiny import OWN, check_one_line, contents, run_script
from transformers import Wav2Vec2Processor, pipeline

from modeling_ser_mtl import SerMtlModel, ZeroLinear
from ser_mtl.hub.export import stock_classifier, stock_ctc

LENGTHS = (8000, 3000)


def random_model(encoder: str = "wav2vec2, layer norm", **more) -> SerMtlModel:
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(encoder, **more)).eval()
    for module in model.modules():
        if isinstance(module, ZeroLinear | torch.nn.Linear):  # biases too: at zero they would hide a mistake
            torch.nn.init.normal_(module.weight, std=0.2)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.2)
    return model


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.stack([(torch.arange(max(LENGTHS)) < n).long() for n in LENGTHS])
    return torch.randn(2, max(LENGTHS), generator=torch.Generator().manual_seed(1)) * mask, mask


@pytest.mark.parametrize("fusion", ["none", "concat"])
@torch.inference_mode()
def test_the_stock_classifier_gives_the_emotion_logits_padded_or_not(fusion):
    model = random_model(fusion=fusion)
    stock = stock_classifier(model)
    waveforms, mask = padded_batch()
    expected = model(waveforms, mask).logits
    torch.testing.assert_close(stock(waveforms, attention_mask=mask).logits, expected, atol=1e-5, rtol=0)
    assert stock.config.id2label == model.config.id2label


@torch.inference_mode()
def test_the_stock_ctc_model_gives_the_logits_of_every_real_frame():
    model = random_model()
    waveforms, mask = padded_batch()
    ours = model(waveforms, mask)
    theirs = stock_ctc(model)(waveforms, attention_mask=mask).logits
    for row, frames in enumerate(ours.frame_lengths):
        torch.testing.assert_close(theirs[row, :frames], ours.asr_logits[row, :frames], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_with_group_norm_they_agree_without_padding():
    model = random_model("wav2vec2, group norm")
    waveform = padded_batch()[0][:1]
    torch.testing.assert_close(stock_classifier(model)(waveform).logits, model(waveform).logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(stock_ctc(model)(waveform).logits, model(waveform).asr_logits, atol=1e-5, rtol=0)


def test_an_exported_run_loads_with_transformers_alone(finished, python, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    ended = run_script("export", [run, "--to", "wav2vec2"])
    assert ended.code == 0, ended.stderr
    waveform = torch.randn(1, 6000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        output = SerMtlModel.from_pretrained(finished)(waveform)
    torch.save((waveform, output.logits, output.asr_logits), tmp_path / "expected.pt")
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({OWN}))  # as if it were not installed"
        + """
import torch
from transformers import AutoModelForAudioClassification, AutoModelForCTC
waveform, emotion, characters = torch.load("expected.pt")
with torch.inference_mode():
    for auto, name, expected in (
        (AutoModelForAudioClassification, "emotion", emotion),
        (AutoModelForCTC, "ctc", characters),
    ):
        model = auto.from_pretrained(f"run/wav2vec2/{name}")
        assert type(model).__module__.startswith("transformers.")
        torch.testing.assert_close(model(waveform).logits, expected, atol=1e-5, rtol=0)
"""
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run([python, "-c", code], check=True, cwd=tmp_path, env=environment)


def test_the_exported_models_work_in_the_stock_pipelines(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    run_script("export", [run, "--to", "wav2vec2"])
    sound = torch.randn(6000, generator=torch.Generator().manual_seed(0)).numpy()
    answers = pipeline("audio-classification", model=str(run / "wav2vec2/emotion"))(sound)
    assert {answer["label"] for answer in answers} == {"angry", "sad"}
    transcribe = pipeline("automatic-speech-recognition", model=str(run / "wav2vec2/ctc"))
    processor = Wav2Vec2Processor.from_pretrained(finished)
    with torch.inference_mode():
        model = SerMtlModel.from_pretrained(finished)
        characters = model(**processor(sound, sampling_rate=16_000, return_tensors="pt")).asr_logits.argmax(-1)
    assert transcribe(sound)["text"] == processor.batch_decode(characters)[0]


def test_what_the_stock_classes_cannot_hold_is_named(finished2, tmp_path):
    ended = run_script("export", [finished2, "--to", "wav2vec2"])
    check_one_line(ended, "export", "bottleneck adapters", "--to merged", "stage 1")
    assert not (finished2 / "wav2vec2").exists()


def test_another_encoder_family_is_named(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["encoder_config"] = ENCODERS["HuBERT"].to_dict()
    (run / "config.json").write_text(json.dumps(config))
    check_one_line(run_script("export", [run, "--to", "wav2vec2"]), "export", "hubert")


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"layer_weights": True}, "layers"),
        ({"layer_statistics": True}, "--recipe paper"),
        ({"tasks": ["asr"]}, "emotion"),
    ],
)
def test_models_with_other_heads_are_not_exported(finished, tmp_path, changed, named):
    run = shutil.copytree(finished, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | changed))
    ended = run_script("export", [run, "--to", "wav2vec2"])
    check_one_line(ended, "export", "--to wav2vec2", named)
    assert not (run / "wav2vec2").exists()


@pytest.mark.parametrize("form", ["wav2vec2", "onnx"])
def test_a_damaged_vocabulary_is_named_whatever_the_form(finished, tmp_path, form):
    if form == "onnx":
        pytest.importorskip("onnxruntime")
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    (run / "vocab.json").write_text('{"a": "first"}')
    check_one_line(run_script("export", [run, "--to", form]), "export", run / "vocab.json", "is damaged")


@pytest.mark.parametrize(("form", "kind"), [("merged", 2), ("wav2vec2", 1)])
def test_an_export_replaces_nothing_but_an_earlier_one(finished, finished2, tmp_path, form, kind):
    run = finished2 if kind == 2 else finished
    mine = tmp_path / "models"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    for place in (mine, run, finished):
        before = contents(place)
        ended = run_script("export", [run, "--to", form, "--output_dir", place])
        check_one_line(ended, "export", place, "no earlier export")
        assert contents(place) == before
    (tmp_path / "file").touch()
    check_one_line(run_script("export", [run, "--to", form, "--output_dir", tmp_path / "file"]), "export", "is a file")
    (tmp_path / "link").symlink_to(tmp_path / "exported")
    for _ in range(2):  # it replaces the one of before, through a link too
        assert run_script("export", [run, "--to", form, "--output_dir", tmp_path / "link"]).code == 0
    (tmp_path / "exported/notes.txt").write_text("mine")
    ended = run_script("export", [run, "--to", form, "--output_dir", tmp_path / "exported"])
    check_one_line(ended, "export", "notes.txt")
