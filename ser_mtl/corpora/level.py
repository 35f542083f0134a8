"""The level of float samples, whose full scale is 1: `recordings_ser_mtl` with this package's errors and warnings."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np

import recordings_ser_mtl
from ser_mtl.errors import Notice, user_errors


class Clipped(Notice):
    """A few samples of a recording are beyond full scale. They are clipped."""


def at_full_scale(samples: np.ndarray, name: str, overshoot: float = 1.0) -> np.ndarray:
    """As in `recordings_ser_mtl`.

    Raises:
        UserError: more than a few samples are beyond `overshoot`.
    """
    with user_errors():
        return recordings_ser_mtl.at_full_scale(samples, name, overshoot, Clipped)


def clipped(blocks: Iterable[np.ndarray], name: str, overshoot: float, promised: float) -> Iterator[np.ndarray]:
    """As in `recordings_ser_mtl`.

    Raises:
        UserError: more than a few samples are beyond `overshoot`, a block holds NaN or infinite samples, or there are
            no samples.
    """
    with user_errors():
        yield from recordings_ser_mtl.clipped(
            recordings_ser_mtl.finite(blocks, name), name, overshoot, Clipped, promised
        )


@contextmanager
def clipping_in_one_line() -> Iterator[None]:
    """Replace the `Clipped` warnings of many recordings in the block by one line; other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Clipped)
        yield
    clipped = sorted(str(one.message) for one in caught if issubclass(one.category, Clipped))
    for one in caught:
        if not issubclass(one.category, Clipped):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if clipped:
        many = f"{len(clipped)} recordings have clipped samples, such as " if len(clipped) > 1 else ""
        warnings.warn(f"{many}{clipped[0]}", Clipped, stacklevel=3)
