"""Decoded files that wait on disk for the rest of their part of a corpus.

So neither a damaged file nor an interruption costs a second decoding of the others.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ser_mtl.corpora.cache import DECODERS, cache_folder


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
    file = kept_file(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="partial-", dir=file.parent) as scratch:  # another machine may be at the same file
        np.save(Path(scratch) / file.name, samples)
        (Path(scratch) / file.name).replace(file)


def kept_any() -> bool:
    """Whether anything is kept."""
    return any(cache_folder().glob("kept-*.npy"))


def forget(paths: Iterable[str | Path]) -> None:
    """Remove what is kept of these files: their part of the corpus is decoded."""
    for path in paths:
        kept_file(path).unlink(missing_ok=True)
