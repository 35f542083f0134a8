"""Where stage 1 starts: a pretrained encoder under new heads."""

from pathlib import Path

from datasets import DatasetDict
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    PreTrainedConfig,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)

from modeling_ser_mtl import FAMILIES, SerMtlConfig
from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.targets import character_tokenizer, value_scales
from ser_mtl.errors import UserError, hub_errors
from ser_mtl.model.processor import check_preprocessor
from ser_mtl.model.saved import check_saved
from ser_mtl.training.adapters import attach_adapters, freeze_encoder, freeze_for_full_finetuning
from ser_mtl.training.method import Earlier, Start, check_pretrained, method_config
from ser_mtl.training.own_encoder import encoder_behind, model_on
from ser_mtl.training.stage import Stage1

XLS_R = "facebook/wav2vec2-xls-r-300m"


def stage1_start(stage: Stage1, labels: dict[str, list[str]], parts: DatasetDict) -> Start:
    """A pretrained encoder under new heads. The transcripts of `parts["train"]` give the vocabulary.

    Raises:
        UserError: the encoder cannot be loaded, or is not one.
    """
    stage.encoder = stage.encoder or XLS_R
    encoder = encoder_behind(stage.encoder)
    encoder_config = pretrained_encoder_config(encoder.name, encoder.revision)
    tokenizer = character_tokenizer(parts["train"]["text"][:])
    with hub_errors(f"--encoder {encoder.name}: its feature extractor cannot be loaded"):
        processor = Wav2Vec2Processor(feature_extractor=feature_extractor_of(encoder.name), tokenizer=tokenizer)
    vocab_size, scales = len(tokenizer) if "asr" in stage.tasks else None, value_scales(parts["train"], stage.tasks)
    config = method_config(stage, labels, encoder_config, vocab_size, tokenizer, scales)
    with hub_errors(f"--encoder {encoder.name}: its weights cannot be loaded"):
        model = model_on(encoder, config)
    check_pretrained(model, f"--encoder {encoder.name}")
    if stage.trainable == "adapters":
        model = attach_adapters(model, encoder.name, stage.lora_rank, stage.lora_alpha, revision=encoder.revision)
    elif stage.trainable == "heads":
        freeze_encoder(model)
    else:
        freeze_for_full_finetuning(model, stage.train_front_end)
    trained_here = encoder.own or (Path(encoder.name) / "split.json").is_file()
    earlier = Earlier("--encoder", encoder.name) if trained_here else None
    return Start(model, processor, labels, encoder.name, earlier=earlier)


def pretrained_encoder_config(encoder: str, revision: str | None = None) -> PreTrainedConfig:
    """The config of an encoder on the Hub or in a folder, or of the encoder in a model of this project.

    Raises:
        UserError: it cannot be read, or is not of a supported family.
    """
    with hub_errors(f"--encoder {encoder}: cannot be loaded, neither as a folder nor from the Hub"):
        check_saved(encoder)
        config = AutoConfig.from_pretrained(encoder, revision=revision, trust_remote_code=False)
    if config.model_type == SerMtlConfig.model_type:
        config = config.encoder_config
        config.name_or_path = encoder
    if config.model_type not in FAMILIES:
        raise UserError(
            f"--encoder {encoder}: {config.model_type!r} is not a supported encoder of raw waveforms; supported: "
            f"{', '.join(FAMILIES)}"
        )
    return config


def feature_extractor_of(encoder: str) -> Wav2Vec2FeatureExtractor:
    """The encoder's own feature extractor; without one, a feature extractor that normalises each waveform.

    Moonshine and Whisper take waveforms as they are; the spectrogram of Whisper is a part of the model here.

    Raises:
        UserError: its settings are damaged, or of another sampling rate.
    """
    family = AutoConfig.from_pretrained(encoder, trust_remote_code=False).model_type
    normalise = family not in ("moonshine", "whisper")
    if check_preprocessor(encoder, f"--encoder {encoder}"):
        try:
            own = AutoFeatureExtractor.from_pretrained(encoder, trust_remote_code=False)
        except ValueError:  # it needs code of the repository, which is not run
            return _feature_extractor(normalise)
        normalise = getattr(own, "do_normalize", normalise) and family != "whisper"
    return _feature_extractor(normalise)


def _feature_extractor(normalise: bool) -> Wav2Vec2FeatureExtractor:
    return Wav2Vec2FeatureExtractor(sampling_rate=SAMPLING_RATE, do_normalize=normalise, return_attention_mask=True)
