"""Unusual clips of a corpus: silent, very short, very long, or with more words than time to say them."""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
from datasets import Dataset

from ser_mtl.corpora.audio import SAMPLING_RATE
from ser_mtl.corpora.reading import MAX_SECONDS, SHORT

SILENT = 33
"""Largest 16-bit sample of a silent clip: 60 dB below full scale."""

_EXAMPLES = 3


def clip_notes(corpus: Dataset, frames: Iterable[int]) -> list[str]:
    """A line for each kind of unusual clip, with their number and the first ones; all of them are trained on.

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
        needed = np.array([_ctc_frames(labels) for labels in corpus["asr_labels"][:]])
        kinds["with a transcript longer than their frames, which CTC cannot learn"] = needed > np.asarray(list(frames))
    return [
        f"{chosen.sum()} of {len(ids)} clips are {kind}: {_names([ids[row] for row in np.flatnonzero(chosen)])}"
        for kind, chosen in kinds.items()
        if chosen.any()
    ]


def _ctc_frames(labels: list[int]) -> int:
    """Frames that CTC needs: one a character, and a blank between two of the same."""
    return len(labels) + sum(a == b for a, b in pairwise(labels))


def _names(names: list[str]) -> str:
    more = len(names) - _EXAMPLES
    return ", ".join(names[:_EXAMPLES]) + (f" and {more} more" if more > 0 else "")
