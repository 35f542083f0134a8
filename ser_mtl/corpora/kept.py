"""Decoded files that wait on disk for the rest of their corpus.

So neither a damaged file nor an interruption costs a second decoding of the others.
"""

import hashlib
from pathlib import Path

import numpy as np
from datasets import Dataset

from ser_mtl.corpora.cache import DECODERS, cache_folder
from ser_mtl.files import replacing


def kept_file(path: str | Path) -> Path:
    """Where the samples of a file are kept: under a name of its path, size and time, and what decodes it."""
    stat = Path(path).stat()
    digest = hashlib.sha256(repr((str(path), stat.st_size, stat.st_mtime_ns, DECODERS)).encode()).hexdigest()[:16]
    return cache_folder() / f"kept-{digest}.npy"


def kept_samples(path: str | Path) -> np.ndarray | None:
    """What is kept of an audio file, (samples,) int16; None for nothing, and for a damaged file."""
    try:
        return np.load(kept_file(path))
    except (OSError, ValueError, EOFError):
        return None


def keep(path: str | Path, samples: np.ndarray) -> None:
    """Keep the samples of an audio file, (samples,) int16."""
    with replacing(kept_file(path)) as partial:
        np.save(partial, samples)


def forget(decoded: Dataset) -> None:
    """Remove what is kept of these files: the whole corpus is decoded."""
    if any(cache_folder().glob("kept-*.npy")):
        for path in decoded["path"][:]:
            kept_file(path).unlink(missing_ok=True)
