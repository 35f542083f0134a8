"""Audio files to samples: mono, 16 kHz, 16 bit. A corpus is decoded once, into an Arrow file that later runs reopen."""

import hashlib
import sys
import time
from collections.abc import Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import datasets
import numpy as np
from datasets import Dataset, Features, List, Value

import recordings_ser_mtl
from recordings_ser_mtl import SAMPLING_RATE, to_mono_16k
from ser_mtl.corpora import ffmpeg, headers, level, reading
from ser_mtl.corpora.cache import DECODERS, Part, computed, files_identity, missing, parts_of, source_digest
from ser_mtl.corpora.folder import place_of
from ser_mtl.corpora.kept import forget, keep, kept_any, kept_samples
from ser_mtl.corpora.level import clipping_in_one_line
from ser_mtl.corpora.reading import TOO_LONG, read_audio, seconds_over
from ser_mtl.errors import UserError
from ser_mtl.processes import cores

_EXAMPLES = 20  # files in one message
_PART = 2**25  # bytes of files that are decoded together
_LONG = 0.05  # seconds of decoding after which a file is kept at once
_CODE = (sys.modules[__name__], recordings_ser_mtl, reading, headers, ffmpeg, level)  # the modules that decode


def decode(file: str | Path | BinaryIO, max_seconds: float | None = None) -> np.ndarray:
    """Read an audio file as mono at 16 kHz: (samples,) int16.

    Raises:
        UserError: see `read_audio`.
    """
    return to_mono_16k(*read_audio(file, max_seconds))


def with_samples(corpus: Dataset, max_seconds: float | None = None) -> Dataset:
    """Add the columns `samples` (int16), `length` (samples), `peak` (int16's largest size) and `digest` to a corpus.

    The result is cached, part by part, under names made from the path, size and modification time of every file and
    from the versions of the decoders, so a file is decoded again only after one of these has changed. A large corpus is
    decoded on all cores. If some files cannot be used, the others are decoded and kept.

    Args:
        corpus: with the columns of `ser_mtl.corpora.utterances.FEATURES`.
        max_seconds: refuse longer utterances; None for any length.

    Raises:
        UserError: names all files that are missing, cannot be decoded or are too long.
    """
    files, *programs = samples_identity(corpus)
    sizes = [size for _, size, _ in files]
    parts = parts_of(corpus.select_columns("path"), "decoded", files, programs, sizes, _PART)
    with clipping_in_one_line():
        decode_part = partial(_decode_part, max_seconds=max_seconds)
        decoded = computed(parts, missing(parts), decode_part, "Decoding audio", cores())
    _check_faults(corpus, decoded, parts, max_seconds)
    return datasets.concatenate_datasets([corpus, decoded.remove_columns("fault")], axis=1)


_DECODED = Features(
    {
        "samples": List(Value("int16")),
        "length": Value("int64"),
        "peak": Value("int32"),
        "digest": Value("string"),  # of the samples
        "fault": Value("string"),  # why there are none; None for a good file
    }
)


def _decode_part(part: Part, max_seconds: float | None) -> None:
    """Decode a part of a corpus. If files have faults or this is interrupted, the decoded ones are kept."""
    paths, kept = part.rows["path"][:], kept_any()
    rows: list[dict] = []
    try:
        for path in paths:
            rows.append(_decode_row(path, max_seconds, kept))
    finally:
        if faulty := len(rows) < len(paths) or any(row["fault"] for row in rows):
            for path, row in zip(paths, rows, strict=False):
                if row["fault"] is None:
                    keep(path, row["samples"])
    part.write(rows, _DECODED)
    if not faulty and kept_any():
        forget(paths)


def _decode_row(path: str, max_seconds: float | None, kept: bool) -> dict:
    """Decode one file, or open the samples that an earlier run has kept."""
    begun, samples = time.perf_counter(), kept_samples(path) if kept else None
    try:
        if samples is None:
            samples = decode(path, max_seconds)
            if time.perf_counter() - begun > _LONG:
                keep(path, samples)
    except UserError as error:
        return {"samples": np.zeros(0, np.int16), "length": 0, "peak": 0, "digest": "", "fault": str(error)}
    return {
        "samples": samples,
        "length": len(samples),
        "peak": int(np.abs(samples.astype(np.int32)).max()),
        "digest": hashlib.sha256(samples.tobytes()).hexdigest()[:16],
        "fault": None,
    }


def _check_faults(corpus: Dataset, decoded: Dataset, parts: Iterable[Part], max_seconds: float | None) -> None:
    """Name all files that cannot be used, each with its row of `metadata.csv` if there is one.

    Parts with damaged files are decoded again by the next run.

    Raises:
        UserError: there are some.
    """
    found = iter(decoded["fault"][:])
    for part in parts:
        if any(list(islice(found, len(part.rows)))):
            part.file.unlink()
    faults = []
    columns = corpus["id"][:], corpus["path"][:], decoded["fault"][:], decoded["length"][:]
    for name, path, fault, length in zip(*columns, strict=True):
        seconds = length / SAMPLING_RATE
        if fault is None and max_seconds is not None and seconds > max_seconds:  # decoded for a run with a larger limit
            fault = TOO_LONG.format(name=path, seconds=seconds_over(seconds, max_seconds), limit=max_seconds)
        if fault is not None:
            faults.append((name, path, fault))
    if faults:
        many = f"{len(faults)} audio files cannot be used: " if len(faults) > 1 else ""
        named = ". ".join(place_of(name, path) + fault for name, path, fault in faults[:_EXAMPLES])
        more = f". {len(faults) - _EXAMPLES} more" if len(faults) > _EXAMPLES else ""
        raise UserError(f"{many}{named}{more}")


def samples_identity(corpus: Dataset) -> tuple:
    """Everything that the samples of a corpus depend on: the files, the decoding libraries, and the code here.

    Raises:
        UserError: a file is missing.
    """
    programs = (*DECODERS, ffmpeg.version()) if any(map(ffmpeg.reads, corpus["path"][:])) else DECODERS
    return files_identity(corpus), programs, source_digest(*_CODE)
