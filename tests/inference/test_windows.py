"""Long recordings are answered in windows: bounded, cut in pauses, weighted by their lengths."""

import numpy as np
import pytest
from helpers.tiny import SAMPLING_RATE

import recordings_ser_mtl
import ser_mtl
from recordings_ser_mtl import LONGEST, WINDOW, windows


@pytest.fixture(scope="module")
def recognizer(finished2):
    return ser_mtl.load(finished2, device="cpu")


@pytest.mark.parametrize("length", [LONGEST + 1, 10 * WINDOW, 10 * WINDOW + 1, LONGEST + SAMPLING_RATE])
def test_windows_are_the_recording_bounded_and_no_splinters(length):
    samples = np.random.default_rng(0).normal(0, 3000, length).astype(np.int16)
    parts = windows(samples)
    assert np.array_equal(np.concatenate(parts), samples)
    assert max(map(len, parts)) <= WINDOW and min(map(len, parts)) >= SAMPLING_RATE // 2


def test_up_to_two_minutes_a_recording_is_one_window():
    samples = np.zeros(LONGEST, np.int16)
    assert [part is samples or len(part) for part in windows(samples)] == [LONGEST]


def test_windows_end_in_pauses():
    samples = np.random.default_rng(0).normal(0, 3000, LONGEST + 1).astype(np.int16)
    pauses = [round((20.3 + 25 * n) * SAMPLING_RATE) for n in range(4)]
    for pause in pauses:
        samples[pause : pause + SAMPLING_RATE // 2] = 0
    cuts = np.cumsum([len(part) for part in windows(samples)])[:4]
    assert all(start < cut < start + SAMPLING_RATE // 2 for start, cut in zip(pauses, cuts, strict=True))


def test_a_long_recording_is_the_weighted_mean_of_its_windows(recognizer, monkeypatch):
    monkeypatch.setattr(recordings_ser_mtl, "LONGEST", 5 * SAMPLING_RATE)
    monkeypatch.setattr(recordings_ser_mtl, "WINDOW", 3 * SAMPLING_RATE)
    long = np.random.default_rng(0).normal(0, 3000, 9 * SAMPLING_RATE).astype(np.int16)
    short = long[:8000]
    parts = windows(long)
    assert len(parts) > 3 and len({*map(len, parts)}) > 1
    monkeypatch.setattr("pipeline_ser_mtl.AT_ONCE", 4 * SAMPLING_RATE)  # a recording of several chunks
    whole, other = recognizer([(long, 16_000), (short, 16_000)])
    monkeypatch.undo()
    answers = [recognizer((part, SAMPLING_RATE)) for part in parts]
    assert (whole["duration"], other["duration"]) == (9.0, 0.5)
    for task in ("emotion", "gender", "style"):
        values = [list(answer[task]["probabilities"].values()) for answer in answers]
        expected = np.average(values, axis=0, weights=[len(part) for part in parts])
        assert list(whole[task]["probabilities"].values()) == pytest.approx(list(expected), abs=1e-5)
        assert whole[task]["label"] == list(whole[task]["probabilities"])[int(expected.argmax())]
        assert whole[task]["probability"] == max(whole[task]["probabilities"].values())
    assert whole["transcript"] == " ".join(answer["transcript"] for answer in answers if answer["transcript"])
