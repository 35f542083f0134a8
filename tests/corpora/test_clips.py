"""Pins the notes on unusual clips: each kind is counted and named once, and usual clips are not."""

import pytest
from datasets import Dataset

from ser_mtl.corpora.clips import clip_notes

USUAL = {"peak": 9000, "length": 32000, "asr_labels": [1, 2, 3]}


@pytest.mark.parametrize(
    ("changes", "frames", "note"),
    [
        ({"peak": 0}, 99, "1 of 3 clips are silent: u1"),
        ({"length": 80}, 99, "1 of 3 clips are shorter than 0.1 seconds: u1"),
        ({"length": 290 * 16000}, 99, "1 of 3 clips are longer than 60 seconds: u1"),
        ({}, 2, "1 of 3 clips are with a transcript longer than their frames, which CTC cannot learn: u1"),
        ({"asr_labels": [1, 1, 2]}, 3, "1 of 3 clips are with a transcript longer than their frames, "),
        ({"asr_labels": [1, 1, 2]}, 4, None),
        ({"asr_labels": []}, 0, None),
    ],
)
def test_an_unusual_clip_is_named(changes, frames, note):
    rows = [USUAL | {"id": "u0"}, USUAL | changes | {"id": "u1"}, USUAL | {"id": "u2"}]
    notes = clip_notes(Dataset.from_list(rows), [99, frames, 99])
    assert len(notes) == (note is not None) and all(one.startswith(note) for one in notes)


def test_many_clips_are_one_line_and_only_the_first_are_named():
    rows = [{"id": f"u{n}", "peak": 0, "length": 32000} for n in range(50)]
    assert clip_notes(Dataset.from_list(rows), [99] * 50) == ["50 of 50 clips are silent: u0, u1, u2 and 47 more"]
