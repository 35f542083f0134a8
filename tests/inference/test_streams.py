"""A file read as a stream gives the samples of the whole file, in every bit; what is wrong with it is told too."""

import io

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, tone

import recordings_ser_mtl
from recordings_ser_mtl import blocks_of, mono_16k, to_mono_16k
from ser_mtl.corpora import ffmpeg, reading
from ser_mtl.corpora.reading import audio_blocks, read_audio
from ser_mtl.errors import UserError

RATES = [8000, 11_025, 16_000, 22_050, 44_100, 16_016, 48_000, 96_000]


def noise(seconds: float, rate: int, channels: int = 1) -> np.ndarray:
    return np.random.default_rng(0).normal(0, 0.1, (round(seconds * rate), channels)).astype(np.float32)


@pytest.fixture
def small_blocks(monkeypatch):
    """Everything in blocks of seconds, as in recordings of hours."""
    monkeypatch.setattr(recordings_ser_mtl, "_RESAMPLED", 1)
    monkeypatch.setattr(recordings_ser_mtl, "_BLOCK", 5000)
    monkeypatch.setattr(reading, "_BLOCK", 5000)


@pytest.mark.parametrize("rate", RATES)
def test_resampling_in_blocks_has_no_seams(rate, small_blocks, monkeypatch):
    samples = noise(5.3, rate)
    parts = np.split(samples, [7, 1000, 3 * rate])
    streamed = np.concatenate(list(mono_16k(parts, rate)))
    assert np.array_equal(streamed, to_mono_16k(samples, rate))
    monkeypatch.setattr(recordings_ser_mtl, "_RESAMPLED", 100)
    whole = to_mono_16k(samples, rate)
    assert len(streamed) == len(whole) and np.abs(streamed.astype(int) - whole).max() <= 1


@pytest.mark.parametrize(("suffix", "rate"), [("wav", 44_100), ("flac", 48_000), ("mp3", 44_100), ("ogg", 22_050)])
def test_a_streamed_file_is_the_whole_file(tmp_path, suffix, rate, small_blocks):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, noise(3.1, rate, 2), rate)
    whole = to_mono_16k(*read_audio(path))
    for read in (audio_blocks, None):
        for source in (path, io.BytesIO(path.read_bytes())):
            blocks = list(blocks_of(source, read=read))
            assert len(blocks) > 1 and np.array_equal(np.concatenate(blocks), whole)


def test_no_more_than_blocks_of_a_file_are_held(tmp_path, small_blocks):
    soundfile.write(tmp_path / "a.wav", noise(20, 8000), 8000)
    first = next(blocks_of(tmp_path / "a.wav", read=audio_blocks))
    assert len(first) == SAMPLING_RATE


@pytest.mark.parametrize("read", [audio_blocks, None])
def test_what_is_wrong_far_into_a_file_is_told(tmp_path, read, small_blocks):
    rate, path = 16_000, tmp_path / "a.wav"
    for wild, said in ((np.nan, "NaN"), (9000.0, "samples up to 9000; floats must be")):
        samples = noise(3, rate)
        samples[2 * rate :] = wild
        soundfile.write(path, samples, rate, subtype="FLOAT")
        with pytest.raises(ValueError, match=f"a.wav: .*{said}"):
            list(blocks_of(path, read=read))
    soundfile.write(path, np.zeros(0), rate)
    with pytest.raises(ValueError, match=r"a\.wav: holds no samples"):
        list(blocks_of(path, read=read))


def test_a_few_wild_samples_are_counted_over_all_blocks(tmp_path, small_blocks):
    samples = noise(3, 16_000).clip(-1, 1)
    samples[[10, 20_000, 40_000]] = 7.5
    soundfile.write(tmp_path / "a.wav", samples, 16_000, subtype="FLOAT")
    with pytest.warns(UserWarning, match=r"a\.wav: 3 of 48000 samples are beyond -1\.\.1 \(peak 7\.50\)") as caught:
        streamed = np.concatenate(list(blocks_of(tmp_path / "a.wav", read=audio_blocks)))
    assert len(caught) == 1
    assert np.array_equal(streamed, to_mono_16k(samples.clip(-1, 1), 16_000))


def test_a_file_that_is_cut_off_or_never_ends_is_told(tmp_path, small_blocks, monkeypatch):
    path = tmp_path / "a.wav"
    soundfile.write(path, noise(3, 16_000), 16_000)
    path.write_bytes(path.read_bytes()[:60_000])
    with pytest.raises(UserError, match=r"a\.wav: is cut off: 1\.9 of the 3\.0 seconds"):
        list(audio_blocks(path))
    soundfile.write(path, noise(3, 16_000), 16_000)
    monkeypatch.setattr(reading, "_LONGEST", 2)
    with pytest.raises(UserError, match=r"a\.wav: lasts longer than"):
        list(audio_blocks(path))


# ------------------------------------------------------------------------------------------------------------- ffmpeg


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program ffmpeg that does as the shell is told, for a file a.m4a."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "a.m4a").write_bytes(b"ftypM4A ")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(ffmpeg, "_BLOCK", 4096)

    def make(line: str) -> None:
        (tmp_path / "bin/ffmpeg").write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin/ffmpeg").chmod(0o755)

    return make


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_16"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_ffmpeg_is_read_while_it_decodes(tmp_path, program, subtype, form):
    soundfile.write(tmp_path / "a.wav", noise(2, 44_100, 2), 44_100, subtype=subtype, format=form)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data")
    content[place + 4 : place + 8] = b"\xff" * 4  # as in a pipe
    (tmp_path / "b.wav").write_bytes(content)
    program(f"exec /bin/cat {tmp_path}/b.wav")
    blocks = [block for block, rate in audio_blocks(tmp_path / "a.m4a") if rate == 44_100]
    assert len(blocks) > 10
    np.testing.assert_array_equal(np.concatenate(blocks), read_audio(tmp_path / "a.wav")[0])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('echo "[mov @ 0x1] moov atom not found" >&2; exit 1', r"\(ffmpeg: moov atom not found\); replace"),
        ('echo "file:/dev/fd/17: Invalid data found" >&2; exit 1', r"\(ffmpeg: Invalid data found\); replace"),
        ("exit 0", r"\(ffmpeg: exit code 0\)"),
        ("echo RIFFxxxxWAVEfmt yyyy", r"\(ffmpeg: exit code 0\)"),
        ("/bin/cat {}/a.wav; exit 3", r"\(ffmpeg: exit code 3\)"),
        ('/bin/cat {}/a.wav; echo "stream ended prematurely" >&2', "is cut off"),
        ("exec /bin/sleep 60", r"has not decoded it within 0\.2 seconds"),
    ],
)  # fmt: skip
def test_ffmpeg_that_fails_is_one_line(tmp_path, program, monkeypatch, line, said):
    soundfile.write(tmp_path / "a.wav", tone(440, 0.4), SAMPLING_RATE)
    program(line.format(tmp_path))
    if "sleep" in line:
        monkeypatch.setattr(ffmpeg, "_SECONDS", 0.2)
    with pytest.raises(UserError, match=rf"a\.m4a: .*{said}"):
        list(audio_blocks(tmp_path / "a.m4a"))
