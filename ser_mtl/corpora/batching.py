"""Rows to batches: utterances of similar length are batched together and padded to the longest."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import SequenceFeatureExtractor

from recordings_ser_mtl import waveforms
from ser_mtl.corpora.sixteen_bits import unpacked
from ser_mtl.tasks import CLASSIFICATION_TASKS, VALUE_TASKS


class LengthGroupedSampler(Sampler[int]):
    """Yield every utterance once an epoch, in groups of similar length, in a new order each epoch.

    The utterances are sorted by length, cut into groups of `group_size`, and the groups are shuffled. Before sorting,
    each length is multiplied by a random factor within `jitter` of 1, so that the groups differ between epochs. A group
    is one update: the batches of all processes and accumulation steps. How an update is divided does not change it.

    Args:
        lengths: length of every utterance, in any unit.
        group_size: utterances in one update.
        seed: two samplers with the same seed yield the same order.
        jitter: largest relative change of a length before sorting.
    """

    def __init__(self, lengths: np.ndarray, group_size: int, seed: int, jitter: float = 0.02):
        self.lengths = np.asarray(lengths)
        self.group_size = group_size
        self.seed = seed
        self.jitter = jitter
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Select the order of this epoch. The Trainer calls it before each one."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng((self.seed, self.epoch))
        factors = random.uniform(1 - self.jitter, 1 + self.jitter, size=len(self.lengths))
        order = np.argsort(self.lengths * factors, kind="stable")
        whole = len(order) // self.group_size * self.group_size
        # The last, smaller group is cut out at a random place: otherwise it would always be the longest utterances.
        start = random.integers(0, whole // self.group_size + 1) * self.group_size
        rest = order[start : start + len(order) - whole]
        groups = np.delete(order, np.s_[start : start + len(rest)]).reshape(-1, self.group_size)
        yield from map(int, np.concatenate([random.permutation(groups).ravel(), rest]))


class Collator:
    """Make a batch of rows: pad the waveforms, or the features of the front end, and the CTC targets.

    Args:
        feature_extractor: the encoder's own. It pads, and normalises each waveform if the encoder expects that.
    """

    def __init__(self, feature_extractor: SequenceFeatureExtractor):
        self.feature_extractor = feature_extractor

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Collate rows into the arguments of the model.

        Args:
            rows: each with `row`, the labels, and either `samples` or `features` with `scales`.
        """
        batch = self._features(rows) if "features" in rows[0] else self._waveforms(rows)
        batch["row"] = torch.tensor([row["row"] for row in rows])
        for task in (*CLASSIFICATION_TASKS, *VALUE_TASKS):
            if f"{task}_labels" in rows[0]:
                batch[f"{task}_labels"] = torch.from_numpy(np.stack([row[f"{task}_labels"] for row in rows]))
        if "asr_labels" in rows[0]:
            targets = [torch.tensor(row["asr_labels"], dtype=torch.long) for row in rows]
            # At least one column, so that a batch without any transcript still has two dimensions.
            targets = [target if len(target) else torch.tensor([-100]) for target in targets]
            batch["asr_labels"] = torch.nn.utils.rnn.pad_sequence(targets, batch_first=True, padding_value=-100)
        return batch

    def _waveforms(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        return waveforms([row["samples"] for row in rows], self.feature_extractor)

    def _features(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        features = [unpacked(row["features"], row["scales"]) for row in rows]
        return {
            "features": torch.nn.utils.rnn.pad_sequence(features, batch_first=True),
            "frame_lengths": torch.tensor([len(frames) for frames in features]),
        }
