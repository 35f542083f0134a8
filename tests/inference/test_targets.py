"""Pins that `ser-mtl predict` writes over nothing that it should not: recordings, other answers, devices."""

import os
import stat
from io import BytesIO
from pathlib import Path

import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, check_one_line, run_script, tone

from ser_mtl.corpora.reading import audio_blocks
from ser_mtl.errors import UserError
from ser_mtl.files import replacing, write_text
from ser_mtl.inference.writing import names_in


@pytest.fixture
def clip(tmp_path) -> Path:
    soundfile.write(tmp_path / "a.wav", tone(300, 0.3), SAMPLING_RATE)
    return tmp_path / "a.wav"


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--output", "a.wav"], ["--output", "one of the recordings"]),
        (["--output", "link.txt"], ["--output", "one of the recordings"]),
        (["--embeddings", "a.wav"], ["--embeddings", "one of the recordings"]),
        (["--output", "x", "--embeddings", "x"], ["--embeddings x", "that of --output"]),
        (["--output", "p.png", "--plot", "./p.png"], ["--plot", "that of --output"]),
        (["--embeddings", "."], ["--embeddings .", "is a folder"]),
        (["--embeddings", "new/"], ["--embeddings new/", "is a folder"]),
        (["--output", ""], ["--output: is followed by nothing"]),
        (["--embeddings", ""], ["--embeddings: is followed by nothing"]),
        (["--plot="], ["--plot: is followed by nothing"]),
    ],
)
def test_what_would_be_lost_is_refused_before_a_model_is_loaded(clip, monkeypatch, flags, named):
    monkeypatch.chdir(clip.parent)
    os.symlink(clip, "link.txt")
    before = clip.read_bytes()
    check_one_line(run_script("predict", [clip, "--model", "nowhere", *flags]), "predict", *named)
    assert clip.read_bytes() == before


def test_an_empty_word_of_any_command_is_refused():
    check_one_line(run_script("export", ["run", "--to", "merged", "--output_dir", ""]), "export", "--output_dir: is")
    check_one_line(run_script("corpus", ["", "--corpus", "folder"]), "corpus", "is followed by nothing")


def test_a_pipe_is_written_into_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "an answer")
    assert os.read(reader, 100) == b"an answer"
    os.close(reader)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode) and len(list(tmp_path.iterdir())) == 1


def test_a_device_and_what_is_open_are_never_replaced():
    for name in ("/dev/null", "/dev/stdout", "/proc/self/fd/1"):
        before = os.lstat(name).st_ino
        with replacing(name) as place:
            assert str(place) == name
        assert os.lstat(name).st_ino == before
    with pytest.raises(IsADirectoryError):
        write_text(".", "")


def test_the_longest_names_are_written_whole(tmp_path):
    longest = ["x" * 251 + ".wav", "y" * 251 + ".wav", "é" * 125 + ".wav"]
    names = names_in(tmp_path, [tmp_path / name for name in longest], ".TextGrid")
    for name in names:
        write_text(name, "")
    assert sorted(tmp_path.iterdir()) == sorted(names)
    assert {path.name[:9] for path in names} == {"x" * 9, "y" * 9, "é" * 9}
    alike = names_in(tmp_path, [tmp_path / ("z" * 250 + end) for end in ("a.wav", "b.wav")], ".TextGrid")
    assert len(set(alike)) == 2


def test_an_empty_standard_input_is_said_to_be_empty():
    nothing = BytesIO()
    nothing.name = "standard input"
    with pytest.raises(UserError, match=r"^standard input: cannot be read as audio: it is empty"):
        next(audio_blocks(nothing))
