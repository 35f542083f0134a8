"""Spectrogram, MFCC and encoder joined by co-attention, after Zou et al. 2022; without ImageNet's weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import amplitude_to_DB, preemphasis
from torchaudio.transforms import MFCC, Spectrogram

from modeling_ser_mtl import SerMtlModel
from recordings_ser_mtl import SAMPLING_RATE
from ser_mtl.research.heads import EmotionHead, mean_cross_entropy

SEGMENT = 3 * SAMPLING_RATE
"""Samples of a segment."""
HOP, BINS, FRAMES = SAMPLING_RATE // 100, 200, 300
_RANGE = 80.0  # dB below the loudest value; fainter ones become 0


class CoAttention(EmotionHead):
    """Utterances in segments of three seconds, three branches, and weights over the encoder's frames.

    The spectrogram (AlexNet's convolutions) and the MFCC (BiLSTM) of a segment give 128 values each; a linear layer and
    a ReLU turn these into a weight for each of the encoder's frames, whose weighted sum gives another 128 values. An
    utterance's log-probabilities are the mean of its segments'.
    """

    def __init__(self, model: SerMtlModel, classes: int, normalise: bool = False):
        super().__init__(model, classes, normalise)
        self.normalise = normalise
        frames = int(model.frame_lengths(torch.tensor([SEGMENT])))
        self.spectrogram = nn.Sequential(_alexnet(), nn.Flatten(), *_layer(9216, 128))
        self.lstm = nn.LSTM(40, 256, 2, batch_first=True, bidirectional=True, dropout=0.5)
        self.mfcc = nn.Sequential(nn.Flatten(), *_layer(FRAMES * 512, 128))
        self.weights = nn.Sequential(*_layer(256, frames))
        self.attended = nn.Sequential(*_layer(model.config.encoder_config.hidden_size, 128))
        self.hidden = nn.Sequential(*_layer(3 * 128, 128), *_layer(128, 128))
        self.classifier = nn.Linear(128, classes)
        self.to_spectrogram = Spectrogram(800, 640, HOP, window_fn=torch.hamming_window, power=2)
        mel = {"n_fft": 2048, "hop_length": HOP, "n_mels": 128, "mel_scale": "htk"}
        self.to_mfcc = MFCC(SAMPLING_RATE, 40, melkwargs=mel)
        self._segments: tuple[Tensor, Tensor, Tensor] | None = None
        self._log_probabilities: Tensor | None = None

    def prepare(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Replace utterances by segments; keep their spectrograms and MFCCs for `forward`."""
        waveforms = preemphasis(inputs["input_values"].float())
        pieces, owners = segments(waveforms, inputs["attention_mask"].sum(dim=1).tolist())
        decibels = amplitude_to_DB(self.to_spectrogram(pieces), 10.0, 1e-10, 0.0)[:, :BINS, :FRAMES]
        loudest = decibels.amax(dim=(1, 2), keepdim=True)
        images = ((decibels - loudest) / _RANGE + 1).clamp(min=0)
        mfcc = self.to_mfcc(pieces.unsqueeze(1)).squeeze(1)  # else the batch would be channels of one recording
        mfcc = F.normalize(mfcc[..., :FRAMES].transpose(1, 2), dim=-1)
        self._segments = images, mfcc, owners
        if self.normalise:
            pieces = (pieces - pieces.mean(dim=1, keepdim=True)) / (pieces.var(dim=1, keepdim=True) + 1e-7).sqrt()
        return {**inputs, "input_values": pieces, "attention_mask": torch.ones_like(pieces, dtype=torch.long)}

    def forward(self, frames: Tensor, frame_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(segments, frames, d) -> embedding (batch, 128) and log-probabilities (batch, classes) of the utterances."""
        assert self._segments is not None  # `prepare` comes first
        images, mfcc, owners = self._segments
        spectrogram = self.spectrogram(images.unsqueeze(1))
        rhythm = self.mfcc(self.lstm(mfcc)[0])
        attended = self.attended(co_attend(self.weights(torch.cat([spectrogram, rhythm], dim=1)), frames))
        hidden = self.hidden(torch.cat([spectrogram, rhythm, attended], dim=1))
        log_probabilities = self.classifier(hidden).float().log_softmax(dim=-1)
        self._log_probabilities = mean_by(owners, log_probabilities)
        return mean_by(owners, hidden), self._log_probabilities

    def loss(self, usual: Tensor, labels: Tensor) -> Tensor:
        """The mean over an utterance's segments of their cross-entropy."""
        return mean_cross_entropy(self._log_probabilities, labels)


def co_attend(weights: Tensor, frames: Tensor) -> Tensor:
    """Weights (segments, frames), which need not sum to 1, and (segments, frames, d) -> their sum (segments, d)."""
    return torch.einsum("sf,sfd->sd", weights.to(frames.dtype), frames)


def segments(waveforms: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
    """Cut utterances of n samples into ceil(n / 3 s) segments; the last one begins earlier, so that it is full.

    An utterance under three seconds gets zeros in front.

    Args:
        waveforms: (batch, samples).
        lengths: real samples of each.

    Returns:
        (segments, 48000), and the utterance of each, (segments,).
    """
    pieces, owners = [], []
    for owner, (waveform, length) in enumerate(zip(waveforms, lengths, strict=True)):
        for begin in range(0, max(length, 1), SEGMENT):
            begin = max(0, min(begin, length - SEGMENT))
            piece = waveform[begin : min(begin + SEGMENT, length)]
            pieces.append(F.pad(piece, (SEGMENT - len(piece), 0)))
            owners.append(owner)
    return torch.stack(pieces), torch.tensor(owners, device=waveforms.device)


def mean_by(owners: Tensor, values: Tensor) -> Tensor:
    """The mean of each owner's values: (segments,), (segments, n) -> (owners, n)."""
    batch = int(owners.max()) + 1
    sums = values.new_zeros(batch, values.shape[1]).index_add(0, owners, values)
    return sums / torch.bincount(owners, minlength=batch).unsqueeze(1)


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Dropout(0.1), nn.Linear(inputs, outputs), nn.ReLU()


def _alexnet() -> nn.Sequential:
    """AlexNet's convolutions for images of one channel: (n, 1, bins, frames) -> (n, 256, 6, 6)."""
    return nn.Sequential(
        nn.Upsample((256, 384), mode="bilinear"),
        nn.Conv2d(1, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d((6, 6)),
    )  # fmt: skip
