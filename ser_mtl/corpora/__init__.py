"""A corpus on disk -> utterances -> folds -> samples -> batches."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ser_mtl.corpora.loading import load_corpus

__all__ = ["load_corpus"]


def __getattr__(name: str):
    """Import `load_corpus` on first use: the libraries that it needs take seconds to import."""
    if name in __all__:
        from ser_mtl.corpora.loading import load_corpus

        return load_corpus
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
