"""The encoder half of Whisper: its spectrogram, its positions, and what of a checkpoint is loaded."""

import json

import numpy as np
import pytest
import torch
from helpers.encoders import ENCODERS, all_tasks_config
from safetensors.torch import load_file, save_file
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
)

import encoders_ser_mtl
from encoders_ser_mtl import log_mel
from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.targets import character_tokenizer
from ser_mtl.inference.recognizer import Recognizer, infer
from ser_mtl.training.stage1_start import feature_extractor_of

SHAPE = {"d_model": 32, "encoder_ffn_dim": 64, "encoder_layers": 2, "encoder_attention_heads": 2}
SHAPE |= {"decoder_ffn_dim": 64, "decoder_layers": 1, "decoder_attention_heads": 2}


def speech(samples: int) -> torch.Tensor:
    """Harmonics that come and go, down to silence, in a little noise, (samples,)."""
    times = torch.arange(samples) / 16_000
    voice = sum(torch.sin(2 * torch.pi * 130 * k * times) / k**2 for k in range(1, 30))
    noise = torch.randn(samples, generator=torch.Generator().manual_seed(0))
    return 0.3 * voice * torch.sin(2 * torch.pi * times).clamp(min=0) + 1e-4 * noise


def extracted(waveform: torch.Tensor, bins: int) -> torch.Tensor:
    """What Whisper's own feature extractor makes of a waveform, as it is: (bins, windows)."""
    extractor = WhisperFeatureExtractor(feature_size=bins)
    return torch.from_numpy(extractor(waveform.numpy(), sampling_rate=16_000, padding="do_not_pad").input_features[0])


@torch.inference_mode()
def test_half_a_minute_gives_what_whisper_gives():
    torch.manual_seed(0)
    encoder = WhisperConfig(**SHAPE)
    model = SerMtlModel(all_tasks_config(encoder_config=encoder.to_dict())).eval()
    waveform = speech(480_000)
    extractor = WhisperFeatureExtractor()
    features = torch.from_numpy(extractor(waveform.numpy(), sampling_rate=16_000).input_features)
    frames, *_ = model.encode(*model.extract_features(waveform[None]))
    assert frames.shape[1] == 1500
    torch.testing.assert_close(frames, model.encoder(features).last_hidden_state, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bins", [16, 80, 128])
def test_spectrograms_in_a_padded_batch_are_those_of_whispers_extractor(bins):
    waveforms = [speech(length) for length in (16_000, 201, 5_679, 319, 9_600)]
    lengths = torch.tensor([len(waveform) for waveform in waveforms])
    filters = SerMtlModel(all_tasks_config(encoder_config=ENCODERS["Whisper"].to_dict() | {"num_mel_bins": bins}))
    found = log_mel(pad_sequence(waveforms, batch_first=True), lengths, filters.encoder.mel_filters)
    for waveform, spectrogram in zip(waveforms, found, strict=True):
        expected = extracted(waveform, bins)
        torch.testing.assert_close(spectrogram[:, : expected.shape[1]], expected, atol=1e-5, rtol=0)


def test_spectrograms_are_in_float32_under_autocast():
    waveform, filters = speech(8000)[None], SerMtlModel(all_tasks_config("Whisper")).encoder.mel_filters
    expected = log_mel(waveform, torch.tensor([8000]), filters)
    with torch.autocast("cpu", torch.bfloat16):
        found = log_mel(waveform, torch.tensor([8000]), filters)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("samples", [1, 159, 160, 161, 319, 320, 479, 480, 32_000])
def test_there_are_as_many_frames_as_the_config_says(samples):
    model = SerMtlModel(all_tasks_config("Whisper")).eval()
    features, lengths = model.extract_features(torch.zeros(1, samples))
    assert features.shape[1] == int(lengths) == max(1, -(-(samples // 160) // 2))


def test_more_frames_than_positions_are_refused():
    model = SerMtlModel(all_tasks_config("Whisper")).eval()
    assert model.longest_input == 32_000
    model(torch.zeros(1, model.longest_input))
    with pytest.raises(ValueError, match=r"^101 frames: this encoder has positions for 100 \(2 seconds\)$"):
        model(torch.zeros(1, model.longest_input + 320))


def test_long_recordings_come_in_segments_that_have_positions():
    model = SerMtlModel(all_tasks_config("Whisper", vocab_size=5)).eval()
    samples = np.random.default_rng(0).normal(0, 3000, 70 * 16_000).astype(np.int16)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    recognizer = Recognizer(model, Wav2Vec2Processor(extractor, character_tokenizer(["ab"])), transcript=False)
    for whole in (False, True):
        (answer,) = recognizer.each([(samples, 16_000)], whole=whole)
        lengths = [segment["end"] - segment["start"] for segment in answer["segments"]]
        assert max(lengths) <= 2 and sum(lengths) == pytest.approx(70)
        assert sum(answer["emotion"]["probabilities"].values()) == pytest.approx(1)


def test_a_recognizer_in_bfloat16_takes_the_spectrogram_in_float32(monkeypatch):
    heard = []
    monkeypatch.setattr(encoders_ser_mtl, "log_mel", lambda *arguments: heard.append(arguments) or log_mel(*arguments))
    processor = Wav2Vec2Processor(
        Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True), character_tokenizer(["ab"])
    )
    model = SerMtlModel(all_tasks_config("Whisper", vocab_size=5)).eval().to(torch.bfloat16)
    infer(model, processor, [speech(8000).numpy()], transcript=False)
    assert torch.equal(heard[0][0][0], speech(8000)) and heard[0][2].dtype == torch.float32


# ---------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize("kind", [WhisperModel, WhisperForConditionalGeneration])
def test_the_encoder_is_read_from_a_checkpoint_of_both_halves(kind, tmp_path):
    whole = kind(ENCODERS["Whisper"])
    whole.save_pretrained(tmp_path)
    model = SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config("Whisper"))
    stock = whole.get_encoder().state_dict()
    assert model.encoder.state_dict().keys() == stock.keys()
    assert all(torch.equal(model.encoder.state_dict()[name], value) for name, value in stock.items())


def test_no_decoder_is_needed(tmp_path):
    whole = WhisperForConditionalGeneration(ENCODERS["Whisper"])
    whole.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    weights = {name: value for name, value in load_file(file).items() if name.startswith("model.encoder.")}
    save_file(weights, file, metadata={"format": "pt"})
    loaded = SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config("Whisper")).encoder.state_dict()
    assert all(torch.equal(loaded[name.removeprefix("model.encoder.")], value) for name, value in weights.items())


def test_a_checkpoint_without_a_layer_is_refused(tmp_path):
    WhisperForConditionalGeneration(ENCODERS["Whisper"]).save_pretrained(tmp_path)
    config = ENCODERS["Whisper"].to_dict() | {"encoder_layers": 3}
    with pytest.raises(ValueError, match=r"^15 of 52 tensors are missing or of another shape \(layers\.2\."):
        SerMtlModel.from_pretrained(tmp_path, config=all_tasks_config(encoder_config=config))


def test_waveforms_stay_as_they_are_whatever_whispers_extractor_says(tmp_path):
    ENCODERS["Whisper"].save_pretrained(tmp_path)
    assert not feature_extractor_of(str(tmp_path)).do_normalize
    extractor = WhisperFeatureExtractor(feature_size=16).to_dict() | {"do_normalize": True}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(extractor))
    found = feature_extractor_of(str(tmp_path))
    assert isinstance(found, Wav2Vec2FeatureExtractor) and not found.do_normalize
