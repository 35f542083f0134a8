"""Pins batches: each utterance once per epoch, a new order every epoch, little padding, samples unchanged."""

import numpy as np
import torch
from transformers import Wav2Vec2FeatureExtractor

from ser_mtl.corpora.batching import Collator, LengthGroupedSampler
from ser_mtl.corpora.sixteen_bits import packed, unpacked


def lengths(n: int = 5531) -> np.ndarray:
    """Lengths like those of acted dialogs: log-normal, median 3.6 s, in samples."""
    return (np.random.default_rng(0).lognormal(1.28, 0.7, n).clip(0.58, 34) * 16_000).astype(int)


def padded_share(batches: list[np.ndarray]) -> float:
    return 1 - sum(batch.sum() for batch in batches) / sum(batch.max() * len(batch) for batch in batches)


def batches_of(order: list[int], size: int) -> list[list[int]]:
    return [order[i : i + size] for i in range(0, len(order), size)]


def test_every_utterance_comes_once_per_epoch():
    for n in (1, 15, 16, 17, 1000):
        sampler = LengthGroupedSampler(lengths(n), group_size=16, seed=0)
        for epoch in range(3):
            sampler.set_epoch(epoch)
            assert sorted(sampler) == list(range(n))
            assert len(sampler) == n


def test_less_than_three_percent_of_the_frames_are_padding():
    sampler = LengthGroupedSampler(lengths(), group_size=16, seed=0)
    assert padded_share([lengths()[batch] for batch in batches_of(list(sampler), 16)]) < 0.03


def test_every_epoch_has_different_batches():
    sampler = LengthGroupedSampler(lengths(), group_size=16, seed=0)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        epochs.append({frozenset(batch) for batch in batches_of(list(sampler), 16)})
    assert len(epochs[0] & epochs[1]) < 0.1 * len(epochs[0])


def test_the_seed_decides_the_order_of_an_epoch():
    first, again, other = (list(LengthGroupedSampler(lengths(), 16, seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_short_and_long_groups_are_mixed():
    means = [lengths()[batch].mean() for batch in batches_of(list(LengthGroupedSampler(lengths(), 16, 0)), 16)]
    assert abs(np.corrcoef(range(len(means)), means)[0, 1]) < 0.3


def test_two_half_batches_make_the_same_update_as_one_batch():
    whole = batches_of(list(LengthGroupedSampler(lengths(160), 16, 0)), 16)
    halves = batches_of(list(LengthGroupedSampler(lengths(160), 16, 0)), 8)
    assert [a + b for a, b in zip(halves[::2], halves[1::2], strict=True)] == whole


def rows() -> list[dict]:
    random = np.random.default_rng(0)
    long, short = (random.integers(-9000, 9000, n).astype(np.int16) for n in (700, 400))
    return [
        {"row": 4, "samples": long, "emotion_labels": 1, "asr_labels": [5]},
        {"row": 2, "samples": short, "emotion_labels": -100, "asr_labels": []},
    ]


def test_each_waveform_is_normalised_on_its_own_and_zero_padded():
    batch = Collator(Wav2Vec2FeatureExtractor(do_normalize=True))(rows())
    values, mask = batch["input_values"], batch["attention_mask"]
    assert mask.sum(dim=1).tolist() == [700, 400]
    assert (values[1, 400:] == 0).all()
    for i, n in enumerate((700, 400)):
        expected = rows()[i]["samples"] / 32768
        expected = (expected - expected.mean()) / np.sqrt(expected.var() + 1e-7)
        np.testing.assert_allclose(values[i, :n], expected, atol=1e-5)


def test_missing_labels_stay_missing():
    batch = Collator(Wav2Vec2FeatureExtractor())(rows())
    assert batch["row"].tolist() == [4, 2]
    assert batch["emotion_labels"].tolist() == [1, -100]
    assert batch["asr_labels"].tolist() == [[5], [-100]]


def test_features_are_unpacked_and_padded():
    kept = [packed(torch.randn(3, 4)), packed(torch.randn(2, 4))]
    made = [{"row": i, **columns} for i, columns in enumerate(kept)]
    features = [unpacked(**columns) for columns in kept]
    batch = Collator(Wav2Vec2FeatureExtractor())(made)
    assert batch["frame_lengths"].tolist() == [3, 2]
    assert torch.equal(batch["features"][0], features[0])
    assert torch.equal(batch["features"][1, :2], features[1])
    assert (batch["features"][1, 2:] == 0).all()
