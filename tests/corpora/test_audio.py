"""Pins that audio of any rate, channels and format gives 16 kHz mono of the same length, pitch and level."""

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, tone

from ser_mtl.corpora.audio import decode
from ser_mtl.errors import UserError


def test_headerless_audio_is_named(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"a\.raw: cannot be read"):
        decode(tmp_path / "a.raw")


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_any_sampling_rate_keeps_length_and_pitch(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.5, rate), rate)
    samples = decode(tmp_path / "a.wav")
    assert samples.dtype == np.int16
    assert len(samples) == SAMPLING_RATE // 2
    middle = slice(1000, 7000)  # the filter rings at the ends
    expected = tone(1000, 0.5)[middle] * 32768
    np.testing.assert_allclose(samples[middle], expected, atol=0.01 * 32768)


def test_channels_are_averaged(tmp_path):
    channels = np.stack([tone(440, 0.3), tone(660, 0.3), np.zeros(4800)], axis=1)
    soundfile.write(tmp_path / "a.flac", channels, SAMPLING_RATE, subtype="PCM_24")
    np.testing.assert_allclose(decode(tmp_path / "a.flac"), channels.mean(axis=1) * 32768, atol=0.51)


def test_samples_at_its_own_rate_are_read_as_they_are(tmp_path):
    samples = np.arange(-32768, 32768, 13, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLING_RATE)
    np.testing.assert_array_equal(decode(tmp_path / "a.wav"), samples)


def test_values_beyond_full_scale_are_clipped_not_wrapped(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.array([1.5, -1.5]), SAMPLING_RATE, subtype="FLOAT")
    np.testing.assert_array_equal(decode(tmp_path / "a.wav"), [32767, -32768])
