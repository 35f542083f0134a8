"""Pins that audio of any rate, channels and format gives 16 kHz mono of the same length, pitch and level."""

import tracemalloc
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
import soundfile
import torch
from datasets import Dataset
from helpers.tiny import SAMPLING_RATE, tone
from torchaudio.functional import resample

from ser_mtl.corpora import audio
from ser_mtl.corpora.audio import decode, read_audio, to_mono_16k, with_samples
from ser_mtl.corpora.folder import read_folder
from ser_mtl.corpora.kept import kept_file
from ser_mtl.corpora.level import Clipped
from ser_mtl.corpora.reading import seconds_of
from ser_mtl.errors import UserError
from ser_mtl.stopping import Stopped


def test_headerless_audio_is_refused(tmp_path):
    (tmp_path / "a.raw").write_bytes(bytes(100))
    with pytest.raises(UserError, match=r"a\.raw: cannot be read"):
        decode(tmp_path / "a.raw")


def write_flac(path, seconds: float, promised: int | None = None, rate: int = 1_000) -> None:
    """Write noise, with a header that promises another number of samples."""
    samples = np.random.default_rng(0).normal(0, 0.1, round(seconds * rate)) if seconds < 100 else np.zeros(3_600_000)
    soundfile.write(path, samples, rate)
    if promised is not None:
        content = bytearray(path.read_bytes())
        field = int.from_bytes(content[18:26], "big") >> 36 << 36  # rate, channels and bits; 36 bits are the length
        content[18:26] = (field | promised).to_bytes(8, "big")
        path.write_bytes(content)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000, 192_000])
def test_usual_rates_are_resampled_by_torchaudio_alone(rate):
    mono = np.random.default_rng(0).normal(0, 0.1, rate // 10).astype(np.float32)
    expected = resample(torch.from_numpy(mono), rate, SAMPLING_RATE).numpy()
    np.testing.assert_array_equal(to_mono_16k(mono[:, None], rate), np.rint(expected * 32768))


# 8,001 to 767,999 Hz have no or few factors in common with 16,000.
@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 8_001, 11_127, 22_254, 44_101, 767_999])
def test_any_sampling_rate_keeps_length_and_pitch(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(1000, 0.5, rate), rate)
    samples = decode(tmp_path / "a.wav")
    assert samples.dtype == np.int16
    assert len(samples) in (SAMPLING_RATE // 2, SAMPLING_RATE // 2 + 1)
    middle = slice(1000, 7000)  # the filter rings at the ends
    expected = tone(1000, 0.5)[middle] * 32768
    np.testing.assert_allclose(samples[middle], expected, atol=0.02 * 32768)


@pytest.mark.parametrize("rate", [1, 999, 2**31 - 1])
def test_absurd_rates_are_refused(tmp_path, rate):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.1), SAMPLING_RATE)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = rate.to_bytes(4, "little")
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.wav: sampling rate {rate}: must be from 1000"):
        decode(tmp_path / "a.wav")
    with pytest.raises(UserError, match=f"sampling rate {rate}"):
        to_mono_16k(np.zeros((10, 1), np.float32), rate)


def test_an_hour_is_refused_without_being_decoded(tmp_path):
    write_flac(tmp_path / "a.flac", 3600)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"a\.flac: lasts 3600\.0 seconds, longer than --max_seconds 60; cut it"):
        read_audio(tmp_path / "a.flac", max_seconds=60)
    assert tracemalloc.get_traced_memory()[1] < 10e6  # an hour is 14.4e6 bytes at this rate
    tracemalloc.stop()


@pytest.mark.parametrize("promised", [3_600_000, 2**36 - 1])
@pytest.mark.parametrize("max_seconds", [None, 60])
def test_a_header_that_promises_too_much_is_named(tmp_path, promised, max_seconds):
    write_flac(tmp_path / "a.flac", 2, promised)
    with pytest.raises(UserError, match=r"a\.flac: is cut off: 2\.0 of the .* seconds in its header"):
        read_audio(tmp_path / "a.flac", max_seconds)


@pytest.mark.parametrize("suffix", ["wav", "aiff", "flac"])
def test_a_file_that_was_cut_off_is_named(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 16_000), SAMPLING_RATE)
    file.write_bytes(file.read_bytes()[:12_000])
    with pytest.raises(UserError, match=rf"a\.{suffix}: (is cut off: 0\.4 of the 1\.0 seconds|cannot be read)"):
        decode(file)


@pytest.mark.parametrize("length", [2**32 - 1, 2**31 - 1 - 36, 2**31 - 4096])
def test_a_wav_that_was_written_to_a_pipe_is_read_whole(tmp_path, length):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.5), SAMPLING_RATE)
    samples = decode(tmp_path / "a.wav")
    content = (tmp_path / "a.wav").read_bytes()
    (tmp_path / "a.wav").write_bytes(content[:40] + length.to_bytes(4, "little") + content[44:])
    np.testing.assert_array_equal(decode(tmp_path / "a.wav"), samples)


def test_a_flac_of_unknown_length_is_read_whole(tmp_path):
    """ffmpeg leaves the length out if it writes to a pipe."""
    write_flac(tmp_path / "a.flac", 2)
    write_flac(tmp_path / "b.flac", 2, promised=0)
    assert seconds_of(tmp_path / "b.flac") == 2
    np.testing.assert_array_equal(decode(tmp_path / "b.flac"), decode(tmp_path / "a.flac"))


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
    corpus = Dataset.from_dict({"id": list("abc"), "path": [str(tmp_path / f"{name}.wav") for name in "abc"]})
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


# ---------------------------------------------------------------------------------------------------- a whole corpus


def write_corpus(folder):
    """Four recordings of 0.1 to 0.4 seconds, in a folder corpus."""
    folder.mkdir()
    for number in range(1, 5):
        soundfile.write(folder / f"{number}.wav", tone(100 * number, number / 10), SAMPLING_RATE)
    (folder / "metadata.csv").write_text("file_name,fold\n" + "".join(f"{n}.wav,{n}\n" for n in range(1, 5)))
    return folder


def decoded_files(monkeypatch, corpus) -> list[str]:
    """The names of the files that were decoded, and not taken from a cache."""
    names, original = [], audio.decode
    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", lambda path, *more: names.append(path[-5:]) or original(path, *more))
        with_samples(corpus)
    return names


def test_damaged_files_are_named_together_and_the_others_are_kept(tmp_path, monkeypatch):
    folder = write_corpus(tmp_path / "mine")
    corpus = read_folder([folder])
    good = (folder / "2.wav").read_bytes()
    kept_before = set(Path(datasets.config.HF_DATASETS_CACHE).rglob("kept-*"))
    for name in ("2.wav", "4.wav"):
        (folder / name).write_bytes(b"no audio")
    with pytest.raises(UserError, match=r"^2 audio files cannot be used: ") as stop:
        with_samples(corpus)
    for row, name in ((3, "2.wav"), (5, "4.wav")):
        assert f"{folder}/metadata.csv, row {row}: {folder}/{name}: cannot be read" in str(stop.value)
    for name in ("2.wav", "4.wav"):
        (folder / name).write_bytes(good)
    kept_file(folder / "1.wav").write_bytes(b"damaged")
    assert decoded_files(monkeypatch, corpus) == ["1.wav", "2.wav", "4.wav"]
    assert decoded_files(monkeypatch, corpus) == []
    rows = with_samples(corpus).to_list()
    assert [row["samples"] for row in rows] == [decode(row["path"]).tolist() for row in rows]
    assert [row["length"] for row in rows] == [1600, 3200, 4800, 3200]
    assert [row["peak"] for row in rows] == [max(map(abs, row["samples"])) for row in rows]
    assert len({row["digest"] for row in rows}) == 3  # two are the same file
    assert set(Path(datasets.config.HF_DATASETS_CACHE).rglob("kept-*")) == kept_before


@pytest.mark.parametrize("stop", [KeyboardInterrupt, Stopped(15)])
def test_an_interruption_keeps_what_was_decoded_and_leaves_no_other_file(tmp_path, monkeypatch, stop):
    corpus = read_folder([write_corpus(tmp_path / "mine")])
    cache = Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"
    before, original = set(cache.iterdir()) if cache.exists() else set(), audio.decode

    def interrupted(path, *more):
        if path.endswith("3.wav"):
            raise stop
        return original(path, *more)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "decode", interrupted)
        with pytest.raises((KeyboardInterrupt, Stopped)):
            with_samples(corpus)
    assert {file.name[:5] for file in set(cache.iterdir()) - before} == {"kept-"}
    assert decoded_files(monkeypatch, corpus) == ["3.wav", "4.wav"]
    assert not {file for file in set(cache.iterdir()) - before if file.name.startswith("kept-")}


def test_a_recording_over_the_limit_stops_with_its_row(tmp_path):
    corpus = read_folder([write_corpus(tmp_path / "mine")])
    said = r"^/.*metadata\.csv, row 5: /.*4\.wav: lasts 0\.4 seconds, longer than --max_seconds 0\.35; cut it$"
    with pytest.raises(UserError, match=said):
        with_samples(corpus, max_seconds=0.35)
    with_samples(corpus)
    with pytest.raises(UserError, match=said):  # also from the cache
        with_samples(corpus, max_seconds=0.35)
