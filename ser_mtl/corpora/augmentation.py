"""Augmentation: training utterances at another speed, in a room, or in noise, drawn anew in each epoch.

Noise and reverb come from audiomentations, an extra, which is imported where it is used.
"""

import random
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import soundfile
import torch
from datasets import Dataset
from torchaudio.functional import speed

from recordings_ser_mtl import SAMPLING_RATE, as_floats
from ser_mtl.corpora.cache import cache_folder
from ser_mtl.errors import UserError
from ser_mtl.files import replacing

AUGMENTATIONS = ("speed", "reverb", "noise")
"""In the order of their application."""

SPEEDS = (0.9, 1.0, 1.1)
"""Drawn for each utterance; changes pitch too (Ko et al. 2015, "Audio augmentation for speech recognition")."""
SHARE = 0.5
"""Share of the utterances that get noise, and of those that get reverb."""
SNR = (10.0, 30.0)
"""Smallest and largest ratio of speech to white noise, in decibels."""
ROOMS = 20
REVERBERATION = (0.2, 0.8)
"""Seconds until the sound of a room has decayed by 60 dB, shortest and longest."""
DIRECT = (0.0, 10.0)
"""Smallest and largest ratio of the direct sound to that of the room, in decibels."""

Fits = Callable[[int, dict], bool]
"""Number of samples and row of an utterance -> whether the model can be trained on that many."""


def check_augmentations(names: Collection[str]) -> list[str]:
    """Check the values of `--augment`. Returns them in the order that they are applied in.

    Raises:
        UserError: an unknown one, or audiomentations is not installed.
    """
    if isinstance(names, str):
        raise UserError(f"--augment {names!r}: must be a list of names")
    if [*names] == ["none"]:
        return []
    if unknown := [name for name in names if name not in AUGMENTATIONS]:
        raise UserError(f"--augment {unknown[0]}: must be among noise, reverb, speed; or none")
    if {*names} - {"speed"} and find_spec("audiomentations") is None:
        raise UserError('--augment: needs the extra "augment"; pip install audiomentations')
    return [name for name in AUGMENTATIONS if name in names]


class Augmented(torch.utils.data.Dataset):
    """Rows of training utterances, changed as they are read.

    The changes to an utterance depend on the seed, the epoch and its row alone: not on the order, the number of
    processes and workers, or where a run was resumed.

    Args:
        rows: with `row`, and `samples` at 16 kHz.
        names: among `AUGMENTATIONS`.
        seed: of the run.
        fits: whether a row's utterance may have this number of samples; if not, its speed is left as it is.
    """

    def __init__(self, rows: Dataset, names: Collection[str], seed: int, fits: Fits):
        self.rows, self.seed, self.fits = rows, seed, fits
        self.transforms = {name: _TRANSFORMS[name]() for name in AUGMENTATIONS if name in names}
        self.epoch = torch.zeros((), dtype=torch.long).share_memory_()  # persistent workers see it change

    def begin_epoch(self, epoch: int) -> None:
        """Select the changes of this epoch."""  # not `set_epoch`: accelerate calls that with numbers of its own
        self.epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict:
        row = self.rows[index]
        samples = as_floats(row["samples"])
        with seeded(self.seed, int(self.epoch), int(row["row"])):
            for name, transform in self.transforms.items():
                changed = transform(samples, SAMPLING_RATE)
                if name == "reverb" and changed.any():  # audiomentations sets the peak, but loudness tells of emotion
                    changed = changed * np.sqrt(np.square(samples).mean() / np.square(changed).mean())
                if len(changed) == len(samples) or self.fits(len(changed), row):
                    samples = changed
        return row | {"samples": samples}


def at_another_speed(samples: np.ndarray, rate: int) -> np.ndarray:
    """(samples,) float32 -> (samples / speed,), at the same sampling rate."""
    if (factor := random.choice(SPEEDS)) == 1:
        return samples
    return speed(torch.from_numpy(samples), rate, factor)[0].numpy()


def _reverb() -> Callable[[np.ndarray, int], np.ndarray]:
    from audiomentations import ApplyImpulseResponse

    return ApplyImpulseResponse([str(file) for file in rooms()], p=SHARE)


def _noise() -> Callable[[np.ndarray, int], np.ndarray]:
    from audiomentations import AddGaussianSNR

    return AddGaussianSNR(*SNR, p=SHARE)


_TRANSFORMS = {"speed": lambda: at_another_speed, "reverb": _reverb, "noise": _noise}


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Seed the generators that audiomentations draws from, inside the block alone."""
    states = random.getstate(), np.random.get_state()
    random.seed(repr(numbers))
    np.random.seed(numbers)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def rooms() -> list[Path]:
    """Files of synthetic impulse responses, written on first use."""
    files = [cache_folder() / f"room-{number}.wav" for number in range(ROOMS)]
    for number, file in enumerate(files):
        if not file.is_file():
            with replacing(file) as partial:
                soundfile.write(partial, impulse_response(np.random.default_rng(number)), SAMPLING_RATE, "FLOAT")
    return files


def impulse_response(generator: np.random.Generator) -> np.ndarray:
    """The direct sound, then noise that decays exponentially, as in a room (Polack 1988): (samples,) float32."""
    seconds, direct = generator.uniform(*REVERBERATION), generator.uniform(*DIRECT)
    times = np.arange(1, round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = generator.normal(size=len(times)) * 10 ** (-3 * times / seconds)
    tail *= 10 ** (-direct / 20) / np.linalg.norm(tail)
    return np.concatenate([[1.0], tail]).astype(np.float32)
