"""From a stream of samples to segments of speech: cut in pauses, of bounded length, without the silence between them.

This file travels to the Hub with `recordings_ser_mtl.py`; the two need nothing else of this project. Speech is detected
by silero-vad where that is installed (`pip install silero-vad`), else by energy.
"""

import importlib.util
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np

try:  # as in modeling_ser_mtl.py
    from .recordings_ser_mtl import SAMPLING_RATE
except ImportError:
    try:
        from recordings_ser_mtl import SAMPLING_RATE
    except ImportError:
        raise

FRAME = 512
"""Samples of a frame, which is speech or not as a whole: 32 ms, as in silero-vad."""
_PIECE = 32 * FRAME  # samples that a detector takes at once: about a second

WINDOW = 30 * SAMPLING_RATE
"""The most samples of a segment: about the longest utterance of the corpora that models learn from. A recording up to
this length is one segment, unless it holds a silence of `SILENCE`."""
SILENCE = 3 * SAMPLING_RATE // 2
"""Samples without speech that always end a segment."""
PAUSE = SAMPLING_RATE // 2
"""Samples without speech that end a segment of a long recording, once it is `ENOUGH` long."""
ENOUGH = 2 * SAMPLING_RATE
MARGIN = SAMPLING_RATE // 2
"""The most samples without speech at either end of a segment."""
_LEAST = 3  # frames of speech in a segment: fewer are a click
_AHEAD = (WINDOW + SILENCE) // FRAME + 1  # frames after the start of a segment that decide where it ends
_HELD = 60  # pieces that are cut together

Piece = tuple[np.ndarray, np.ndarray]
"""Samples, (n,) int16, and which of their frames are speech, (n / FRAME, rounded up) bool."""
Detector = Callable[[Iterable[np.ndarray]], Iterator[Piece]]
"""Finds speech: blocks of samples, of any lengths -> pieces, each but the last a multiple of `FRAME` long."""


class Segment(NamedTuple):
    """Speech, (samples,) int16, and the position of its first sample in the recording."""

    start: int
    samples: np.ndarray


def segments(
    blocks: Iterable[np.ndarray], detector: Detector | None = None, longest: int | None = None
) -> Iterator[Segment]:
    """Segments of a recording, as soon as their ends are certain. Memory does not grow with the recording.

    In a short recording speech is detected by energy alone, so that it has the same segments everywhere.

    Args:
        blocks: samples at 16 kHz, (n,) int16 each, of any lengths.
        detector: of recordings longer than `WINDOW`; by default silero-vad if it is installed, else energy.
        longest: the most samples of a segment, if that is less than `WINDOW`.
    """
    stream = iter(blocks)
    beginning, window = [np.zeros(0, np.int16)], min(WINDOW, longest or WINDOW)
    while sum(map(len, beginning)) <= window:
        if (block := next(stream, None)) is None:
            return (yield from _short_recording(np.concatenate(beginning), window))
        beginning.append(block)
    detector = detector or (by_silero if has_silero() else by_energy)
    yield from _cut(detector(chain(beginning, stream)), PAUSE, window)


def _short_recording(samples: np.ndarray, window: int) -> Iterator[Segment]:
    pieces = list(by_energy([samples]))
    speech = np.flatnonzero(np.concatenate([np.zeros(0, bool), *(flags for _, flags in pieces)]))
    frames = -(-len(samples) // FRAME)
    if len(speech) < min(_LEAST, max(frames, 1)):
        return
    gaps = np.diff([-1, *speech, frames]) - 1
    if gaps.max() * FRAME < SILENCE:
        yield Segment(0, samples)
    else:
        yield from _cut(iter(pieces), SILENCE, window)


# ------------------------------------------------------------------------------------------------------------- cutting


def _cut(pieces: Iterator[Piece], pause: int, window: int) -> Iterator[Segment]:
    """Cut pieces, in pauses of `pause` samples, into segments of at most `window`. A few windows are in memory."""
    samples, speech, origin, free, more = np.zeros(0, np.int16), np.zeros(0, bool), 0, 0, True
    while more:
        new = list(islice(pieces, _HELD))
        more = len(new) == _HELD
        samples = np.concatenate([samples, *(values for values, _ in new)])
        speech = np.concatenate([speech, *(flags for _, flags in new)])
        done = 0
        while (first := _first(speech, done)) < len(speech) - (_AHEAD if more else 0):
            start, end, done = _next(samples, speech, done, free, pause, window)
            if speech[start:end].sum() >= _LEAST:
                yield Segment(origin + start * FRAME, samples[start * FRAME : end * FRAME].copy())
            free = end
        done = max(done, first - MARGIN // FRAME)  # silence is dropped, but for the margin of what follows
        origin, free = origin + done * FRAME, max(0, free - done)
        samples, speech = samples[done * FRAME :], speech[done:]


def _first(speech: np.ndarray, done: int) -> int:
    """The first frame of speech from `done` on; the end if there is none."""
    return done + int(speech[done:].argmax()) if speech[done:].any() else len(speech)


def _next(
    samples: np.ndarray, speech: np.ndarray, done: int, free: int, pause: int, window: int
) -> tuple[int, int, int]:
    """Frames of the first segment after `done`: its start, from `free` on, its end, and where to look for the next."""
    margin, most = MARGIN // FRAME, window // FRAME
    edges = np.flatnonzero(np.diff(speech[done:].astype(np.int8), prepend=0, append=0)) + done
    starts, ends = edges[::2], edges[1::2]
    start = max(free, int(starts[0]) - margin)
    last = 0  # the last run of speech in the segment
    for run in range(1, len(starts)):
        gap, so_far = (starts[run] - ends[run - 1]) * FRAME, (ends[run - 1] - starts[0]) * FRAME
        too_long = ends[run] + margin - start > most
        if gap >= SILENCE or (gap >= pause and so_far >= ENOUGH) or (too_long and so_far >= window // 2):
            break
        last = run
        if too_long:
            break
    end = int(ends[last])
    splinter = min(SAMPLING_RATE // FRAME, most // 4)
    if end - start > most:
        cut = _quietest(samples, start + most // 2, min(start + most, end - splinter))
        return start, cut, cut
    room = (int(starts[last + 1]) - end) // 2 if last + 1 < len(starts) else len(speech) - end
    return start, min(end + min(margin, room), start + most), end


def _quietest(samples: np.ndarray, first: int, last: int) -> int:
    """The frame in the middle of the quietest fifth of a second between two frames."""
    width = SAMPLING_RATE // 5 // FRAME
    part = samples[first * FRAME : last * FRAME].astype(np.float32)
    loudness = np.abs(part).reshape(-1, FRAME).sum(axis=1)
    return first + int(np.convolve(loudness, np.ones(width), mode="valid").argmin()) + width // 2


# ----------------------------------------------------------------------------------------------------- speech by energy

_FAINT = -70.0  # dB of full scale: nobody speaks below it
_QUIET = -50.0  # below it, a sound without any dynamics is noise
_STEADY = 10.0  # dB between quiet and loud: speech has more
_RANGE = 40.0  # dB from the loudest down to the faintest speech
_AROUND = 30  # pieces before and after, which say what is loud and what is quiet
_DECAY = 1 / 60  # dB that the loudest of the past loses with each piece


class _Levels(NamedTuple):
    samples: np.ndarray
    levels: np.ndarray  # dB of each frame
    quiet: float  # of the frames that are not faint
    loud: float


def by_energy(blocks: Iterable[np.ndarray]) -> Iterator[Piece]:
    """A `Detector`: speech is clearly louder than the quiet moments in half a minute before and after it."""
    past: deque[_Levels] = deque(maxlen=_AROUND)
    ahead: deque[_Levels] = deque()
    peak = _FAINT

    def next_piece() -> Piece:
        nonlocal peak
        piece = ahead.popleft()
        peak = max(peak - _DECAY, piece.loud)
        around = [*past, piece, *ahead]
        past.append(piece._replace(samples=piece.samples[:0]))
        level = _threshold(min(each.quiet for each in around), max(peak, *(each.loud for each in around)))
        return piece.samples, piece.levels > level

    for samples in _pieces(blocks):
        ahead.append(_levels(samples))
        if len(ahead) > _AROUND:
            yield next_piece()
    while ahead:
        yield next_piece()


def _threshold(quiet: float, loud: float) -> float:
    """The level in dB above which a frame is speech."""
    if loud - quiet < _STEADY:
        return max(_QUIET, loud - _RANGE)
    return max(_FAINT, loud - _RANGE, quiet + max(6.0, 0.3 * (loud - quiet)))


def _levels(samples: np.ndarray) -> _Levels:
    starts = np.arange(0, len(samples), FRAME)
    power = np.add.reduceat((samples / np.float64(32768)) ** 2, starts) / np.diff([*starts, len(samples)])
    levels = 10 * np.log10(power + 1e-12)
    audible = levels[levels > _FAINT]
    quiet = float(np.percentile(audible, 10)) if len(audible) else 0.0
    return _Levels(samples, levels, quiet, float(np.sort(levels)[-min(3, len(levels))]))


def _pieces(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """The same samples in pieces of `_PIECE`; the last one is what is left."""
    rest = np.zeros(0, np.int16)
    for block in blocks:
        rest = np.concatenate([rest, block])
        whole = len(rest) // _PIECE * _PIECE
        yield from rest[:whole].reshape(-1, _PIECE)
        rest = rest[whole:]
    if len(rest):
        yield rest


# ----------------------------------------------------------------------------------------------- speech by silero-vad

_BEGINS, _ENDS = 0.5, 0.35  # probabilities at which silero-vad's own functions let speech begin and end
_IDLE: list = []  # loaded models that no recording uses now: each has a state, so two recordings cannot share one


def has_silero() -> bool:
    """Whether silero-vad is installed."""
    return importlib.util.find_spec("silero_vad") is not None


def by_silero(blocks: Iterable[np.ndarray]) -> Iterator[Piece]:
    """A `Detector`: speech is what silero-vad takes for it."""
    import torch

    model = _IDLE.pop() if _IDLE else _load_silero()
    model.reset_states()
    speaking = False
    try:
        for samples in _pieces(blocks):
            padded = np.pad(samples, (0, -len(samples) % FRAME)).astype(np.float32) / 32768
            with torch.inference_mode():
                frames = torch.from_numpy(padded).view(-1, FRAME)
                probabilities = [float(model(frame, SAMPLING_RATE)) for frame in frames]
            flags = []
            for p in probabilities:
                speaking = p >= (_ENDS if speaking else _BEGINS)
                flags.append(speaking)
            yield samples, np.array(flags)
    finally:
        _IDLE.append(model)


def _load_silero() -> Any:
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad

        return load_silero_vad()
    except ImportError as error:  # without `except`, transformers 4 would demand it
        raise ValueError("silero-vad cannot be imported; install it again, or remove it") from error
    finally:
        torch.set_num_threads(threads)  # importing it sets one for the whole process
