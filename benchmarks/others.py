"""The systems ours is compared with: transformers' stock classes as its examples train them, and the nearest peer."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForSequenceClassification,
    Wav2Vec2Model,
)

from benchmarks.workload import EMOTIONS


def stock_classifier(encoder: Path, vocabulary: int) -> PreTrainedModel:
    """The model of `examples/pytorch/audio-classification`."""
    model = Wav2Vec2ForSequenceClassification.from_pretrained(encoder, num_labels=len(EMOTIONS), dtype=torch.float32)
    model.freeze_feature_encoder()
    return model


def stock_ctc(encoder: Path, vocabulary: int) -> PreTrainedModel:
    """The model of `examples/pytorch/speech-recognition`."""
    model = Wav2Vec2ForCTC.from_pretrained(
        encoder, vocab_size=vocabulary, ctc_loss_reduction="mean", pad_token_id=0, dtype=torch.float32
    )
    model.freeze_feature_encoder()
    return model


class BothLosses(nn.Module):
    """The nearest peer (Cai et al. 2021): emotion from the mean over all frames, and CTC, in one forward pass."""

    def __init__(self, encoder: Path, vocabulary: int):
        super().__init__()
        self.encoder = Wav2Vec2Model.from_pretrained(encoder, dtype=torch.float32)
        self.encoder.freeze_feature_encoder()
        self.emotion = nn.Linear(self.encoder.config.hidden_size, len(EMOTIONS))
        self.ctc = nn.Linear(self.encoder.config.hidden_size, vocabulary)

    def forward(self, input_values: Tensor, attention_mask: Tensor, emotion: Tensor, labels: Tensor) -> dict:
        """The loss alone, which is all that is timed."""
        hidden = self.encoder(input_values, attention_mask=attention_mask).last_hidden_state
        emotion_loss = nn.functional.cross_entropy(self.emotion(hidden.mean(dim=1)).float(), emotion)
        frames = self.encoder._get_feat_extract_output_lengths(attention_mask.sum(dim=1))
        log_probabilities = self.ctc(hidden).float().log_softmax(dim=-1).transpose(0, 1)
        targets = labels.masked_fill(labels < 0, 0)
        lengths = (labels >= 0).sum(dim=1)
        ctc = nn.functional.ctc_loss(log_probabilities, targets, frames, lengths, blank=0, zero_infinity=True)
        return {"loss": emotion_loss + 0.1 * ctc}


OTHERS = {
    "stock sequence classification": stock_classifier,
    "stock CTC": stock_ctc,
    "peer, both losses": BothLosses,
}


def other_trainer(name: str, encoder: Path, rows: list[dict], vocabulary: int, args: TrainingArguments) -> Trainer:
    """The stock Trainer: random batches, padded to their longest utterance.

    Args:
        name: among `OTHERS`.
        encoder: folder of the pretrained encoder.
        rows: `samples`, `emotion_labels` and `asr_labels` of each utterance. The samples are normalised here, once;
            the examples read them from Arrow as lists each time, which is slower.
        vocabulary: number of characters.
        args: of the training.
    """
    feature_extractor = Wav2Vec2FeatureExtractor.from_pretrained(encoder)
    for row in rows:
        row["input_values"] = feature_extractor(row["samples"], sampling_rate=16_000).input_values[0]

    def collate(chosen: list[dict]) -> dict[str, Tensor]:
        sounds = [{"input_values": row["input_values"]} for row in chosen]
        batch = dict(feature_extractor.pad(sounds, padding=True, return_attention_mask=True, return_tensors="pt"))
        emotions = torch.tensor([row["emotion_labels"] for row in chosen])
        characters = [torch.tensor(np.asarray(row["asr_labels"])) for row in chosen]
        characters = pad_sequence(characters, batch_first=True, padding_value=-100)
        if name == "peer, both losses":
            return batch | {"emotion": emotions, "labels": characters}
        return batch | {"labels": characters if name == "stock CTC" else emotions}

    model = OTHERS[name](encoder, vocabulary)
    return Trainer(model=model, args=args, train_dataset=rows, data_collator=collate)
