"""Pretraining that goes on with the recordings of a training set: two objectives, and a Trainer for both."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset
from torch import Tensor, nn
from transformers import SequenceFeatureExtractor, Wav2Vec2ForPreTraining
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from modeling_ser_mtl import SerMtlModel
from recordings_ser_mtl import SAMPLING_RATE, waveforms
from ser_mtl.corpora.batching import Collator, LengthGroupedSampler
from ser_mtl.files import write_json
from ser_mtl.lock import release
from ser_mtl.model.spec_augment import span_mask
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.callbacks import SamplerEpoch, SparingCheckpoints, StopOnSignal, Stopwatch
from ser_mtl.training.resuming import ResumableTrainer
from ser_mtl.training.run_folder import take_run_folder

MOST_SAMPLES = 10 * SAMPLING_RATE
"""Of a crop."""
FEWEST_SPANS = 2
"""Masked spans of an utterance."""
UNIT_SPAN, UNIT_SHARE = 15, 0.06
"""Frames of a masked span, and the share of masked frames, where units are predicted."""


class Contrastive(nn.Module):
    """wav2vec 2.0's own loss, contrastive and diversity, per masked frame."""

    def __init__(self, model: Wav2Vec2ForPreTraining):
        super().__init__()
        self.model = model.requires_grad_(True)

    def forward(self, mask_time_indices: Tensor, **inputs: Tensor) -> dict[str, Tensor]:
        """The arguments of `Wav2Vec2ForPreTraining` -> its loss."""
        return {"loss": self.model(mask_time_indices=mask_time_indices, **inputs).loss / mask_time_indices.sum()}


class ContrastiveCollator:
    """Random crops, all as long as the batch's shortest utterance and at most 10 s, with masks and negatives.

    Nothing is padded, so nothing has to be masked that is not real.
    """

    def __init__(self, model: Wav2Vec2ForPreTraining, feature_extractor: SequenceFeatureExtractor):
        self.model, self.feature_extractor = model, feature_extractor

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        """Rows with `samples` -> a batch."""
        size, config = min(MOST_SAMPLES, *(len(row["samples"]) for row in rows)), self.model.config
        begins = [np.random.randint(len(row["samples"]) - size + 1) for row in rows]  # the Trainer keeps its state
        crops = [row["samples"][begin : begin + size] for row, begin in zip(rows, begins, strict=True)]
        shape = len(rows), frames_of(self.model, size)
        spans = {"mask_prob": config.mask_time_prob, "mask_length": config.mask_time_length}
        masked = _compute_mask_indices(shape, **spans, min_masks=FEWEST_SPANS)
        negatives = _sample_negative_indices(shape, config.num_negatives, masked)
        return {
            "input_values": waveforms(crops, self.feature_extractor)["input_values"],
            "mask_time_indices": torch.from_numpy(masked),
            "sampled_negative_indices": torch.from_numpy(negatives),
        }


def frames_of(model: Wav2Vec2ForPreTraining, samples: int) -> int:
    """Frames that the encoder makes of so many samples."""
    return int(model._get_feat_extract_output_lengths(samples))


class MaskedUnits(nn.Module):
    """An encoder that predicts the units of the frames that it does not hear.

    Args:
        model: the encoder, under heads that are not trained.
        sizes: the number of units of each clustering.
    """

    def __init__(self, model: SerMtlModel, sizes: list[int]):
        super().__init__()
        dim = model.config.encoder_config.hidden_size
        self.model = model
        self.model.heads.requires_grad_(False)
        self.model.spec_augment = self._mask
        self.predictors = nn.ModuleList(
            nn.Sequential(nn.ReLU(), nn.Linear(dim, 256), nn.Tanh(), nn.Linear(256, size)) for size in sizes
        )

    def _mask(self, hidden: Tensor, frame_lengths: Tensor) -> Tensor:
        self._masked = span_mask(frame_lengths, hidden.shape[1], UNIT_SHARE, UNIT_SPAN, FEWEST_SPANS)
        filler = getattr(self.model.encoder, "masked_spec_embed", None)
        filler = hidden.new_zeros(()) if filler is None else filler.to(hidden.dtype)
        return torch.where(self._masked.unsqueeze(-1), filler, hidden)

    def forward(self, units: Tensor, **audio: Tensor) -> dict[str, Tensor]:
        """(batch, frames, clusterings) and `features` and `frame_lengths`, or waveforms -> the loss.

        It is the mean over masked frames of the cross-entropy, summed over the clusterings.
        """
        if "features" not in audio:
            audio["features"], audio["frame_lengths"] = self.model.extract_features(**audio)
        frames, _, _ = self.model.encode(audio["features"], audio["frame_lengths"])
        heard, wanted = frames[self._masked], units[self._masked]
        total = sum(F.cross_entropy(predict(heard).float(), wanted[:, i], reduction="sum")
                    for i, predict in enumerate(self.predictors))  # fmt: skip
        return {"loss": total / max(1, len(heard))}


class UnitsCollator:
    """Batches as usual, with the units of every frame.

    Args:
        collator: the usual one.
        units: (frames, clusterings) of each row.
    """

    def __init__(self, collator: Collator, units: list[np.ndarray]):
        self.collator, self.units = collator, units

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        """Rows -> audio and units, padded with zeros: padding is never masked."""
        batch = self.collator(rows)
        audio = {name: batch[name] for name in ("input_values", "attention_mask", "features", "frame_lengths")
                 if name in batch}  # fmt: skip
        units = [torch.from_numpy(self.units[row["row"]].astype(np.int64)) for row in rows]
        return audio | {"units": nn.utils.rnn.pad_sequence(units, batch_first=True)}


class Pretrainer(ResumableTrainer):
    """A Trainer of a model whose forward pass gives its loss, in one process; an interrupted run is resumed.

    Args:
        model: `Contrastive` or `MaskedUnits`.
        args: of training; nothing is evaluated.
        rows: with `length`.
        collator: makes the batches.
    """

    def __init__(
        self, model: nn.Module, args: SerMtlArguments, rows: Dataset, collator: Callable[[list[dict]], dict]
    ):
        super().__init__(model=model, args=args, train_dataset=rows, data_collator=collator)
        self.model_accepts_loss_kwargs = False
        self._sampler = LengthGroupedSampler(np.asarray(rows["length"]), args.utterances_per_update, args.seed)
        self.stopwatch, self.stop_on_signal = Stopwatch(), StopOnSignal()
        checkpoints = SparingCheckpoints(args.save_minutes)
        for callback in (SamplerEpoch(self._sampler, rows), self.stopwatch, checkpoints, self.stop_on_signal):
            self.add_callback(callback)

    def train_in(self, folder: Path, record: dict, split: dict) -> None:
        """Train in a run's folder, with `args.json` and `split.json` in it.

        Raises:
            UserError: the folder holds another run, or one is at work there.
        """
        take_run_folder(folder, record)
        try:
            begin = self.where_to_resume(None)
            write_json(folder / "args.json", record)
            write_json(folder / "split.json", split)
            with self.stop_on_signal:
                self.train_from(begin)
        except BaseException:
            release(folder)
            raise

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> LengthGroupedSampler:
        return self._sampler

    def compute_loss(self, model: nn.Module, inputs: dict[str, Tensor], *args, **kwargs) -> Tensor:
        """The model's own loss."""
        return model(**inputs)["loss"]
