"""Unusual clips of a corpus: silent, very short, very long, or with more words than time to say them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
from datasets import Dataset

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.reading import MAX_SECONDS, SHORT
from ser_mtl.errors import some_of

SILENT = 33
"""Largest 16-bit sample of a silent clip: 60 dB below full scale."""


def clip_notes(corpus: Dataset, frames: Iterable[int]) -> list[str]:
    """A line for each kind of unusual clip, with the number and the first of them. All are trained on.

    Args:
        corpus: with `peak`, `length` and, if it is trained, `asr_labels`.
        frames: frames of the encoder, for each utterance.
    """
    ids = corpus["id"][:]
    seconds = np.asarray(corpus["length"][:]) / SAMPLING_RATE
    kinds = {
        "silent": np.asarray(corpus["peak"][:]) <= SILENT,
        f"shorter than {SHORT:g} seconds": seconds < SHORT,
        f"longer than {MAX_SECONDS:g} seconds": seconds > MAX_SECONDS,
    }
    if "asr_labels" in corpus.column_names:
        needed = np.array([ctc_frames(labels) for labels in corpus["asr_labels"][:]])
        kinds["with a transcript longer than their frames, which CTC cannot learn"] = needed > np.asarray(list(frames))
    return [
        f"{chosen.sum()} of {len(ids)} clips are {kind}: {some_of([ids[row] for row in np.flatnonzero(chosen)])}"
        for kind, chosen in kinds.items()
        if chosen.any()
    ]


def ctc_frames(labels: Sequence[int]) -> int:
    """Frames that CTC needs at least: one per character, and a blank between equal neighbours."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))
