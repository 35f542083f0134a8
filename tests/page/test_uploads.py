"""What is sent has limits, told before it is decoded, and is gone before it is answered."""

from io import BytesIO

import numpy as np
import pytest
import soundfile
from helpers.tiny import SAMPLING_RATE, tone

import ser_mtl
from ser_mtl.page.clips import Limits, samples_of, take

LIMITS = Limits(seconds=2, megabytes=0.25)


@pytest.fixture
def upload(tmp_path):
    """Writes a file as Gradio does, in a folder of its own."""

    def write(content: bytes, name: str = "a.wav"):
        folder = tmp_path / "digest"
        folder.mkdir()
        (folder / name).write_bytes(content)
        return folder / name

    return write


def as_file(samples: np.ndarray, **form) -> BytesIO:
    file = BytesIO()
    soundfile.write(file, samples, SAMPLING_RATE, **form or {"format": "WAV"})
    file.name = "a.wav"
    file.seek(0)
    return file


def test_an_upload_is_deleted_as_it_is_read(upload, tmp_path):
    file = take(upload(b"content"), LIMITS)
    assert (file.read(), file.name, list(tmp_path.iterdir())) == (b"content", "a.wav", [])


@pytest.mark.parametrize(("size", "said"), [(LIMITS.size + 1, "0.25 MB"), (0, "empty")])
def test_a_refused_upload_is_deleted_too(upload, tmp_path, size, said):
    with pytest.raises(ser_mtl.UserError, match=rf"^a\.wav: .*{said}"):
        take(upload(bytes(size)), LIMITS)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_that_is_gone_is_one_line(tmp_path):
    with pytest.raises(ser_mtl.UserError, match="drop it again"):
        take(tmp_path / "a.wav", LIMITS)


def test_the_samples_are_those_of_the_file():
    samples = (tone(300, 2) * 32767).astype(np.int16)
    assert np.array_equal(samples_of(as_file(samples), LIMITS), samples)


@pytest.mark.parametrize("form", [{"format": "WAV"}, {"format": "FLAC"}, {"format": "OGG", "subtype": "VORBIS"}])
def test_a_long_clip_is_refused_with_both_lengths(form):
    with pytest.raises(ser_mtl.UserError, match=r"^a\.wav: lasts 3\.0 seconds; .* 2 at most"):
        samples_of(as_file(tone(300, 3), **form), LIMITS)


def test_hours_in_a_small_file_are_not_decoded():
    file = as_file(np.zeros(3600 * SAMPLING_RATE, np.int16), format="FLAC")
    size = len(file.getvalue())
    with pytest.raises(ser_mtl.UserError, match="2 at most"):
        samples_of(file, LIMITS)
    assert size < LIMITS.size and file.tell() < size / 2


def test_a_clip_without_its_length_is_read_no_further_than_the_limit():
    whole = as_file(tone(300, 3)).getvalue()
    short = BytesIO(whole[:40] + (2**31 - 1).to_bytes(4, "little") + whole[44:])
    short.name = "a.wav"
    with pytest.raises(ser_mtl.UserError, match="2 at most"):
        samples_of(short, LIMITS)
