"""The model: padding changes nothing, adapters start as no-ops, every encoder family works, round trips are exact."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from helpers.encoders import ENCODERS, LABELS, SIZE, all_tasks_config, stock_input
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModel, Wav2Vec2Config, Wav2Vec2ForPreTraining, WavLMConfig, WavLMModel

from modeling_ser_mtl import SerMtlConfig, SerMtlModel, ZeroLinear
from ser_mtl.model import fast_front_end
from ser_mtl.model.fast_front_end import strided_convolution, tile_layer
from ser_mtl.training.adapters import attach_adapters

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (8000, 3000, 300)


def padded_batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Three noises of different lengths: (3, samples) and the mask of real samples."""
    torch.manual_seed(0)
    mask = torch.stack([(torch.arange(max(LENGTHS)) < n).long() for n in LENGTHS])
    return torch.randn(3, max(LENGTHS)) * mask, mask


def random_model(config: SerMtlConfig) -> SerMtlModel:
    """A model in which what starts at zero is random too, so that nothing is hidden by zeros."""
    torch.manual_seed(0)
    model = SerMtlModel(config).eval()
    for module in model.modules():
        if isinstance(module, ZeroLinear):
            torch.nn.init.normal_(module.weight, std=0.2)
        if isinstance(module, torch.nn.LayerNorm) and module.elementwise_affine:
            torch.nn.init.normal_(module.weight, mean=1, std=0.2)
            if module.bias is not None:
                torch.nn.init.normal_(module.bias, std=0.2)
    return model


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_an_utterance_alone_and_in_a_padded_batch_gives_the_same(encoder):
    model = random_model(all_tasks_config(encoder, bottleneck_dim=8, fusion="concat"))
    waveforms, mask = padded_batch()
    together = model(waveforms, mask)
    for i, length in enumerate(LENGTHS):
        alone = model(waveforms[i : i + 1, :length])
        frames = int(alone.frame_lengths[0])
        assert frames == int(together.frame_lengths[i])
        torch.testing.assert_close(alone.logits[0], together.logits[i], atol=1e-5, rtol=0)
        for task in LABELS:
            torch.testing.assert_close(alone.task_logits[task][0], together.task_logits[task][i], atol=1e-5, rtol=0)
        torch.testing.assert_close(alone.asr_logits[0], together.asr_logits[i, :frames], atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_unpadded_hidden_states_are_those_of_the_stock_encoder(encoder):
    model = random_model(all_tasks_config(encoder))
    waveform, stock_takes = stock_input(model, padded_batch()[0][:1])
    frames, *_ = model.encode(*model.extract_features(waveform))
    torch.testing.assert_close(frames, model.encoder(stock_takes).last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("width", "stride"), [(10, 5), (3, 2), (2, 2), (7, 3), (4, 1)])
def test_strided_convolution_and_its_gradients_are_those_of_the_layer(width, stride):
    torch.manual_seed(0)
    conv = torch.nn.Conv1d(3, 5, width, stride, bias=width != 2)
    sound = torch.randn(2, 3, 47, requires_grad=True)
    gradient = torch.randn_like(conv(sound))
    inputs = [sound, *conv.parameters()]
    expected = torch.autograd.grad(conv(sound), inputs, gradient)
    result = strided_convolution(sound.transpose(1, 2), conv).transpose(1, 2)
    torch.testing.assert_close(result, conv(sound))
    torch.testing.assert_close(torch.autograd.grad(result, inputs, gradient), expected)


@pytest.mark.parametrize("width", [10, 3, 2])
@torch.inference_mode()
def test_a_layer_for_tiles_is_convolution_then_layer_norm_then_activation(width):
    torch.manual_seed(0)
    layer = torch.nn.Module()
    layer.conv = torch.nn.Conv1d(3, 5, width, 2, bias=width != 2)
    layer.layer_norm = torch.nn.LayerNorm(5)
    for parameter in layer.layer_norm.parameters():
        torch.nn.init.normal_(parameter)
    layer.activation = torch.nn.GELU()
    sound = torch.randn(1, 3, 47)
    expected = layer.activation(layer.layer_norm(layer.conv(sound).transpose(1, 2))).transpose(1, 2)
    torch.testing.assert_close(tile_layer(layer)(sound.unsqueeze(2)).squeeze(2), expected)


@pytest.mark.parametrize("encoder", ["wav2vec2, layer norm", "data2vec-audio"])
@pytest.mark.parametrize("frames", [[1], [9], [10], [11], [150], [151], [595], [310, 150, 149, 1, 1, 20]])
@torch.inference_mode()
def test_tiles_of_a_frozen_front_end_make_the_frames_of_the_stock_encoder(encoder, frames):
    model = random_model(all_tasks_config(encoder))
    field, step = fast_front_end.receptive_field(model)
    sounds = [torch.randn(field + (count - 1) * step + count % step) for count in frames]
    mask = pad_sequence([torch.ones(len(sound), dtype=torch.long) for sound in sounds], batch_first=True)
    features, lengths = fast_front_end.extract_features(model, pad_sequence(sounds, batch_first=True), mask)
    assert lengths.tolist() == frames
    for sound, count, found in zip(sounds, frames, features, strict=True):
        expected = model.encoder.feature_extractor(sound[None])[0].T
        torch.testing.assert_close(found[:count], expected)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_features_computed_before_give_what_waveforms_give(encoder):
    model = random_model(all_tasks_config(encoder))
    waveforms, mask = padded_batch()
    features, lengths = model.extract_features(waveforms, mask)
    before, at_once = model(features=features, frame_lengths=lengths), model(waveforms, mask)
    assert torch.equal(before.logits, at_once.logits)


@pytest.mark.parametrize("layer_weights", [False, True])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_model_answers_in_many_threads_as_in_one(encoder, layer_weights):
    model = random_model(all_tasks_config(encoder, layer_weights=layer_weights))
    sounds = [torch.randn(2, 1000 + 700 * i) for i in range(24)]

    def answer(waveforms: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return model(waveforms).logits

    alone = [answer(waveforms) for waveforms in sounds]
    with ThreadPoolExecutor(4) as threads:
        for before, after in zip(alone, threads.map(answer, sounds), strict=True):
            torch.testing.assert_close(after, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("encoder", ENCODERS)
@torch.inference_mode()
def test_new_adapters_change_nothing_bitwise(encoder):
    plain = SerMtlModel(all_tasks_config(encoder)).eval()
    adapted = SerMtlModel(all_tasks_config(encoder, bottleneck_dim=8, fusion="concat", scl="cos")).eval()
    missing, unexpected = adapted.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert all("adapter" in name or "fusion" in name or "fingerprint" in name for name in missing)
    adapted = attach_adapters(adapted, "base", lora_rank=4, lora_alpha=4).eval()
    waveforms, mask = padded_batch()
    before, after = plain(waveforms, mask), adapted(waveforms, mask)
    assert torch.equal(before.asr_logits, after.asr_logits)
    for task in LABELS:
        assert torch.equal(before.task_logits[task], after.task_logits[task]), task


@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_adapter_gets_a_gradient_and_nothing_else_does(encoder):
    model = random_model(all_tasks_config(encoder, bottleneck_dim=8, fusion="concat", tasks=list(LABELS)))
    model = attach_adapters(model, "base", lora_rank=4, lora_alpha=4)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # at zero it would leave lora_A without a gradient
            torch.nn.init.normal_(parameter, std=0.1)
    waveforms, mask = padded_batch()
    labels = {f"{task}_labels": torch.tensor([0, 1, 1]) for task in LABELS}
    model(input_values=waveforms, attention_mask=mask, **labels).loss.backward()
    for name, parameter in model.named_parameters():
        trained = any(part in name for part in ("lora_", "modules_to_save"))
        assert parameter.requires_grad == trained, name
        assert (parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)) == trained, name


def test_wavlm_attention_equals_the_stock_one():
    stock = WavLMModel(WavLMConfig(**SIZE)).eval()
    ours = SerMtlModel(all_tasks_config("WavLM")).eval()
    ours.encoder.load_state_dict(stock.state_dict())
    waveforms, _mask = padded_batch()
    frames, *_ = ours.encode(*ours.extract_features(waveforms[:2]))
    torch.testing.assert_close(frames, stock(waveforms[:2]).last_hidden_state, atol=1e-5, rtol=0)


def test_fusion_is_one_linear_classifier_on_the_concatenation():
    model = random_model(all_tasks_config(fusion="concat"))
    output = model(*padded_batch())
    classifier, parts = model.heads["emotion"].classifier, model.fusion.parts
    weight = torch.cat([classifier.weight, parts["gender"].weight, parts["style"].weight], dim=1)
    x = torch.cat([output.embeddings[task] for task in ("emotion", "gender", "style")], dim=1)
    torch.testing.assert_close(output.logits, x @ weight.T + classifier.bias)


def test_the_loss_of_the_model_is_the_weighted_sum_of_its_tasks():
    model = random_model(all_tasks_config(scl="norm", fusion="concat"))
    labels = {
        "emotion_labels": torch.tensor([0, -100, 3]),
        "gender_labels": torch.tensor([1, 1, 0]),
        "style_labels": torch.tensor([-100, -100, -100]),
        "asr_labels": torch.tensor([[3, 4], [-100, -100], [-100, -100]]),
    }
    output = model(*padded_batch(), **labels)
    losses = output.losses
    by_hand = (
        0.7 * losses["emotion"].sum() / 2
        + 0.1 * losses["gender"].sum() / 3
        + 0.1 * losses["asr"].sum()
        + losses["scl"].mean()
    )
    torch.testing.assert_close(output.loss, by_hand)


def test_heads_exist_for_the_tasks_and_the_ctc_head_for_a_vocabulary():
    model = SerMtlModel(all_tasks_config(tasks=["emotion"], vocab_size=None))
    assert list(model.heads) == ["emotion"]
    assert model.ctc_head is None
    assert model(*padded_batch()).asr_logits is None


def test_specaugment_works_on_utterances_shorter_than_a_span():
    config = all_tasks_config()
    config.encoder_config.mask_time_prob, config.encoder_config.mask_feature_prob = 0.5, 0.5
    model = SerMtlModel(config).train()
    assert model(torch.randn(2, 600)).logits.isfinite().all()


def test_a_stock_checkpoint_is_read_by_from_pretrained(tmp_path):
    torch.manual_seed(0)
    stock = Wav2Vec2ForPreTraining(Wav2Vec2Config(**SIZE, do_stable_layer_norm=True, feat_extract_norm="layer"))
    stock.save_pretrained(tmp_path)
    model = SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config())
    expected = stock.wav2vec2.state_dict()
    assert set(expected) == set(model.encoder.state_dict())
    assert all(torch.equal(value, expected[name]) for name, value in model.encoder.state_dict().items())


def test_the_encoder_half_of_moonshine_is_read_from_the_whole(tmp_path):
    whole = AutoModel.from_config(ENCODERS["Moonshine"])
    whole.save_pretrained(tmp_path)
    model = SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config("Moonshine"))
    assert all(torch.equal(v, whole.encoder.state_dict()[k]) for k, v in model.encoder.state_dict().items())


def test_a_saved_model_gives_the_same_logits_in_a_new_process(python, tmp_path):
    model = random_model(all_tasks_config(fusion="concat"))
    model.save_pretrained(tmp_path / "model")
    waveforms, mask = padded_batch()
    with torch.inference_mode():
        torch.save((waveforms, mask, model(waveforms, mask).logits), tmp_path / "expected.pt")
    script = (
        "import sys, torch; from modeling_ser_mtl import SerMtlModel; torch.set_num_threads(1)\n"
        "waveforms, mask, expected = torch.load(sys.argv[1] + '/expected.pt')\n"
        "model = SerMtlModel.from_pretrained(sys.argv[1] + '/model').eval()\n"
        "with torch.inference_mode(): assert torch.equal(model(waveforms, mask).logits, expected)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([python, "-c", script, str(tmp_path)], check=True, env=environment)


def test_the_saved_folder_says_how_to_load_it(tmp_path):
    SerMtlModel(all_tasks_config()).save_pretrained(tmp_path)
    assert all((tmp_path / f"{name}_ser_mtl.py").is_file() for name in ("modeling", "encoders", "loading"))
    config = AutoConfig.from_pretrained(tmp_path)
    assert config.auto_map["AutoModelForAudioClassification"] == "modeling_ser_mtl.SerMtlModel"
    assert config.id2label == dict(enumerate(LABELS["emotion"]))
    assert config.encoder_config.model_type == "wav2vec2"
