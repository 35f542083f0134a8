"""A shard: answers to its recordings as rows of a Parquet file."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from answers_ser_mtl import transcript_source
from ser_mtl.files import refuse_special, replacing
from ser_mtl.inference.recognizer import Recognizer

_ROW_GROUP = 10_000
"""Rows and segments in memory."""
_OF_ALL = (
    pa.field("file", pa.string(), nullable=False),
    pa.field("duration", pa.float64()),
    pa.field("error", pa.string()),
)


def path_of(output_dir: Path, number: int) -> Path:
    """The file of a shard."""
    return output_dir / f"shard-{number:06}.parquet"


def is_whole(path: Path, rows: int) -> bool:
    """Whether a shard exists, with all its rows and the columns that every shard has.

    Raises:
        UserError: it is a pipe or a device.
    """
    refuse_special(path)
    try:
        known = pq.read_metadata(path)
    except (OSError, pa.ArrowException):
        return False
    schema = known.schema.to_arrow_schema()
    return known.num_rows == rows and all(field in schema for field in _OF_ALL)


def schema_of(recognizer: Recognizer) -> pa.Schema:
    """The columns, the same in each shard: `file`, `duration`, the tasks, `transcript`, `segments` and `error`.

    A task with classes is a struct of `label`, `probability` and `probabilities`, a struct with a field for each
    class; one that gives a value is a struct of `value`. A segment has `start`, `end`, the tasks and its transcript.
    """
    tasks = [pa.field(task, _task(labels)) for task, labels in recognizer.labels.items()]
    if recognizer.transcript and transcript_source(recognizer.model) is not None:
        tasks.append(pa.field("transcript", pa.string()))
    times = [pa.field(name, pa.float64()) for name in ("start", "end")]
    segments = pa.field("segments", pa.list_(pa.struct([*times, *tasks])))
    file, duration, error = _OF_ALL
    return pa.schema([file, duration, *tasks, segments, error])


def _task(labels: list[str]) -> pa.DataType:
    if not labels:
        return pa.struct([("value", pa.float64())])
    probabilities = pa.struct([(label, pa.float64()) for label in labels])
    return pa.struct([("label", pa.string()), ("probability", pa.float64()), ("probabilities", probabilities)])


def write_shard(path: Path, data_dir: Path, files: list[str], recognizer: Recognizer) -> Iterator[int]:
    """Answer recordings, and write the shard when all are answered. Those that cannot be answered have an `error`.

    Yields:
        The number of answered recordings, after each of them.

    Raises:
        OSError: the shard cannot be written; there is then no file.
    """
    schema = schema_of(recognizer)
    rows: list[dict] = []
    held = 0
    with replacing(path) as partial, pq.ParquetWriter(partial, schema, compression="zstd") as writer:
        for number, part in recognizer.stream([data_dir / file for file in files]):
            if not isinstance(part, ValueError) and "segments" not in part:
                continue  # a segment: the answer holds it too
            rows.append(_row(files[number], data_dir, part))
            held += 1 + len(rows[-1].get("segments", ()))
            if held >= _ROW_GROUP:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows, held = [], 0
            yield number + 1
        writer.write_table(pa.Table.from_pylist(rows, schema))


def _row(file: str, data_dir: Path, part: dict | ValueError) -> dict:
    if isinstance(part, ValueError):
        return {"file": file, "error": str(part).replace(str(data_dir / file), file)}
    return {"file": file, **part}
