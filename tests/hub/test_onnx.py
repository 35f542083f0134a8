"""An exported graph gives the logits of the model, padded or not, and answers without torch."""

import json
import re
import shutil
import subprocess
import sys
import venv
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers.encoders import ENCODERS
from helpers.tiny import ROOT, SAMPLING_RATE, check_one_line, contents, run_script, tone
from test_export import padded_batch, random_model
from transformers import Wav2Vec2Processor

import ser_mtl
from answers_ser_mtl import adapters_off, transcript_source
from modeling_ser_mtl import SerMtlModel
from ser_mtl.hub import onnx as exporting
from ser_mtl.hub.onnx import OnnxModel, export, quantize, set_metadata, write_onnx

EXAMPLE = re.search(r"^```python\n(.*?)^```$", (ROOT / "docs/onnx.md").read_text(), re.MULTILINE | re.DOTALL)[1]
BLOCKED = """
import runpy, sys
for name in ("torch", "transformers", "onnx", "ser_mtl", "modeling_ser_mtl"):
    sys.modules[name] = None  # an import of it fails, as where it is not installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def exported(finished2, tmp_path_factory) -> Path:
    """The graph of a run of stage 2."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("onnx")
    ended = run_script("export", [finished2, "--to", "onnx", "--output_dir", folder])
    assert (ended.code, ended.stdout) == (0, f"written to {folder / 'model.onnx'}\n"), ended.stderr
    return folder / "model.onnx"


def run_graph(file: Path, waveforms: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    values = session.run(names, {"input_values": waveforms.numpy(), "attention_mask": mask.numpy()})
    return {name: torch.from_numpy(value) for name, value in zip(names, values, strict=True)}


def check_same(outputs: dict[str, torch.Tensor], model: SerMtlModel, waveforms: torch.Tensor, mask: torch.Tensor):
    with torch.inference_mode():
        expected = model(waveforms, mask)
        with adapters_off(model) if transcript_source(model) == "frozen" else nullcontext():
            characters = model(waveforms, mask).asr_logits
    close = {"atol": 1e-4, "rtol": 0}
    assert outputs["frame_lengths"].tolist() == expected.frame_lengths.tolist()
    for task, logits in expected.task_logits.items():
        torch.testing.assert_close(outputs[f"{task}_logits"], logits, **close)
    assert ("asr_logits" in outputs) == (transcript_source(model) is not None)
    if "asr_logits" in outputs:
        for row, frames in enumerate(expected.frame_lengths):
            torch.testing.assert_close(outputs["asr_logits"][row, :frames], characters[row, :frames], **close)


def batches() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Waveforms and masks: padded, in another order and number, alone, and one shorter than a frame of any encoder."""
    waveforms, mask = padded_batch()
    short = (torch.arange(3000) < torch.tensor([[3000], [90]])).long()
    return [
        (waveforms, mask),
        (waveforms[[1, 0, 1]], mask[[1, 0, 1]]),
        (waveforms[1:, :3000], mask[1:, :3000]),
        (waveforms[:, :3000] * short, short),
    ]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_form_for_export_gives_the_logits_of_the_model(encoder):
    model = random_model(encoder, bottleneck_dim=8, fusion="concat")
    for waveforms, mask in batches():
        with torch.inference_mode():
            outputs = OnnxModel(model)(waveforms, mask)
        check_same(dict(zip(OnnxModel(model).outputs, outputs, strict=True)), model, waveforms, mask)


def test_the_graph_of_a_run_gives_its_logits_in_any_batch(exported, finished2):
    model = SerMtlModel.from_pretrained(finished2).eval()
    for waveforms, mask in batches():
        check_same(run_graph(exported, waveforms, mask), model, waveforms, mask)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_family_is_exported(encoder, tmp_path):
    pytest.importorskip("onnxruntime")
    model = random_model(encoder, bottleneck_dim=8, fusion="concat")
    export(model, tmp_path / "model.onnx", large=False)
    for waveforms, mask in batches():
        check_same(run_graph(tmp_path / "model.onnx", waveforms, mask), model, waveforms, mask)


@pytest.mark.slow
def test_stage_1_and_a_merged_run_are_exported(finished, finished2, tmp_path):
    pytest.importorskip("onnxruntime")
    run_script("export", [finished2, "--to", "merged", "--output_dir", tmp_path / "merged"])
    for run in (finished, tmp_path / "merged"):
        file = write_onnx(run, tmp_path / "onnx")
        for waveforms, mask in batches():
            check_same(run_graph(file, waveforms, mask), SerMtlModel.from_pretrained(run).eval(), waveforms, mask)


@pytest.mark.slow
def test_more_weights_than_one_file_holds_are_in_a_second(finished, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(exporting, "ONE_FILE", 0)
    for int8 in (False, True):
        file = write_onnx(finished, tmp_path, int8)
        assert file.with_name(f"{file.name}.data").stat().st_size > 30_000
        assert set(run_graph(file, *padded_batch())) == {"emotion_logits", "asr_logits", "frame_lengths"}
    assert len(contents(tmp_path)) == 4


def test_int8_changes_matrix_products_alone_for_each_channel(exported, tmp_path):
    import onnx

    quantize(exported, tmp_path / "int8.onnx", large=False)
    before, after = (onnx.load(file).graph for file in (exported, tmp_path / "int8.onnx"))
    count = {
        kind: sum(node.op_type == kind for node in after.node) for kind in ("Conv", "MatMulInteger", "ConvInteger")
    }
    assert count["ConvInteger"] == 0 < count["MatMulInteger"]
    assert count["Conv"] == sum(node.op_type == "Conv" for node in before.node) > 0
    scales = [onnx.numpy_helper.to_array(w) for w in after.initializer if w.name.endswith("_scale")]
    assert scales and all(scale.size > 1 for scale in scales)
    outputs, exact = (run_graph(file, *padded_batch()) for file in (tmp_path / "int8.onnx", exported))
    assert 0 < (outputs["emotion_logits"] - exact["emotion_logits"]).abs().max() < 0.1


def test_int8_reaches_a_weight_that_two_products_take_transposed(tmp_path):
    onnx, onnxruntime = map(pytest.importorskip, ("onnx", "onnxruntime"))
    from onnx import TensorProto, helper, numpy_helper

    drawn = np.random.default_rng(0)
    weight = drawn.normal(size=(3, 8)).astype(np.float32)
    nodes = [
        made
        for name in ("a", "b")
        for made in (
            helper.make_node("Transpose", ["weight"], [f"t{name}"], perm=[1, 0]),
            helper.make_node("MatMul", ["x", f"t{name}"], [name]),
        )
    ]
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 8])]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 3]) for name in ("a", "b")]
    graph = helper.make_graph(nodes, "shared", values, outputs, [numpy_helper.from_array(weight, "weight")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", exporting.OPSET)], ir_version=10)
    onnx.save(model, tmp_path / "float32.onnx")
    quantize(tmp_path / "float32.onnx", tmp_path / "int8.onnx", large=False)
    after = onnx.load(tmp_path / "int8.onnx").graph
    kinds = [w.data_type for w in after.initializer if len(w.dims) == 2]
    assert kinds == [TensorProto.INT8]  # one copy for both
    x = drawn.normal(size=(5, 8)).astype(np.float32)
    for found in onnxruntime.InferenceSession(tmp_path / "int8.onnx").run(None, {"x": x}):
        np.testing.assert_allclose(found, x @ weight.T, atol=0.1)


def test_the_example_of_the_docs_answers_as_the_recognizer_without_torch(exported, finished2, tmp_path):
    assert len([line for line in EXAMPLE.splitlines() if line]) <= 30
    (tmp_path / "answer.py").write_text(EXAMPLE)
    (tmp_path / "blocked.py").write_text(BLOCKED)
    for name, seconds in (("long.wav", 0.6), ("short.wav", 0.005)):
        noise = np.random.default_rng(0).normal(0, 0.1, round(seconds * SAMPLING_RATE))
        soundfile.write(tmp_path / name, np.stack([tone(440, seconds), noise], axis=1), SAMPLING_RATE)
        words = [sys.executable, "blocked.py", "answer.py", exported, name]
        ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        check_answer(ended.stdout, ser_mtl.load(finished2, device="cpu")(tmp_path / name))


def test_the_example_refuses_what_is_longer_than_the_encoder_has_positions_for(exported, tmp_path):
    file = Path(shutil.copy(exported, tmp_path / "whisper.onnx"))
    set_metadata(file, {"sampling_rate": SAMPLING_RATE, "longest_input": 4800})
    (tmp_path / "answer.py").write_text(EXAMPLE)
    soundfile.write(tmp_path / "tone.wav", tone(440, 0.4), SAMPLING_RATE)
    words = [sys.executable, "answer.py", file, "tone.wav"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (1, "tone.wav: resample it to 16000 Hz, or cut it to 4800 samples\n")


def check_answer(printed: str, answer: dict) -> None:
    """What the example prints is the recognizer's answer, to the 16 bits of its samples."""
    *tasks, transcript = printed.splitlines()
    for line, task in zip(
        tasks, [name for name in answer if name not in ("duration", "transcript", "segments")], strict=True
    ):
        name, _, probabilities = line.partition(" ")
        assert name == task
        assert json.loads(probabilities.replace("'", '"')) == pytest.approx(answer[task]["probabilities"], abs=1e-3)
    assert transcript == answer["transcript"]


@pytest.mark.slow
def test_the_example_runs_where_three_packages_are_installed(exported, finished2, tmp_path):
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare/bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "numpy", "onnxruntime", "soundfile"], check=True)
    assert subprocess.run([python, "-c", "import torch"], capture_output=True).returncode == 1
    (tmp_path / "answer.py").write_text(EXAMPLE)
    soundfile.write(tmp_path / "tone.wav", tone(440, 0.6), SAMPLING_RATE)
    words = [python, "answer.py", exported, "tone.wav"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    check_answer(ended.stdout, ser_mtl.load(finished2, device="cpu")(tmp_path / "tone.wav"))


def test_the_metadata_is_what_the_run_knows(exported, finished2):
    import onnxruntime

    values = onnxruntime.InferenceSession(exported).get_modelmeta().custom_metadata_map
    about = {name: json.loads(value) for name, value in values.items()}
    model, processor = SerMtlModel.from_pretrained(finished2), Wav2Vec2Processor.from_pretrained(finished2)
    assert list(about["labels"].items()) == [
        (task, model.config.labels[task]) for task in ("emotion", "gender", "style")
    ]
    assert about["temperature"] == model.config.temperature != 1
    assert {token: i for i, token in enumerate(about["vocabulary"])} == processor.tokenizer.get_vocab()
    assert about["vocabulary"][about["blank"]] == processor.tokenizer.pad_token
    assert {about["vocabulary"][i] for i in about["special"]} >= {
        processor.tokenizer.pad_token,
        processor.tokenizer.unk_token,
    }
    assert about["word_delimiter"] == processor.tokenizer.word_delimiter_token
    assert (about["sampling_rate"], about["normalise"]) == (16_000, processor.feature_extractor.do_normalize)
    shortest = about["receptive_field"]
    assert model.convolutions() and model.encoder.feature_extractor(torch.zeros(1, shortest)).shape[-1] == 1
    with pytest.raises(RuntimeError):
        model.encoder.feature_extractor(torch.zeros(1, shortest - 1))


def test_the_file_names_no_path_of_this_machine(exported, finished):
    content = exported.read_bytes()
    assert [text for text in (str(ROOT), str(finished.parent), ".py", sys.prefix) if text.encode() in content] == []


def test_without_the_extra_one_line_says_what_to_install(finished, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    check_one_line(
        run_script("export", [finished, "--to", "onnx"]), "export", "pip install onnx onnxscript onnxruntime"
    )
    assert not (finished / "onnx").exists()


def test_an_output_folder_that_is_a_file_is_one_line(finished, tmp_path):
    pytest.importorskip("onnxruntime")
    (tmp_path / "file").write_text("kept")
    ended = run_script("export", [finished, "--to", "onnx", "--output_dir", tmp_path / "file"])
    check_one_line(ended, "export", f"--output_dir {tmp_path / 'file'}")
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("form", ["merged", "wav2vec2"])
def test_int8_is_for_onnx_alone(finished, form):
    check_one_line(run_script("export", [finished, "--to", form, "--int8"]), "export", "--int8", "--to onnx")
    assert not (finished / form).exists()
