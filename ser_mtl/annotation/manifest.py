"""`manifest.json`: the list of the shards, written once all are complete."""

import hashlib
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from typing_extensions import TypedDict

from ser_mtl.annotation.plan import Plan, Settings, planning
from ser_mtl.annotation.shards import is_whole, path_of
from ser_mtl.errors import UserError
from ser_mtl.files import read_json, write_json

NAME = "manifest.json"


class Shard(TypedDict):
    """One shard: `seconds` of audio, and the SHA-256 of its file."""

    file: str
    rows: int
    errors: int
    seconds: float
    bytes: int
    sha256: str


class Manifest(TypedDict):
    """The content of the file; `plan` is the SHA-256 of the plan that it completes."""

    model: str
    settings: Settings
    plan: str
    rows: int
    errors: int
    seconds: float
    shards: list[Shard]


def unfinished(plan: Plan, output_dir: Path) -> list[int]:
    """The numbers of the shards that are missing or incomplete."""
    shards = enumerate(plan["shards"])
    return [number for number, files in shards if not is_whole(path_of(output_dir, number), len(files))]


def complete(plan: Plan, output_dir: Path) -> tuple[Manifest, bool]:
    """The manifest of a complete folder, and whether this process wrote it: only one does."""
    with planning(output_dir):
        for file in (
            *output_dir.glob(".shard-*"),
            *output_dir.glob(".partial.*"),
        ):  # left by processes that were killed
            file.unlink(missing_ok=True)
        try:
            manifest: Manifest = read_json(output_dir / NAME, Manifest)
            if manifest["plan"] == plan["sha256"]:
                return manifest, False
        except UserError:  # missing, or damaged
            pass
        shards = [_shard(path_of(output_dir, number)) for number in range(len(plan["shards"]))]
        manifest = Manifest(
            model=plan["model"],
            settings=plan["settings"],
            plan=plan["sha256"],
            rows=sum(shard["rows"] for shard in shards),
            errors=sum(shard["errors"] for shard in shards),
            seconds=round(sum(shard["seconds"] for shard in shards), 3),
            shards=shards,
        )
        write_json(output_dir / NAME, manifest)
        return manifest, True


def _shard(path: Path) -> Shard:
    table = pq.read_table(path, columns=["duration", "error"])
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Shard(
        file=path.name,
        rows=table.num_rows,
        errors=table.num_rows - table["error"].null_count,
        seconds=round(pc.sum(table["duration"]).as_py() or 0.0, 3),
        bytes=path.stat().st_size,
        sha256=sha256,
    )
