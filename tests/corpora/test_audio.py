"""Pins that audio of any rate, channels and format gives 16 kHz mono of the same length, pitch and level."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
from datasets import Dataset
from helpers.tiny import SAMPLING_RATE, tone

from ser_mtl.corpora.audio import decode, read_audio, to_mono_16k, with_samples
from ser_mtl.corpora.level import Clipped
from ser_mtl.errors import UserError


def test_headerless_audio_is_refused(tmp_path):
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


def test_16_bit_samples_at_16_khz_are_read_unchanged(tmp_path):
    samples = np.arange(-32768, 32768, 13, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", samples, SAMPLING_RATE)
    np.testing.assert_array_equal(decode(tmp_path / "a.wav"), samples)


def write_floats(file, samples: np.ndarray, rate: int = SAMPLING_RATE) -> None:
    soundfile.write(file, samples, rate, subtype="FLOAT")


def test_samples_beyond_full_scale_are_clipped_and_counted(tmp_path):
    write_floats(tmp_path / "a.wav", np.array([1.5, -1.25, 0.5]))
    with pytest.warns(Clipped, match=r"a\.wav: 2 of 3 samples are beyond -1\.\.1 \(peak 1\.50\) and were clipped"):
        np.testing.assert_array_equal(decode(tmp_path / "a.wav"), [32767, -32768, 16384])


@pytest.mark.parametrize("rate", [SAMPLING_RATE, 44_100])
def test_one_wild_sample_is_clipped_before_it_is_spread(tmp_path, rate):
    for name, wild in (("a", 1.0), ("b", 1e4)):
        samples = tone(440, 0.5, rate)
        samples[1000] = wild
        write_floats(tmp_path / f"{name}.wav", samples, rate)
    expected = decode(tmp_path / "a.wav")
    with pytest.warns(Clipped, match="1 of"):
        np.testing.assert_array_equal(decode(tmp_path / "b.wav"), expected)


def test_floats_of_another_scale_are_refused_with_their_peak(tmp_path):
    random = np.random.default_rng(0)
    for scale in (32768 * tone(440, 0.3), 4 * tone(440, 0.3), random.integers(-5, 6, 4000), np.full(100, 2.0)):
        write_floats(tmp_path / "a.wav", np.asarray(scale, dtype=float))
        with pytest.raises(UserError, match=rf"a\.wav: samples up to {np.abs(scale).max():g}; floats must be within"):
            decode(tmp_path / "a.wav")


def test_full_scale_of_integers_and_rounding_is_no_clipping(tmp_path, recwarn):
    soundfile.write(tmp_path / "a.wav", np.array([-32768, 32767], dtype=np.int16), SAMPLING_RATE)
    decode(tmp_path / "a.wav")
    write_floats(tmp_path / "b.wav", np.array([-32768, 32767]) / 32767)
    decode(tmp_path / "b.wav")
    assert not [warning for warning in recwarn if issubclass(warning.category, Clipped)]


def test_the_clipped_recordings_of_a_corpus_are_one_line(tmp_path):
    for name, peak in (("a", 1.2), ("b", 0.5), ("c", 1.4)):
        write_floats(tmp_path / f"{name}.wav", np.array([peak, 0.1, -0.1]))
    corpus = Dataset.from_dict({"path": [str(tmp_path / f"{name}.wav") for name in "abc"]})
    with pytest.warns(Clipped) as caught:
        with_samples(corpus)
    assert [str(warning.message) for warning in caught if issubclass(warning.category, Clipped)] == [
        f"2 recordings have clipped samples, such as {tmp_path}/a.wav: 1 of 3 samples are beyond -1..1 (peak 1.20) and "
        "were clipped"
    ]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_file_object_gives_the_same_samples_as_its_file(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    channels = np.stack([tone(440, 0.3, 22_050), tone(660, 0.3, 22_050)], axis=1)
    soundfile.write(file, channels, 22_050)
    samples, rate = read_audio(file)
    assert (samples.dtype, samples.shape[1], rate) == (np.float32, 2, 22_050)
    np.testing.assert_allclose(samples[2000:6000], channels[2000:6000], atol=0.05)
    with file.open("rb") as opened:
        for source in (str(file), opened, BytesIO(file.read_bytes())):
            np.testing.assert_array_equal(read_audio(source)[0], samples)
    np.testing.assert_array_equal(to_mono_16k(samples, rate), decode(file))


def test_a_file_object_without_audio_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"^the audio: cannot be read as audio"):
        read_audio(BytesIO(b"no audio"))
    (tmp_path / "a.wav").write_bytes(b"no audio")
    with (tmp_path / "a.wav").open("rb") as opened, pytest.raises(UserError, match=r"a\.wav: cannot be read as audio"):
        read_audio(opened)
