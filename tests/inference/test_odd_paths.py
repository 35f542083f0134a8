"""Pins that paths which give no answer are a line each, and that the others are answered."""

import os
import tempfile
from pathlib import Path

import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone

from ser_mtl.corpora.reading import read_audio
from ser_mtl.inference.finding import find_audio


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder of a good recording, "a.wav"."""
    (tmp_path / "mine").mkdir()
    soundfile.write(tmp_path / "mine/a.wav", tone(440, 0.4), SAMPLING_RATE)
    return tmp_path / "mine"


def predict(model: Path, *paths: object) -> tuple[list[str], list[str], int]:
    """The lines of answers, those of messages, and the exit code."""
    ended = run_script("predict", [*paths, "--model", model])
    lines = [line for line in ended.stderr.splitlines() if line.strip() and "%|" not in line]
    return ended.stdout.splitlines(), lines, ended.code


def test_what_cannot_be_opened_is_a_line_each_and_the_others_are_answered(finished2, folder):
    os.mkfifo(folder / "pipe.wav")
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    (folder / "broken.wav").symlink_to(folder / "nowhere.wav")
    (folder / "empty.mp3").touch()
    (folder / "device.wav").symlink_to("/dev/zero")
    soundfile.write(os.fsencode(folder) + b"/\xff.wav", tone(440, 0.4), SAMPLING_RATE, format="WAV")
    answers, lines, code = predict(finished2, folder, "/dev/zero", "/dev/null", "x" * 300)
    assert (len(answers), code) == (1, 2) and "a.wav: " in answers[0]
    reasons = {
        "broken.wav": "no such file", "device.wav": "a pipe or a device", "empty.mp3": "is empty",
        "loop.wav": "Too many levels", "pipe.wav": "a pipe or a device", "\\udcff.wav": "not UTF-8",
        "/dev/zero": "a pipe or a device", "/dev/null": "a pipe or a device", "x" * 300: "name too long",
    }  # fmt: skip
    assert len(lines) == len(reasons) + 1 and "no answer for 9 of 10 files" in lines[-1]
    for line, (name, reason) in zip(lines, reasons.items(), strict=False):
        assert f"{name}: " in line and reason in line


def test_formats_of_ffmpeg_are_counted_with_their_command(finished2, folder, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("b.m4a", "c.MP4", "d.amr", "e.webm", "f.aac", "._a.m4a"):
        (folder / name).write_bytes(b"not read")
    answers, lines, code = predict(finished2, folder)
    assert (len(answers), code) == (1, 2)
    assert lines[0] == (
        f"5 audio files need ffmpeg, which is not installed: {folder}/b.m4a, {folder}/c.MP4, {folder}/d.amr and 2 "
        f"more; install it, or convert each where it is: ffmpeg -i {folder}/b.m4a {folder}/b.m4a.wav"
    )
    assert lines[1:] == ["ser-mtl predict: no answer for 5 of 6 files (see above)"]
    (folder / "a.wav").unlink()
    check_one_line(run_script("predict", [folder, "--model", finished2]), "predict", "5 audio files", "ffmpeg -i ")


def test_with_ffmpeg_other_formats_are_answered_as_their_wav(finished2, folder, tmp_path, monkeypatch):
    (folder / "b.m4a").write_bytes(b"ftypM4A ")
    program = tmp_path / "bin/ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexec /bin/cat {folder}/a.wav\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    answers, lines, code = predict(finished2, folder)
    assert (len(answers), lines, code) == (2, [], 0)
    assert answers[0].replace("a.wav", "b.m4a") == answers[1]


def test_notes_of_macos_are_skipped_and_sphere_is_read(folder):
    for name in ("._a.wav", "b.sph", "b.txt"):
        soundfile.write(folder / name, tone(440, 0.4), SAMPLING_RATE, format="NIST")
    assert [file.name for file in find_audio([folder]).files] == ["a.wav", "b.sph"]
    assert len(read_audio(folder / "b.sph")[0]) == 6400


def test_an_empty_folder_among_others_is_named(finished2, folder, tmp_path):
    (tmp_path / "empty/deep").mkdir(parents=True)
    answers, lines, code = predict(finished2, tmp_path / "empty", folder)
    assert (len(answers), code) == (1, 2)
    assert lines == [f"{tmp_path}/empty: no audio file there", "ser-mtl predict: not all read (see above)"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unreadable_folder_is_named_also_below_others():
    """Another user's, because root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "closed").mkdir(0o700)
        (folder / "a.wav").touch()
        os.seteuid(65534)
        try:
            found = find_audio([folder, folder / "closed"])
        finally:
            os.seteuid(0)
    assert [file.name for file in found.files] == ["a.wav"]
    assert found.faults == [f"{folder}/closed: cannot be looked through (Permission denied)"] * 2
