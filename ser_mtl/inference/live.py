"""Live answers: a new line every half second, from a microphone or from raw samples on standard input."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from queue import Queue
from typing import IO, Any

import numpy as np

from recordings_ser_mtl import RATES, SAMPLING_RATE
from ser_mtl.errors import UserError
from ser_mtl.inference.formats import text_of
from ser_mtl.inference.recognizer import Recognizer
from ser_mtl.safe_text import printable

STEP = 0.5
"""Seconds from one line to the next."""
REMEMBERED = 6.0
"""The most seconds that an answer covers: it says how somebody speaks now."""
_CURRENT = 1.0  # seconds of silence after which the line says "no speech"

Blocks = tuple[Iterator[np.ndarray], int]
"""Samples, (n,) int16 each, and their rate in hertz."""


@contextmanager
def standard_input(rate: int) -> Iterator[Blocks]:
    """Mono samples of 16 bits, little-endian, as `arecord -t raw -f S16_LE` writes them.

    Raises:
        UserError: a rate outside `RATES`.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"--pcm {rate}: must be a rate from {RATES[0]} to {RATES[1]} hertz")
    yield _pcm(sys.stdin.buffer, rate), rate


def _pcm(stream: IO[bytes], rate: int) -> Iterator[np.ndarray]:
    while data := stream.read(2 * round(STEP * rate)):
        yield np.frombuffer(data[: len(data) // 2 * 2], "<i2")


@contextmanager
def microphone() -> Iterator[Blocks]:
    """The default microphone.

    Raises:
        UserError: sounddevice is not installed, or there is no microphone.
    """
    try:
        import sounddevice
    except (ImportError, OSError) as error:  # OSError: without its library
        raise UserError(f"--microphone: needs sounddevice and PortAudio; pip install sounddevice ({error})") from error
    queue: Queue = Queue()

    def take(data: Any, *_: object) -> None:
        queue.put(np.frombuffer(bytes(data), np.int16))

    flags = {"samplerate": SAMPLING_RATE, "channels": 1, "dtype": "int16", "blocksize": round(STEP * SAMPLING_RATE)}
    try:
        with sounddevice.RawInputStream(callback=take, **flags):
            yield iter(queue.get, None), SAMPLING_RATE
    except sounddevice.PortAudioError as error:
        raise UserError(f"--microphone: cannot be listened to ({error})") from error


def show(recognizer: Recognizer, blocks: Iterable[np.ndarray], rate: int, **options) -> None:
    """Print a line for each block; on a terminal, in place of the one before.

    Args:
        recognizer: the model.
        blocks: samples, (n,) int16, of `STEP` each.
        rate: their sampling rate in hertz.
        **options: as for `Recognizer.stream`.
    """
    in_place = sys.stdout.isatty()
    for line in lines(recognizer, blocks, rate, **options):
        print(f"\r{line}\x1b[K" if in_place else line, end="" if in_place else "\n", flush=True)
    if in_place:
        print()


def lines(recognizer: Recognizer, blocks: Iterable[np.ndarray], rate: int, **options) -> Iterator[str]:
    """A line for each block: the time, the answer, and its delay after the sound.

    The delay is the time of the computation, and any lag behind the sound that has built up since the first line.
    """
    remembered, seconds, began, shown = np.zeros(0, np.int16), 0.0, None, ""
    for block in blocks:
        arrived = time.monotonic()
        seconds += len(block) / rate
        began = arrived - seconds if began is None else began
        remembered = np.concatenate([remembered, block])[-round(REMEMBERED * rate) :]
        if f"{seconds:.1f}" == shown:  # the end of a stream, too short for a line of its own
            continue
        shown = f"{seconds:.1f}"
        text = text_of(now(recognizer, remembered, rate, **options)) if len(remembered) else ""
        delay = time.monotonic() - min(arrived, began + seconds)
        yield printable(f"{shown} s: {text} (delay {delay:.2f} s)")


def now(recognizer: Recognizer, samples: np.ndarray, rate: int, **options) -> dict:
    """The last segment of the samples, unless it ended a second ago or more; else an answer without tasks."""
    answer: Any = recognizer((samples, rate), **options)
    last = answer["segments"][-1] if answer["segments"] else {"end": float("-inf")}
    return last if answer["duration"] - last["end"] < _CURRENT else {}
