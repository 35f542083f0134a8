"""Small, random encoders of every supported family."""

from torch import Tensor
from transformers import (
    Data2VecAudioConfig,
    HubertConfig,
    MoonshineConfig,
    PreTrainedConfig,
    UniSpeechConfig,
    UniSpeechSatConfig,
    Wav2Vec2Config,
    WavLMConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
)

from modeling_ser_mtl import SerMtlConfig, SerMtlModel

SIZE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16),
    "conv_kernel": (10, 3, 3),
    "conv_stride": (5, 4, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "layerdrop": 0.0,
}

ENCODERS: dict[str, PreTrainedConfig] = {
    "wav2vec2, layer norm": Wav2Vec2Config(**SIZE, do_stable_layer_norm=True, feat_extract_norm="layer"),
    "wav2vec2, group norm": Wav2Vec2Config(**SIZE),
    "HuBERT": HubertConfig(**SIZE),
    "WavLM": WavLMConfig(**SIZE),
    "data2vec-audio": Data2VecAudioConfig(**SIZE | {"num_conv_pos_embeddings": 3}),
    "UniSpeech": UniSpeechConfig(**SIZE),
    "UniSpeech-SAT": UniSpeechSatConfig(**SIZE),
    "Moonshine": MoonshineConfig(
        hidden_size=32,
        intermediate_size=64,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=1,
        encoder_num_attention_heads=2,
        encoder_num_key_value_heads=2,
        decoder_num_attention_heads=2,
        decoder_num_key_value_heads=2,
        vocab_size=50,
    ),
    "Whisper": WhisperConfig(
        d_model=32,
        encoder_ffn_dim=64,
        encoder_layers=2,
        encoder_attention_heads=2,
        decoder_ffn_dim=64,
        decoder_layers=1,
        decoder_attention_heads=2,
        num_mel_bins=16,
        max_source_positions=100,
        vocab_size=50,
        **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0),
    ),
}

LABELS = {"emotion": ["angry", "happy", "neutral", "sad"], "gender": ["female", "male"], "style": ["i", "s"]}


def all_tasks_config(encoder: str = "wav2vec2, layer norm", **more) -> SerMtlConfig:
    """A config with all four tasks on a small encoder; `more` replaces its fields."""
    values = {
        "encoder_config": ENCODERS[encoder].to_dict(),
        "tasks": ["emotion", "asr", "gender", "style"],
        "labels": LABELS,
        "vocab_size": 12,
        "embedding_dim": 16,
    }
    return SerMtlConfig(**values | more)


def stock_input(model: SerMtlModel, waveform: Tensor) -> tuple[Tensor, Tensor]:
    """A waveform, (1, samples), and the input that the stock encoder takes in its place.

    Whisper's takes the log-mel spectrogram of as many samples as it has positions for: the waveform is repeated.
    """
    if model.longest_input is None:
        return waveform, waveform
    waveform = waveform.repeat(1, -(-model.longest_input // waveform.shape[1]))[:, : model.longest_input]
    extractor = WhisperFeatureExtractor(feature_size=model.encoder.config.num_mel_bins)
    batch = extractor(waveform[0].numpy(), sampling_rate=16_000, padding="do_not_pad", return_tensors="pt")
    return waveform, batch.input_features
