"""From rows to batches: utterances of like length together, padded to the longest."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import SequenceFeatureExtractor

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.tasks import CLASSIFICATION_TASKS


class LengthGroupedSampler(Sampler[int]):
    """Every utterance once an epoch, in groups of like length, in an order that changes with the epoch.

    The corpus is sorted by its lengths, each first multiplied by a random factor within `jitter` of 1 so that groups
    change from epoch to epoch; it is cut into groups of `group_size` and the groups are shuffled. A group is what one
    update sees: the batches of all processes and accumulation steps, so that their number does not change an update.
    """

    def __init__(self, lengths: np.ndarray, group_size: int, seed: int, jitter: float = 0.02):
        self.lengths = np.asarray(lengths)
        self.group_size = group_size
        self.seed = seed
        self.jitter = jitter
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Take the order of this epoch; the Trainer calls it before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        factors = random.uniform(1 - self.jitter, 1 + self.jitter, size=len(self.lengths))
        order = np.argsort(self.lengths * factors, kind="stable")
        whole = len(order) // self.group_size * self.group_size
        # Which utterances make up the last, smaller group must change too, so it is cut out at a random place.
        start = random.integers(0, whole // self.group_size + 1) * self.group_size
        rest = order[start : start + len(order) - whole]
        groups = np.delete(order, np.s_[start : start + len(rest)]).reshape(-1, self.group_size)
        yield from map(int, np.concatenate([random.permutation(groups).ravel(), rest]))


class Collator:
    """Make a batch of rows: pad the waveforms (or the front end's features) and the CTC targets.

    Args:
        feature_extractor: the encoder's own; normalises each waveform where the encoder was trained so, and pads.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor):
        self.feature_extractor = feature_extractor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Rows with `row`, labels, and `features` with `frames` or else `samples` -> the model's arguments."""
        batch = self._features(rows) if "features" in rows[0] else self._waveforms(rows)
        batch["row"] = torch.tensor([row["row"] for row in rows])
        for task in CLASSIFICATION_TASKS:
            if f"{task}_labels" in rows[0]:
                batch[f"{task}_labels"] = torch.from_numpy(np.stack([row[f"{task}_labels"] for row in rows]))
        if "asr_labels" in rows[0]:
            targets = [torch.tensor(row["asr_labels"], dtype=torch.long) for row in rows]
            # One column at least: a batch without any transcript still has a shape.
            targets = [target if len(target) else torch.tensor([-100]) for target in targets]
            batch["asr_labels"] = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        return batch

    def _waveforms(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return waveforms([row["samples"] for row in rows], self.feature_extractor)

    def _features(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        frames = [torch.tensor(row["features"]).view(row["frames"], -1) for row in rows]
        return {
            "features": torch.nn.utils.rnn.pad_sequence(frames, batch_first=True),
            "frame_lengths": torch.tensor([len(f) for f in frames]),
        }


def waveforms(samples: list[np.ndarray], feature_extractor: SequenceFeatureExtractor) -> dict[str, torch.Tensor]:
    """Samples, (samples,) each -> `input_values` (batch, longest) and `attention_mask` for the encoder."""
    batch = feature_extractor(
        [as_floats(one) for one in samples],
        sampling_rate=SAMPLING_RATE,
        padding=True,
        return_attention_mask=True,
        return_tensors="pt",
    )
    return dict(batch)


def as_floats(samples: np.ndarray) -> np.ndarray:
    """Samples that are integers of 16 bits, or floats from -1 to 1 -> float32, from -1 to 1."""
    samples = np.asarray(samples)
    return samples.astype(np.float32) / (32768 if samples.dtype.kind == "i" else 1)
