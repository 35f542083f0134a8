"""A model with all four tasks that was never trained, as saved, and clips for it: what takes seconds to make."""

from pathlib import Path

import numpy as np
import soundfile
from transformers import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor, set_seed

from helpers.encoders import all_tasks_config
from helpers.tiny import SAMPLING_RATE, tone
from modeling_ser_mtl import SerMtlModel
from ser_mtl.files import write_json


def write_model(folder: Path, seed: int = 0, **config: object) -> Path:
    """Save an untrained model, with its processor; `config` replaces fields of its config."""
    set_seed(seed)
    SerMtlModel(all_tasks_config(**config)).save_pretrained(folder)
    vocabulary = {name: number for number, name in enumerate(["<pad>", "<unk>", "|", *"adeinorst"])}
    write_json(folder / "vocab.json", vocabulary)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"), bos_token=None, eos_token=None, pad_token="<pad>")
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer).save_pretrained(folder)
    return folder


def write_clips(folder: Path, number: int, seconds: tuple[float, float] = (0.2, 0.5)) -> Path:
    """Write noisy tones of various lengths in ten folders; every 20th is silence, every 25th no audio."""
    random = np.random.default_rng(0)
    for clip in range(number):
        file = folder / str(clip % 10) / f"{clip:05}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        samples = tone(random.uniform(150, 900), random.uniform(*seconds))
        samples += random.normal(0, 0.02, samples.shape)
        soundfile.write(file, samples * (clip % 20 != 0), SAMPLING_RATE)
        if clip % 25 == 0:
            file.write_bytes(b"RIFF and no more")
    return folder
