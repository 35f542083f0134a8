"""Segments: where speech is, in pauses, bounded; the same however the samples arrive."""

from itertools import pairwise

import numpy as np
import pytest
from helpers.tiny import SAMPLING_RATE, tone

import segments_ser_mtl
from segments_ser_mtl import FRAME, MARGIN, WINDOW, by_energy, has_silero, segments

RANDOM = np.random.default_rng(0)


def burst(seconds: float) -> np.ndarray:
    return RANDOM.normal(0, 3000, round(seconds * SAMPLING_RATE)).astype(np.int16)


def silence(seconds: float) -> np.ndarray:
    return np.zeros(round(seconds * SAMPLING_RATE), np.int16)


def spans(samples: np.ndarray, block: int | None = None) -> list[tuple[int, int]]:
    """First sample and end of each segment, heard by energy."""
    size = block or max(1, len(samples))
    blocks = [samples[start : start + size] for start in range(0, len(samples), size)]
    found = list(segments(blocks, by_energy))
    for segment in found:
        assert np.array_equal(segment.samples, samples[segment.start : segment.start + len(segment.samples)])
    return [(segment.start, segment.start + len(segment.samples)) for segment in found]


def in_seconds(found: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(start / SAMPLING_RATE, end / SAMPLING_RATE) for start, end in found]


@pytest.fixture(scope="module")
def talk() -> np.ndarray:
    """Speech from 3 to 7, 8 to 13, 15 to 15.4, 19.4 to 64.4 and 70 to 72.5 seconds."""
    parts = (silence(3), burst(4), silence(1), burst(5), silence(2), burst(0.4), silence(4), burst(45), silence(5.6))
    return np.concatenate([*parts, burst(2.5)])


def test_segments_are_where_the_speech_is(talk):
    found = in_seconds(spans(talk))
    expected = [(3, 7), (8, 13), (15, 15.4), (19.4, None), (None, 64.4), (70, 72.5)]
    assert len(found) == len(expected)
    for (start, end), (begins, ends) in zip(found, expected, strict=True):
        assert begins is None or begins - 0.51 - FRAME / SAMPLING_RATE <= start <= begins
        assert ends is None or ends <= end <= ends + 0.51 + FRAME / SAMPLING_RATE
    assert found[3][1] == found[4][0]  # no pause in 45 seconds: cut, and nothing lost


def test_segments_are_bounded_in_order_and_apart():
    for longest in (1, 8, 70):
        parts = [
            part for _ in range(12) for part in (burst(RANDOM.uniform(0.1, longest)), silence(RANDOM.uniform(0, 3)))
        ]
        found = spans(np.concatenate(parts))
        assert max(end - start for start, end in found) <= WINDOW
        assert all(end <= start for (_, end), (start, _) in pairwise(found))


@pytest.mark.parametrize("block", [777, 16_000, 500_000])
def test_neither_blocks_nor_what_is_held_change_a_segment(talk, block, monkeypatch):
    long = np.concatenate([talk, talk, silence(90), talk])
    found = spans(long, block)
    monkeypatch.setattr(segments_ser_mtl, "_HELD", 10**6)  # all at once
    assert spans(long) == found


def test_silence_in_front_only_moves_segments(talk):
    lead = 1000 * FRAME
    moved = spans(np.concatenate([np.zeros(lead, np.int16), talk]))
    assert moved == [(start + lead, end + lead) for start, end in spans(talk)]


@pytest.mark.parametrize("seconds", [0.1, 5, 29.9])
def test_a_short_recording_is_one_segment(seconds):
    edge = min(1, seconds / 10)
    samples = np.concatenate([silence(edge), burst(seconds - 2 * edge), silence(edge)])
    assert spans(samples) == [(0, len(samples))]


def test_a_pause_of_a_second_and_a_half_divides_a_short_recording():
    samples = np.concatenate([burst(3), silence(1.3), burst(3), silence(1.7), burst(3)])
    (first, second) = in_seconds(spans(samples))
    assert first == (0, pytest.approx(7.8, abs=0.05)) and second == (pytest.approx(8.5, abs=0.05), 12)


@pytest.mark.parametrize("seconds", [0, 0.01, 3, 100])
def test_in_silence_and_faint_noise_nobody_speaks(seconds):
    noise = RANDOM.normal(0, 40, round(seconds * SAMPLING_RATE)).astype(np.int16)
    click = silence(seconds)
    click[:1] = 20_000
    for samples in (silence(seconds), noise, click if seconds > 1 else silence(seconds)):
        assert spans(samples) == []


def test_in_the_noise_of_a_room_segments_are_the_same(talk):
    noisy = (talk + RANDOM.normal(0, 60, len(talk))).clip(-32768, 32767).astype(np.int16)
    for (start, end), (begins, ends) in zip(spans(noisy), spans(talk), strict=True):
        assert max(abs(start - begins), abs(end - ends)) <= 2 * FRAME


def test_speech_without_a_pause_is_cut_where_it_is_quietest():
    samples = burst(100)
    for second in (21.3, 46.3, 71.3):
        quiet = slice(round(second * SAMPLING_RATE), round((second + 0.3) * SAMPLING_RATE))
        samples[quiet] //= 4
    cuts = [end for _, end in in_seconds(spans(samples))[:3]]
    assert all(second < cut < second + 0.3 for second, cut in zip((21.3, 46.3, 71.3), cuts, strict=True))


def test_a_segment_has_a_margin_of_half_a_second():
    found = spans(np.concatenate([burst(20), silence(5), burst(20)]))
    assert found[0][1] - 20 * SAMPLING_RATE == pytest.approx(MARGIN, abs=2 * FRAME)
    assert 25 * SAMPLING_RATE - found[1][0] == pytest.approx(MARGIN, abs=2 * FRAME)


@pytest.mark.skipif(not has_silero(), reason="needs silero-vad")
def test_silero_hears_no_speech_in_tones_and_noise():
    loud = (np.tile(tone(440, 1), 40) * 20_000).astype(np.int16)
    assert list(segments([loud])) == []
    assert spans(loud) != []
