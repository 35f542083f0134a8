"""Decoded files, kept on disk until the rest of their part of a corpus is decoded.

A damaged file or an interruption then does not cost a second decoding of the others.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ser_mtl.corpora.cache import DECODERS, cache_folder


def kept_file(path: str | Path) -> Path:
    """The file that keeps the samples of an audio file, named by its path, size and time and the decoders' versions."""
    stat = Path(path).stat()
    digest = hashlib.sha256(repr((str(path), stat.st_size, stat.st_mtime_ns, DECODERS)).encode()).hexdigest()[:16]
    return cache_folder() / f"kept-{digest}.npy"


def kept_samples(path: str | Path) -> np.ndarray | None:
    """The kept samples of an audio file, (samples,) int16; None if there are none, or they are damaged."""
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
    """Remove the kept samples of these files, once their part of the corpus is decoded."""
    for path in paths:
        kept_file(path).unlink(missing_ok=True)
