"""Augmentation: what is done to samples, and that it depends on seed, epoch and utterance alone."""

import random
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from helpers.trainers import noise_trainer

from ser_mtl.corpora import augmentation
from ser_mtl.corpora.augmentation import Augmented, check_augmentations, impulse_response, rooms
from ser_mtl.errors import UserError
from ser_mtl.training.arguments import SerMtlArguments
from ser_mtl.training.callbacks import SamplerEpoch

pytest.importorskip("audiomentations")
ALL = ("noise", "reverb", "speed")


def tones(number: int = 40, samples: int = 8000) -> Dataset:
    """Tones of different pitches, half of full scale."""
    times = np.arange(samples) / 16_000
    waves = [np.rint(16_384 * np.sin(2 * np.pi * (200 + 10 * row) * times)).astype(np.int16) for row in range(number)]
    return Dataset.from_dict({"row": range(number), "samples": waves}).with_format("numpy")


def augmented(*names: str, seed: int = 0, epoch: int = 0, rows: Dataset | None = None, fits=None) -> list[np.ndarray]:
    made = Augmented(rows or tones(), names, seed, fits or (lambda samples, row: True))
    made.begin_epoch(epoch)
    return [made[index]["samples"] for index in range(len(made))]


def clean() -> list[np.ndarray]:
    return [row["samples"] / np.float32(32768) for row in tones()]


def changed(found: list[np.ndarray]) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(found, clean(), strict=True)) if not np.array_equal(a, b)]


def test_noise_is_white_and_has_its_ratio_to_the_speech():
    found = augmented("noise")
    assert 10 < len(changed(found)) < 30
    for index in changed(found):
        speech, noise = clean()[index], found[index] - clean()[index]
        ratio = 10 * np.log10(np.square(speech).mean() / np.square(noise).mean())
        assert 9.8 < ratio < 30.2
        assert abs(np.corrcoef(noise[1:], noise[:-1])[0, 1]) < 0.05


def test_speed_changes_length_and_pitch_together():
    found = augmented("speed")
    lengths = np.array([len(samples) for samples in found])
    assert {*lengths.tolist()} == {8000, -(-8000 * 10 // 9), -(-8000 * 10 // 11)}
    for index in changed(found):
        peak = np.abs(np.fft.rfft(found[index], 2**16)).argmax() * 16_000 / 2**16
        assert peak == pytest.approx((200 + 10 * index) * 8000 / lengths[index], rel=0.01)


def test_reverb_keeps_length_and_level():
    found = augmented("reverb")
    assert 10 < len(changed(found)) < 30
    for samples, speech in zip(found, clean(), strict=True):
        assert samples.shape == speech.shape and samples.dtype == np.float32
        assert np.square(samples).mean() == pytest.approx(np.square(speech).mean(), rel=1e-3)


@pytest.mark.parametrize("number", range(5))
def test_a_room_decays_by_sixty_decibels_in_its_time(number):
    response = impulse_response(np.random.default_rng(number))
    seconds = np.random.default_rng(number).uniform(0.2, 0.8)
    energy = np.cumsum(np.square(response[:0:-1].astype(float)))[::-1]
    times = np.arange(len(energy)) / 16_000
    part = slice(len(energy) // 10, len(energy) // 2)
    slope = np.polyfit(times[part], 10 * np.log10(energy[part]), 1)[0]
    assert -60 / slope == pytest.approx(seconds, rel=0.1)
    assert response[0] == 1 and 0.09 < energy[0] < 1.01


def test_the_rooms_are_written_once_and_the_same_everywhere(tmp_path, monkeypatch):
    before = [soundfile.read(file)[0] for file in rooms()]
    monkeypatch.setattr(augmentation, "cache_folder", lambda: tmp_path)
    assert all(np.array_equal(soundfile.read(file)[0], one) for file, one in zip(rooms(), before, strict=True))
    assert len(before) == 20
    times = [file.stat().st_mtime_ns for file in rooms()]
    assert [file.stat().st_mtime_ns for file in rooms()] == times


def test_the_same_seed_epoch_and_row_give_the_same_in_any_order():
    first = augmented(*ALL, seed=3, epoch=2)
    backwards = augmented(*ALL, seed=3, epoch=2, rows=tones().select(range(39, -1, -1)))[::-1]
    assert all(map(np.array_equal, first, backwards))
    for other in (augmented(*ALL, seed=4, epoch=2), augmented(*ALL, seed=3, epoch=3)):
        assert sum(map(np.array_equal, first, other)) < 20


def test_other_random_numbers_go_on_as_if_nothing_had_been_drawn():
    random.seed(0), np.random.seed(0)
    expected = random.random(), np.random.random()
    random.seed(0), np.random.seed(0)
    augmented(*ALL)
    assert (random.random(), np.random.random()) == expected


def test_a_speed_that_does_not_fit_is_left_out():
    found = augmented("speed", fits=lambda samples, row: samples > 8000)
    assert {len(samples) for samples in found} - {8000} and min(map(len, found)) == 8000


def test_silence_and_a_single_sample_stay_finite():
    rows = Dataset.from_dict({"row": range(20), "samples": [[0] * 800, [5]] * 10}).with_format("numpy")
    assert all(np.isfinite(samples).all() and len(samples) for samples in augmented(*ALL, rows=rows))


# ------------------------------------------------------------------------------------------------------- in training


def batches(trainer, epoch: int) -> dict[int, bytes]:
    """What the utterances of an epoch sound like, by their rows, as the Trainer gets them."""
    (callback,) = (one for one in trainer.callback_handler.callbacks if isinstance(one, SamplerEpoch))
    callback.on_epoch_begin(trainer.args, SimpleNamespace(epoch=epoch + 0.3), None)
    found = {}
    for batch in trainer.get_train_dataloader():
        for row, values, mask in zip(batch["row"], batch["input_values"], batch["attention_mask"], strict=True):
            found[int(row)] = values[: int(mask.sum())].numpy().tobytes()
    return found


def test_workers_and_accumulation_change_nothing_and_epochs_do(tmp_path):
    plain = noise_trainer(tmp_path / "a", augment=["noise"], per_device_train_batch_size=8)
    shared = {"dataloader_num_workers": 2, "dataloader_persistent_workers": True}
    dealt = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    spread = noise_trainer(tmp_path / "a", augment=["noise"], **dealt, **shared)
    assert batches(plain, 0) == batches(spread, 0)
    assert batches(plain, 1) == batches(spread, 1) != batches(plain, 0)


def test_only_training_is_augmented(tmp_path):
    made = noise_trainer(tmp_path, augment=["noise"], per_device_train_batch_size=8)
    untouched = noise_trainer(tmp_path, per_device_train_batch_size=8)
    utterances = made.parts["train"]
    found, expected = (one.predict(utterances).predictions["emotion"] for one in (made, untouched))
    assert np.array_equal(found, expected)
    assert batches(made, 0) != batches(untouched, 0)
    assert made.record["training"]["augment"] == ["noise"] and made.args.front_end_cache == "never"


def test_an_utterance_that_ctc_needs_whole_is_not_sped_up(tmp_path):
    made = noise_trainer(tmp_path, augment=["speed"], per_device_train_batch_size=8)
    row = made.train_dataset.rows[5]
    frames = int(made.model.frame_lengths(torch.tensor([8000])))
    assert made.train_dataset.fits(8000, row | {"asr_labels": np.arange(frames)})
    assert not made.train_dataset.fits(8000, row | {"asr_labels": np.arange(frames + 1)})
    assert not made.train_dataset.fits(8000, row | {"asr_labels": np.zeros(frames // 2 + 1, int)})


def test_wrong_values_and_a_missing_library_are_one_line(tmp_path, monkeypatch):
    assert check_augmentations(["noise", "speed", "noise"]) == ["speed", "noise"]
    for names, said in ((["echo"], "--augment echo: must be among noise, reverb, speed"), ("noise", "must be a list")):
        with pytest.raises(UserError, match=said):
            check_augmentations(names)
    monkeypatch.setitem(sys.modules, "audiomentations", None)
    monkeypatch.setattr(augmentation, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r'^--augment: needs the extra "augment"; pip install audiomentations$'):
        SerMtlArguments(output_dir=str(tmp_path), augment=["noise"])
    assert check_augmentations(["speed"]) == ["speed"]  # is torchaudio's
    assert SerMtlArguments(output_dir=str(tmp_path), augment=[]).augment is None
