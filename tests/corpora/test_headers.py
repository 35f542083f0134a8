"""Pins that a file which ends before its header says so is named, that it is read if whole, and what is opened."""

import os
import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, tone

from recordings_ser_mtl import read_blocks
from ser_mtl.corpora import ffmpeg, reading
from ser_mtl.corpora.headers import check_whole
from ser_mtl.corpora.reading import read_audio, seconds_of, seconds_over
from ser_mtl.errors import UserError

LIBSNDFILE = ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "rf64", "sph"]
FORMATS = {"sph": "NIST"}


def write(file: Path, seconds: float = 2) -> bytes:
    noise = tone(440, seconds) + np.random.default_rng(0).normal(0, 0.05, round(seconds * SAMPLING_RATE))
    soundfile.write(file, noise, SAMPLING_RATE, format=FORMATS.get(file.suffix[1:], file.suffix[1:]))
    return file.read_bytes()


@pytest.mark.parametrize("suffix", LIBSNDFILE)
def test_half_a_file_is_said_to_be_cut_off(tmp_path, suffix):
    file = tmp_path / f"a.{suffix}"
    content = write(file)
    read_audio(file)
    for part in (content[: len(content) // 2], content[: len(content) * 2 // 3 + 1]):
        file.write_bytes(part)
        with pytest.raises(UserError, match=rf"a\.{suffix}: (is cut off: .* in its header|cannot be read)"):
            read_audio(file)
        with pytest.raises(UserError, match=r"the audio: (is cut off|cannot be read)"):
            read_audio(BytesIO(part))


@pytest.mark.parametrize("codec", ["GSM610", "G721_32"])
def test_telephony_is_read_though_no_one_can_seek_in_it(tmp_path, codec):
    file, samples = tmp_path / "a.wav", tone(440, 2, 8000)
    soundfile.write(file, samples, 8000, subtype=codec)
    for read in (read_audio, lambda name: next(read_blocks(name))):
        heard, rate = read(file)
        assert rate == 8000 and np.corrcoef(heard[:16000, 0], samples)[0, 1] > 0.95
    assert seconds_of(file) == pytest.approx(2, abs=0.1)


def test_opus_is_read_and_half_of_it_is_cut_off(tmp_path):
    file = tmp_path / "a.opus"
    soundfile.write(file, tone(440, 2), SAMPLING_RATE, format="OGG", subtype="OPUS")
    assert len(read_audio(file)[0]) == 2 * SAMPLING_RATE
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(UserError, match=r"a\.opus: is cut off"):
        read_audio(file)


def id3(size: int) -> bytes:
    return b"ID3\x04\0\0" + bytes((size >> shift) & 127 for shift in (21, 14, 7, 0)) + bytes(size)


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_an_mp3_with_a_tag_in_front_is_measured_after_it(tmp_path, size):
    file = tmp_path / "a.mp3"
    content = id3(size) + write(file)
    check_whole(BytesIO(content), "a")
    with pytest.raises(UserError, match=f"a: is cut off: {len(content) - 3000} of the {len(content)} bytes"):
        check_whole(BytesIO(content[:-3000]), "a")
    check_whole(BytesIO(content + b"TAG" + bytes(125)), "a")


def test_an_mp3_without_a_promise_is_read_as_far_as_it_goes():
    frame = b"\xff\xfb\x90\x00" + bytes(32)
    check_whole(BytesIO(frame + b"Xing\0\0\0\1" + struct.pack(">I", 10**9) + bytes(100)), "frames alone")
    check_whole(BytesIO(frame + bytes(400)), "no tag")
    with pytest.raises(UserError, match="cut off"):
        check_whole(BytesIO(frame + b"VBRI" + bytes(6) + struct.pack(">I", 10**6)), "VBRI")


@pytest.mark.parametrize("content", [b"", b"OggS", b"OggS\0" + bytes(30), b"ID3", b"\xff", b"NIST_1A\n", bytes(9)])
def test_a_header_of_few_bytes_is_no_error_of_ours(content):
    try:
        check_whole(BytesIO(content), "few")
    except UserError as error:
        assert str(error).startswith("few: is cut off")


# ----------------------------------------------------------------------------------------------------------- opening


def in_time(code: str, *words: object) -> str:
    """What a process prints that may take some seconds; reading a pipe never ends."""
    program = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=True).stdout


def test_what_has_no_end_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "loop.wav").symlink_to(tmp_path / "loop.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "e.mp3").touch()
    code = "import sys\nfrom ser_mtl.corpora.reading import read_audio, seconds_of\nfor file in sys.argv[1:]:\n"
    code += "    try: read_audio(file)\n    except ValueError as error: print(error, seconds_of(file))"
    names = ["pipe.wav", "loop.wav", "folder.wav", "e.mp3", "gone.wav"]
    files = [*(tmp_path / name for name in names), "/dev/zero"]
    reasons = ["a pipe or a device", "Too many levels", "a folder", "is empty", "no such file", "a pipe or a device"]
    lines = in_time(code, *files).splitlines()
    for line, file, reason in zip(lines, files, reasons, strict=True):
        assert line.startswith(f"{file}: ") and reason in line and line.endswith(" nan")


def test_a_name_that_is_not_utf_8_or_has_a_zero_is_refused(tmp_path):
    file = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.wav"))
    file.write_bytes(write(tmp_path / "a.wav"))
    with pytest.raises(UserError, match=r"\\udcff\.wav: cannot be read as audio: its name is not UTF-8; rename it"):
        read_audio(file)
    with pytest.raises(UserError, match=r"cannot be read as audio: embedded null"):
        read_audio("a\0.wav")


def test_a_file_of_more_numbers_than_memory_should_hold_is_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.flac")
    monkeypatch.setattr(reading, "_LARGEST", 30_000)
    monkeypatch.setattr(reading, "_BLOCK", 1000)
    with pytest.raises(UserError, match=r"a\.flac: holds more than 30000 numbers"):
        read_audio(tmp_path / "a.flac")


@pytest.mark.parametrize(
    ("seconds", "limit", "text"), [(121, 120, "121.0"), (120.04, 120, "120.04"), (0.3501, 0.35, "0.4")]
)
def test_a_length_over_the_limit_is_never_shown_as_the_limit(seconds, limit, text):
    assert seconds_over(seconds, limit) == text


# ------------------------------------------------------------------------------------------------------------ ffmpeg


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Make a program ffmpeg that does as the shell is told; without a line, there is none."""
    (tmp_path / "bin").mkdir()

    def make(line: str) -> None:
        (tmp_path / "bin/ffmpeg").write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / "bin/ffmpeg").chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/nowhere")
    return make


def test_a_format_of_ffmpeg_is_what_ffmpeg_makes_of_it(tmp_path, program):
    write(tmp_path / "a.wav")
    (tmp_path / "a.m4a").write_bytes(b"ftypM4A ")
    program(f'echo "$@" > {tmp_path}/flags; exec /bin/cat {tmp_path}/a.wav')
    samples = read_audio(tmp_path / "a.m4a", 60)[0]
    np.testing.assert_array_equal(samples, read_audio(tmp_path / "a.wav")[0])
    np.testing.assert_array_equal(samples, read_audio(BytesIO(b"ftypM4A "))[0])
    assert seconds_of(tmp_path / "a.m4a") == 2
    with pytest.raises(UserError, match=r"a\.m4a: lasts 2\.0 seconds, longer than --max_seconds 1; cut it"):
        read_audio(tmp_path / "a.m4a", 1)
    assert "-nostdin" in (tmp_path / "flags").read_text() and "-format_whitelist" in (tmp_path / "flags").read_text()


def test_without_ffmpeg_the_message_has_the_command_that_converts(tmp_path, program):
    for name in ("my voice.m4a", "b.AMR", "c.webm"):
        (tmp_path / name).write_bytes(b"ftypM4A ")
        with pytest.raises(UserError, match=r"needs ffmpeg, which is not installed; .* ffmpeg -i '?/.*'?\Z"):
            read_audio(tmp_path / name)


def test_ffmpeg_that_fails_or_takes_too_long_is_one_line(tmp_path, program, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"ftypM4A ")
    program('echo "[mov @ 0x1] moov atom not found" >&2; exit 1')
    with pytest.raises(UserError, match=r"a\.m4a: cannot be read as audio \(ffmpeg: moov atom not found\); replace"):
        read_audio(tmp_path / "a.m4a")
    program("exec /bin/sleep 60")
    monkeypatch.setattr(ffmpeg, "_SECONDS", 0.2)
    with pytest.raises(UserError, match=r"a\.m4a: ffmpeg has not decoded it within 0\.2 seconds"):
        read_audio(tmp_path / "a.m4a")


@pytest.mark.skipif(not ffmpeg.installed(), reason="needs ffmpeg")
@pytest.mark.parametrize("suffix", ["m4a", "mp4", "aac", "webm", "mka", "mov", "wma", "ac3", "amr"])
def test_ffmpeg_gives_the_recording_that_was_encoded(tmp_path, suffix):
    soundfile.write(tmp_path / "a.wav", tone(440, 2, 8000), 8000)
    file = tmp_path / f"a.{suffix}"
    rate = 48_000 if suffix in ("webm", "ac3") else 8000
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-ar", str(rate), file]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this ffmpeg does not write it")
    samples, found = read_audio(file, 60)
    assert found == rate and len(samples) == pytest.approx(2 * rate, abs=1500)
    spectrum = np.abs(np.fft.rfft(samples[:, 0]))
    assert spectrum.argmax() * rate / len(samples) == pytest.approx(440, abs=5)


@pytest.mark.skipif(not ffmpeg.installed(), reason="needs ffmpeg")
def test_ffmpeg_opens_no_other_file(tmp_path):
    soundfile.write(tmp_path / "secret.wav", tone(440, 2), SAMPLING_RATE)
    playlist = f"#EXTM3U\n#EXTINF:2,\n{tmp_path}/secret.wav\n#EXT-X-ENDLIST\n"
    listed = f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n"
    for text in (playlist, listed):
        (tmp_path / "a.m4a").write_text(text)
        with pytest.raises(UserError, match=r"a\.m4a: cannot be read as audio \(ffmpeg: "):
            read_audio(tmp_path / "a.m4a")
