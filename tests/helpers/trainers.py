"""A Trainer on a few noises, with a model without any randomness."""

from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset, DatasetDict
from transformers import Wav2Vec2FeatureExtractor, Wav2Vec2Processor

from helpers.encoders import LABELS, all_tasks_config
from modeling_ser_mtl import SerMtlModel
from ser_mtl.corpora.targets import character_tokenizer
from ser_mtl.corpora.utterances import FEATURES
from ser_mtl.training.adapters import freeze_for_full_finetuning
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.method import Start
from ser_mtl.training.stage import Stage1
from ser_mtl.training.trainer import SerMtlTrainer

N = 8


def noises(folder: Path, n: int = N) -> Dataset:
    """Noises of different lengths; every second one lacks a label, differently for each task."""
    random = np.random.default_rng(0)
    rows = []
    for i in range(n):
        path = folder / f"noise{i:02}.wav"
        if not path.is_file():
            folder.mkdir(parents=True, exist_ok=True)
            samples = random.integers(-9000, 9000, 3000 + 500 * i).astype(np.int16)
            soundfile.write(path, samples, 16_000, subtype="PCM_16")
        row = dict.fromkeys(FEATURES) | {"id": f"{i:02}", "path": str(path), "corpus": "noises", "raters": []}
        row |= {"speaker": f"s{i}", "fold": 1}
        row["emotion"] = LABELS["emotion"][i % 4] if i != 1 else None
        row["gender"] = LABELS["gender"][i % 2] if i % 4 else None
        row["style"] = LABELS["style"][i // 4] if i < 6 else None
        row["text"] = "ab ba abba"[: 2 + i] if i % 3 else None
        row |= {"valence": 1 + 0.5 * i if i != 2 else None, "dominance": 4.5 - (i % 3) if i > 3 else None}
        rows.append(row)
    return Dataset.from_list(rows, features=FEATURES)


SCALES = {"valence": [2.9, 1.2], "dominance": [3.5, 0.8]}


def noise_trainer(
    folder: Path, utterances: int = N, trainer_class=SerMtlTrainer, values: bool = False, dropout: float = 0.0, **flags
) -> SerMtlTrainer:
    """A Trainer of all tasks on `noises`, all of them in training; of those in `SCALES` if `values`.

    `class_weights` and `ctc_scale` are of the stage.
    """
    class_weights, ctc_scale = flags.pop("class_weights", "none"), flags.pop("ctc_scale", "characters")
    tokenizer = character_tokenizer(["ab ba"])
    torch.manual_seed(0)
    config = all_tasks_config(scl="cos", fusion="concat", vocab_size=len(tokenizer), ctc_scale=ctc_scale)
    if values:
        config.tasks, config.value_scales = [*config.tasks, *SCALES], SCALES
    config.encoder_config.mask_time_prob = 0.0
    for name in ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"):
        setattr(config.encoder_config, name, dropout)
    model = SerMtlModel(config)
    freeze_for_full_finetuning(model, train_front_end=True)
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    processor = Wav2Vec2Processor(feature_extractor=extractor, tokenizer=tokenizer)
    flags = {"save_strategy": "no", "use_cpu": True, "num_train_epochs": 1.0, "selection": "last"} | flags
    return trainer_class(
        Stage1(tasks=list(config.tasks), fusion="concat", scl="cos", train_front_end=True, class_weights=class_weights),
        SerMtlArguments(output_dir=str(folder / "run"), disable_tqdm=True, **flags),
        DatasetDict({"train": noises(folder / "noises", utterances)}),
        start=Start(model, processor, LABELS, "noise"),
    )
