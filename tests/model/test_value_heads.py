"""A model that gives values: what its config refuses, its files, and answers on the scale of the annotations."""

import json

import numpy as np
import pytest
import torch
from helpers.encoders import all_tasks_config

from modeling_ser_mtl import SerMtlConfig, SerMtlModel, loss_weights
from pipeline_ser_mtl import _joined

SCALES = {"valence": [3.0, 0.5], "dominance": [40.0, 10.0]}
TASKS = ["emotion", "gender", "asr", "valence", "dominance"]


@pytest.fixture(scope="module")
def model() -> SerMtlModel:
    torch.manual_seed(0)
    return SerMtlModel(all_tasks_config(tasks=TASKS, value_scales=SCALES, scl="cos", fusion="concat")).eval()


@pytest.mark.parametrize(
    "scales",
    [
        {"valence": [3.0]},
        {"valence": [3.0, 0.0]},
        {"valence": [3.0, -1.0]},
        {"valence": [float("nan"), 1.0]},
        {"valence": [3.0, float("inf")]},
        {"valence": [3.0, 1.0], "emotion": [3.0, 1.0]},
        {"valence": [3.0, 1.0], "asr": [3.0, 1.0]},
        {"valence": [3.0, 1.0], "gender": [3.0, 1.0]},
        {"valence": "abc"},
        [3.0, 1.0],
    ],
    ids=str,
)
def test_a_scale_that_makes_no_sense_is_refused(scales):
    with pytest.raises(ValueError, match="value_scales"):
        all_tasks_config(tasks=["emotion", "gender", "valence"], value_scales=scales)


def test_a_value_without_a_scale_is_refused():
    with pytest.raises(ValueError, match="valence"):
        all_tasks_config(tasks=["emotion", "valence"])


def test_values_alone_are_a_model_without_labels():
    config = SerMtlConfig(tasks=["valence"], value_scales={"valence": [3, 1]})
    assert (config.labels, config.classification_tasks, config.value_tasks) == ({}, [], ["valence"])
    assert loss_weights(config) == {"valence": 1}


def test_a_head_of_zeros_answers_with_the_mean(model):
    torch.manual_seed(0)
    other = SerMtlModel(model.config).eval()
    for task in SCALES:
        torch.nn.init.zeros_(other.heads[task].classifier.weight)
    values = other(torch.randn(2, 4000)).task_values
    assert {task: x.tolist() for task, x in values.items()} == {"valence": [3, 3], "dominance": [40, 40]}


def test_values_take_no_part_in_fusion_and_scl(model):
    classes = all_tasks_config(tasks=TASKS[:3], scl="cos", fusion="concat")
    without = SerMtlModel(classes).eval()
    state = {name: x for name, x in model.state_dict().items() if not any(f"heads.{task}." in name for task in SCALES)}
    without.load_state_dict(state)
    inputs = {"input_values": torch.randn(2, 4000), "emotion_labels": torch.tensor([0, 1])}
    one, other = model(**inputs), without(**inputs)
    torch.testing.assert_close(one.logits, other.logits)
    torch.testing.assert_close(one.losses["scl"], other.losses["scl"])
    assert list(one.task_logits) == ["emotion", "gender"] and list(one.embeddings) == ["emotion", "gender", *SCALES]
    assert other.task_values is None


def test_a_saved_model_gives_the_same_values(model, tmp_path):
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["value_scales"] == SCALES
    samples = torch.randn(2, 4000)
    with torch.inference_mode():
        expected, values = (made.eval()(samples).task_values for made in (model, SerMtlModel.from_pretrained(tmp_path)))
    for task in SCALES:
        torch.testing.assert_close(values[task], expected[task])


def test_an_utterance_alone_and_in_a_batch_has_the_same_value(model):
    samples, mask = torch.randn(2, 4000), torch.ones(2, 4000, dtype=torch.long)
    mask[1, 2500:] = 0
    with torch.inference_mode():
        both, alone = model(samples, mask).task_values, model(samples[1:, :2500]).task_values
    torch.testing.assert_close(both["valence"][1:], alone["valence"], atol=1e-4, rtol=1e-4)


def test_the_value_of_a_long_recording_is_the_mean_over_its_segments():
    times = ({"start": 0.0, "end": 3.0}, {"start": 5.0, "end": 6.0})
    parts = [time | {"valence": {"value": v}, "transcript": "a"} for time, v in zip(times, (1.0, 4.0), strict=True)]
    whole = {"duration": 6.0, "valence": {"value": pytest.approx(1.75)}, "transcript": "a a", "segments": parts}
    assert _joined(6.0, parts) == whole


def test_an_exported_graph_gives_the_values(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from ser_mtl.hub.onnx import export

    export(model, tmp_path / "model.onnx", large=False)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    samples, mask = np.random.default_rng(0).normal(0, 0.1, (2, 4000)).astype(np.float32), np.ones((2, 4000), np.int64)
    names = [output.name for output in session.get_outputs()]
    outputs = dict(zip(names, session.run(names, {"input_values": samples, "attention_mask": mask}), strict=True))
    expected = model(torch.from_numpy(samples)).task_values
    for task in SCALES:
        np.testing.assert_allclose(outputs[f"{task}_value"], expected[task].detach().numpy(), atol=1e-3)
