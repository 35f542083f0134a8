"""Audio files to samples: mono, 16 kHz, 16 bit. A corpus is decoded once, into an Arrow file that later runs reopen."""

import hashlib
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
import soundfile
import torch
from datasets import Dataset, Features, List, Value
from scipy.signal import resample_poly
from torchaudio.functional import resample

from ser_mtl.corpora.folder import place_of
from ser_mtl.errors import UserError
from ser_mtl.files import replacing

SAMPLING_RATE = 16_000

RATES = (1_000, 768_000)
"""Hertz: the sampling rates that are read. Anything else is a damaged header, or no speech."""

MAX_SECONDS = 60.0
"""Longest utterance of a corpus by default. Attention needs memory with the square of its length."""

_BLOCK = 2**20  # numbers read at once
_EXAMPLES = 10  # files in one message


class _Sequential(soundfile.SoundFile):
    """A file read from its start to its end. Seeking fails if its header is wrong about the length or does not say."""

    def seekable(self) -> bool:
        return False


def read_audio(file: str | Path | BinaryIO, max_seconds: float | None = None) -> tuple[np.ndarray, int]:
    """Read an audio file at its own sampling rate. Memory is bounded by `max_seconds`, whatever the header says.

    Args:
        file: a path or a binary file object.
        max_seconds: refuse longer audio; None for any length.

    Returns:
        Samples from -1 to 1, (samples, channels) float32, and the sampling rate in hertz.

    Raises:
        UserError: the file is missing, unreadable, empty, too long or cut off, has a sampling rate outside `RATES`, or
            holds samples that are NaN or infinite.
    """
    name = getattr(file, "name", "the audio") if hasattr(file, "read") else file
    try:
        with _Sequential(file) as sound:
            rate, promised, exact = sound.samplerate, sound.frames, sound.format not in _ESTIMATED
            check_rate(rate, f"{name}: ")
            most = None if max_seconds is None else int(max_seconds * rate)
            samples = np.concatenate([np.zeros((0, sound.channels), np.float32), *_blocks(sound, most)])
    except (soundfile.LibsndfileError, OSError, TypeError) as error:  # TypeError: headerless audio (.raw)
        raise UserError(f"{name}: cannot be read as audio ({error}); replace or remove it") from error
    if len(samples) == 0:
        raise UserError(f"{name}: holds no samples; replace or remove it")
    if most is not None and len(samples) > most:
        lasts = f"{promised / rate:.1f}" if most < promised < _UNKNOWN else f"more than {max_seconds:g}"
        raise UserError(f"{name}: lasts {lasts} seconds, longer than --max_seconds {max_seconds:g}; cut it")
    if exact and len(samples) < promised < _UNKNOWN:
        held, said = len(samples) / rate, promised / rate
        raise UserError(f"{name}: is cut off: {held:.1f} of the {said:.1f} seconds in its header; replace or remove it")
    if not np.isfinite(samples).all():
        raise UserError(f"{name}: holds NaN or infinite samples; export it again")
    return samples, rate


_ESTIMATED = {"MP3", "MPEG"}  # formats whose headers need not hold the length
_UNKNOWN = 2**62  # libsndfile's length of a FLAC that was written to a pipe is above it


def _blocks(sound: soundfile.SoundFile, most: int | None) -> Iterator[np.ndarray]:
    """The samples of a file, block by block; at most one block more than `most`."""
    size, held = max(1, _BLOCK // sound.channels), 0
    sound.seek(0)  # an MP3 starts otherwise with a few other samples than `soundfile.read` gives
    while most is None or held <= most:
        block = sound.read(size, dtype="float32", always_2d=True)
        if len(block) == 0:
            return
        held += len(block)
        yield block


def check_rate(rate: int, name: str = "") -> None:
    """Check that a sampling rate in hertz is one of audio.

    Raises:
        UserError: it is outside `RATES`; the message begins with `name`.
    """
    if not RATES[0] <= rate <= RATES[1]:
        raise UserError(f"{name}sampling rate {rate}: must be from {RATES[0]} to {RATES[1]} hertz; export it again")


def to_mono_16k(samples: np.ndarray, rate: int) -> np.ndarray:
    """Average the channels, resample to 16 kHz and quantise to 16 bits.

    Args:
        samples: from -1 to 1, (samples, channels) float32; larger values are clipped.
        rate: their sampling rate in hertz.

    Returns:
        (samples at 16 kHz,) int16.

    Raises:
        UserError: a rate outside `RATES`.
    """
    check_rate(rate)
    mono = samples.mean(axis=1)
    if rate != SAMPLING_RATE:
        mono = _at_16k(mono, rate)
    return np.rint(mono * 32768).clip(-32768, 32767).astype(np.int16)


def _at_16k(mono: np.ndarray, rate: int) -> np.ndarray:
    """Resample, in memory and time that do not grow with the terms of the ratio of the rates.

    The ratio is exact up to 100 kHz and for the usual rates above; else it is off by one part in 100,000 at most.
    """
    ratio = Fraction(SAMPLING_RATE, rate).limit_denominator(100_000)
    up, down = ratio.numerator, ratio.denominator
    if max(up, down) <= _LARGEST_TERM:
        return resample(torch.from_numpy(mono), down, up).numpy()
    return resample_poly(mono, up, down)


_LARGEST_TERM = 1000
"""torchaudio's filters take memory with the product of both terms: 11.025 kHz is 441 to 640, 44,101 Hz has none."""


def decode(file: str | Path | BinaryIO, max_seconds: float | None = None) -> np.ndarray:
    """Read an audio file as mono at 16 kHz: (samples,) int16.

    Raises:
        UserError: see `read_audio`.
    """
    return to_mono_16k(*read_audio(file, max_seconds))


def with_samples(corpus: Dataset, max_seconds: float | None = None) -> Dataset:
    """Add the columns `samples` (int16), `length` (samples), `peak` (int16's largest size) and `digest` to a corpus.

    The result is cached under a name made from the path, size and modification time of every file, so a corpus is
    decoded again only after a file has changed. If some files cannot be used, the others are decoded and kept.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        max_seconds: refuse longer utterances; None for any length.

    Raises:
        UserError: names all files that are missing, cannot be decoded or are too long.
    """
    identity = files_identity(corpus)
    file = cache_file("decoded", identity)
    decoded = corpus.select_columns("path").map(
        partial(_decode_row, max_seconds=max_seconds),
        desc="Decoding audio",
        features=_DECODED,
        cache_file_name=str(file),
        new_fingerprint=_digest("decoded", identity),
        writer_batch_size=200,
    )
    faults = _faults(corpus, decoded, max_seconds)
    if any(decoded["fault"]):
        _keep(decoded)
        file.unlink()
    if faults:
        more = f" And {len(faults) - _EXAMPLES} more." if len(faults) > _EXAMPLES else ""
        many = f"{len(faults)} audio files cannot be used. " if len(faults) > 1 else ""
        raise UserError(f"{many}{'. '.join(faults[:_EXAMPLES])}{'.' if more else ''}{more}")
    _forget(decoded)
    return datasets.concatenate_datasets([corpus, decoded.remove_columns(["path", "fault"])], axis=1)


_DECODED = Features(
    {
        "path": Value("string"),
        "samples": List(Value("int16")),
        "length": Value("int64"),
        "peak": Value("int32"),
        "digest": Value("string"),  # of the samples
        "fault": Value("string"),  # why there are none; None for a good file
    }
)


def _decode_row(row: dict, max_seconds: float | None) -> dict:
    """Decode one file, or open what an earlier run has kept of it."""
    kept = _kept_file(row["path"])
    try:
        samples = np.load(kept) if kept.is_file() else decode(row["path"], max_seconds)
    except UserError as error:
        return {"samples": [], "length": 0, "peak": 0, "digest": "", "fault": str(error)}
    return {
        "samples": samples,
        "length": len(samples),
        "peak": int(np.abs(samples.astype(np.int32)).max()),
        "digest": hashlib.sha256(samples.tobytes()).hexdigest()[:16],
        "fault": None,
    }


def _faults(corpus: Dataset, decoded: Dataset, max_seconds: float | None) -> list[str]:
    """What is wrong with each file that cannot be used, with the row of `metadata.csv`, if there is one."""
    columns = corpus["id"], corpus["path"], decoded["fault"], decoded["length"]
    faults = []
    for name, path, fault, length in zip(*columns, strict=True):
        seconds = length / SAMPLING_RATE
        if fault is None and max_seconds is not None and seconds > max_seconds:  # of a run with a larger limit
            fault = f"{path}: lasts {seconds:.1f} seconds, longer than --max_seconds {max_seconds:g}; cut it"
        if fault is not None:
            faults.append(place_of(name, path) + fault)
    return faults


def _keep(decoded: Dataset) -> None:
    """Keep the samples of the good files, one file each, until a run has decoded all of its files."""
    for row in decoded.with_format("numpy", columns=["samples"], output_all_columns=True):
        if row["fault"] is None:
            with replacing(_kept_file(row["path"])) as partial_file:
                np.save(partial_file, row["samples"])


def _forget(decoded: Dataset) -> None:
    """Remove what earlier runs kept of these files."""
    if any(_cache_folder().glob("kept-*.npy")):
        for path in decoded["path"]:
            _kept_file(path).unlink(missing_ok=True)


def _kept_file(path: str) -> Path:
    return cache_file("kept", _identity(Path(path)), ".npy")


def files_identity(corpus: Dataset) -> list[tuple[str, int, int]]:
    """Path, size in bytes and modification time of every audio file: the key of everything computed from the audio.

    Raises:
        UserError: a file is missing.
    """
    files = [Path(path) for path in corpus["path"]]
    if missing := [path for path in files if not path.is_file()]:
        raise UserError(f"{missing[0]}: no such audio file ({len(missing)} missing in all)")
    return [_identity(path) for path in files]


def _identity(path: Path) -> tuple[str, int, int]:
    stat = path.stat()
    return str(path), stat.st_size, stat.st_mtime_ns


def cache_file(kind: str, identity: object, suffix: str = ".arrow") -> Path:
    """The file that caches something computed from `identity`, which may be anything with a stable `repr`."""
    return _cache_folder() / f"{kind}-{_digest(kind, identity)}{suffix}"


def _cache_folder() -> Path:
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "ser_mtl"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _digest(kind: str, identity: object) -> str:
    return hashlib.sha256(repr((kind, identity)).encode()).hexdigest()[:16]
