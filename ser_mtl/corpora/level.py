"""The level of samples as floats, whose full scale is 1: one decision for corpora, recordings and arrays."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from ser_mtl.errors import Notice, UserError

_ROUNDING = 1e-3  # of scales such as 1 / 32767, and of filters
_FEW = 1e-3  # share of the samples
OVERSHOOT = 1.5
"""What lossy formats and loud mixes reach in a file, whose scale is known. The scale of an array is not."""


class Clipped(Notice):
    """A few samples of a recording are beyond full scale. They are clipped."""


def at_full_scale(samples: np.ndarray, name: str, overshoot: float = 1.0) -> np.ndarray:
    """Clip samples beyond -1..1, with a warning that counts them (`Clipped`), unless they show another scale.

    Before anything is computed: a resampler would spread one wild sample over its neighbours.

    Args:
        samples: finite floats, of any shape.
        name: what the message begins with.
        overshoot: what any number of samples may reach; a few, one in a thousand, may reach anything.

    Returns:
        The samples, clipped if there are any beyond.

    Raises:
        UserError: names the peak, if more samples are beyond `overshoot`: their scale is another one, such as that of
            16-bit integers.
    """
    sizes = np.abs(samples)
    over = int((sizes > 1 + _ROUNDING).sum())
    if over == 0:
        return samples
    if (sizes > overshoot + _ROUNDING).mean() > _FEW:
        raise UserError(
            f"{name}: samples up to {sizes.max():g}; floats must be within -1 and 1; divide or clip them (the full "
            "scale of 16-bit integers is 32768)"
        )
    line = f"{name}: {over} of {samples.size} samples are beyond -1..1 (peak {sizes.max():.2f}) and were clipped"
    warnings.warn(line, Clipped, stacklevel=3)
    return samples.clip(-1, 1)


@contextmanager
def clipping_in_one_line() -> Iterator[None]:
    """Gather the `Clipped` of many recordings inside the block into one line; other warnings pass."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", Clipped)
        yield
    clipped = [str(one.message) for one in caught if issubclass(one.category, Clipped)]
    for one in caught:
        if not issubclass(one.category, Clipped):
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    if clipped:
        many = f"{len(clipped)} recordings have clipped samples, such as " if len(clipped) > 1 else ""
        warnings.warn(f"{many}{clipped[0]}", Clipped, stacklevel=3)
