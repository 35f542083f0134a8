"""Pins what the earlier systems need: heads on a learned average of frozen layers, and a stage 1 without emotion."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.encoders import ENCODERS, all_tasks_config
from helpers.tiny import check_refused, run_flags, run_script
from safetensors.torch import load_file
from test_modeling import padded_batch

from encoders_ser_mtl import log_mel
from modeling_ser_mtl import LayerWeights, SerMtlConfig, SerMtlModel, loss_weights
from ser_mtl.evaluation.predictions import read_predictions


def test_layers_are_averaged_with_the_softmax_of_their_weights():
    average = LayerWeights(2)
    outputs = [torch.tensor([[[1.0, 3.0]]]), torch.tensor([[[8.0, 4.0]]])]  # normalised: [-1, 1] and [1, -1]
    torch.testing.assert_close(average(outputs), torch.zeros(1, 1, 2), atol=1e-4, rtol=0)
    with torch.no_grad():
        average.weights.copy_(torch.tensor([3.0, 1.0]).log())  # 3/4 and 1/4
    torch.testing.assert_close(average(outputs), torch.tensor([[[-0.5, 0.5]]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_the_average_is_over_the_first_layers_input_and_all_outputs(encoder):
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(encoder, layer_weights=True)).eval()
    model.layer_weights.weights.copy_(torch.tensor([0.5, -1.0, 2.0]))
    samples = model.longest_input or 8000  # stock Whisper takes no other length
    waveform = torch.randn(1, samples)
    frames, *_ = model.encode(*model.extract_features(waveform))
    heard = log_mel(waveform, torch.tensor([samples]), model.encoder.mel_filters) if model.family.log_mel else waveform
    states = model.encoder(heard, output_hidden_states=True).hidden_states
    weights = torch.tensor([0.5, -1.0, 2.0]).softmax(dim=0)
    expected = sum(w * F.layer_norm(state, state.shape[-1:]) for w, state in zip(weights, states, strict=True))
    # The last of Moonshine's states has been through its final norm, whose epsilon counts for outputs so small.
    torch.testing.assert_close(frames, expected, atol=0.03, rtol=0)
    assert frames.std() > 0.3


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_padding_changes_nothing_in_the_average(encoder):
    torch.manual_seed(0)
    model = SerMtlModel(all_tasks_config(encoder, layer_weights=True)).eval()
    waveforms, mask = padded_batch()
    together = model(waveforms, mask)
    for i, length in enumerate(mask.sum(dim=1).tolist()):
        alone = model(waveforms[i : i + 1, :length])
        torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-4, rtol=0)


def run(script: str, corpus: Path, output: Path, **flags: object) -> Path:
    ended = run_script(script, run_flags(corpus, output, **flags))
    assert ended.code == 0, ended.stderr
    return output


@pytest.fixture(scope="module")
def heads_alone(good_corpus, encoder, tmp_path_factory) -> Path:
    flags = {"tasks": ["emotion"], "trainable": "heads", "embedding_dim": 16, "learning_rate": 1e-2}
    return run("run_stage1", good_corpus, tmp_path_factory.mktemp("heads") / "out", encoder=encoder, **flags)


def test_heads_alone_leave_the_encoder_as_it_was_and_move_all_else(encoder, heads_alone):
    before, after = load_file(encoder / "model.safetensors"), load_file(heads_alone / "model.safetensors")
    encoder = {
        f"encoder.{name}": value for name, value in before.items() if name != "masked_spec_embed"
    }  # masks nothing
    assert encoder.keys() == {name for name in after if name.startswith("encoder.")}
    assert all(torch.equal(after[name], value) for name, value in encoder.items())
    config = SerMtlConfig.from_pretrained(heads_alone)
    start = SerMtlModel(config).state_dict()
    trained = [name for name in after if not name.startswith("encoder.")]
    assert "layer_weights.weights" in trained and "heads.emotion.adapter.0.weight" in trained
    assert all(after[name].shape == start[name].shape for name in trained)
    assert after["layer_weights.weights"].abs().sum() > 0


def test_a_frozen_encoder_is_not_disturbed_while_its_heads_are_trained(heads_alone):
    config = SerMtlConfig.from_pretrained(heads_alone).encoder_config
    assert (config.hidden_dropout, config.attention_dropout, config.mask_time_prob) == (0, 0, 0)


def test_heads_alone_load_again_and_give_the_probabilities_of_the_run(good_corpus, heads_alone):
    import soundfile
    from transformers import AutoFeatureExtractor

    model = SerMtlModel.from_pretrained(heads_alone).eval()
    extractor = AutoFeatureExtractor.from_pretrained(heads_alone)
    row = read_predictions(heads_alone / "predictions.jsonl")[0]
    samples, rate = soundfile.read(good_corpus / row["id"], dtype="float32")
    with torch.inference_mode():
        logits = model(**extractor(samples, sampling_rate=rate, return_tensors="pt")).logits
    expected = list(row["emotion"]["probabilities"].values())
    assert logits.softmax(dim=-1)[0].tolist() == pytest.approx(expected, abs=1e-4)


def test_stage_two_does_not_go_on_from_heads_alone(good_corpus, heads_alone, tmp_path):
    check_refused("run_stage2", run_flags(good_corpus, tmp_path / "out", stage1=heads_alone), "--trainable heads")


# ------------------------------------------------------------------------------------------- a stage 1 without emotion


@pytest.fixture(scope="module")
def without_emotion(good_corpus, encoder, tmp_path_factory) -> Path:
    flags = {"tasks": ["asr", "gender"], "selection": "last"}
    return run("run_stage1", good_corpus, tmp_path_factory.mktemp("prepared") / "out", encoder=encoder, **flags)


def test_without_emotion_all_tasks_weigh_the_same():
    config = SerMtlConfig(tasks=["gender", "asr"], labels={"gender": ["f", "m"]})
    assert loss_weights(config) == {"gender": 0.5, "asr": 0.5}


def test_a_stage_without_emotion_scores_its_own_tasks_alone(without_emotion):
    test = json.loads((without_emotion / "results.json").read_text())["test"]["all"]
    assert set(test) == {"n", "gender", "asr"}
    assert "emotion" not in read_predictions(without_emotion / "predictions.jsonl")[0]
    assert not (without_emotion / "confusion_matrix.png").exists()
    assert not any(name.startswith("heads.emotion") for name in load_file(without_emotion / "model.safetensors"))
    assert "confusion_matrix" not in (without_emotion / "README.md").read_text()


def test_a_stage_without_emotion_must_say_that_its_last_epoch_is_kept(good_corpus, encoder, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", encoder=encoder, tasks=["asr", "gender"])
    check_refused("run_stage1", flags, "--tasks", "--selection last")


def test_stage_two_needs_emotion(good_corpus, without_emotion, tmp_path):
    flags = run_flags(good_corpus, tmp_path / "out", stage1=without_emotion, tasks=["gender"], selection="last")
    check_refused("run_stage2", flags, "--tasks", "emotion")


def test_stage_two_trains_emotion_on_what_was_prepared(good_corpus, without_emotion, tmp_path):
    flags = {"stage1": without_emotion, "tasks": ["emotion"], "trainable": "all"}
    still = run("run_stage2", good_corpus, tmp_path / "still", learning_rate=0, **flags)
    before, after = (load_file(folder / "model.safetensors") for folder in (without_emotion, still))
    assert all(torch.equal(after[name], before[name]) for name in before if not name.startswith("heads."))
    assert after["heads.emotion.classifier.weight"].abs().sum() > 0
    trained = load_file(run("run_stage2", good_corpus, tmp_path / "trained", **flags) / "model.safetensors")
    layers = [name for name in before if name.startswith("encoder.encoder.layers.")]
    assert layers and not any(torch.equal(trained[name], before[name]) for name in layers)
