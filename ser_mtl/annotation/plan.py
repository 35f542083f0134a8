"""`plan.json`: the recordings of each shard. It is written once, and only added to."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from ser_mtl.errors import UserError, notice, write_errors
from ser_mtl.files import json_text, read_json, write_json
from ser_mtl.inference.finding import find_audio
from ser_mtl.lock import give_back, take
from ser_mtl.safe_text import is_utf8

NAME = "plan.json"
_LOCK = ".plan.lock"
_BYTES = 2**30
"""The most bytes of a shard's recordings: a kill then costs minutes, even if each recording lasts hours."""
_SECONDS_BETWEEN_LOOKS = 0.1


class Settings(TypedDict):
    """Everything that the answers depend on, the same for all shards of a folder."""

    dtype: str
    transcript: bool
    speech: str
    labels: dict[str, list[str]]
    scales: dict[str, list[float]]
    temperature: float
    model: str


class Plan(TypedDict):
    """The content of `plan.json`: the paths of each shard's recordings, below `--data_dir`."""

    model: str
    settings: Settings
    shards: list[Annotated[list[str], Field(min_length=1)]]
    sha256: str
    first_bytes: NotRequired[list[int]]
    """The size of each shard's first recording, by which other recordings of the same names are recognised."""


def plan(data_dir: Path, output_dir: Path, shard_files: int, model: str, settings: Settings) -> Plan:
    """The plan of a folder: the existing one, with further shards for new recordings.

    Args:
        data_dir: folder of the recordings, at any depth.
        output_dir: folder of the shards; created if it is missing.
        shard_files: the most recordings in a shard; fewer if they reach 1 GiB.
        model: its name, for people.
        settings: of the answers.

    Raises:
        UserError: there is no recording, or the folder was begun with other settings or other recordings.
    """
    files = recordings_in(data_dir)
    with write_errors(f"--output_dir {output_dir}"):
        output_dir.mkdir(parents=True, exist_ok=True)
    with planning(output_dir):
        path = output_dir / NAME
        before: Plan | None = read_json(path, Plan) if path.exists() else None
        if before is not None:
            _check(before, path, model, settings)
            _check_same(before, path, data_dir)
        shards = before["shards"] if before else []
        known = {file for shard in shards for file in shard}
        if known and known.isdisjoint(files):
            raise UserError(f"--data_dir {data_dir}: holds none of the recordings of {path}; name another --output_dir")
        new = list(_dealt([file for file in files if file not in known], data_dir, shard_files))
        if before is not None and not new:
            return before
        name = before["model"] if before else model
        unknown = [-1] * len(shards)
        sizes = before.get("first_bytes", unknown) if before else unknown
        sizes = sizes + [_size(data_dir / shard[0]) for shard in new]
        shards = shards + new
        whole = Plan(model=name, settings=settings, shards=shards, sha256=digest_of(shards), first_bytes=sizes)
        write_json(path, whole)
        return whole


def recordings_in(data_dir: Path) -> list[str]:
    """The paths of all recordings below a folder, sorted.

    Raises:
        UserError: it is not a folder, or there are none.
    """
    if not data_dir.is_dir():
        raise UserError(f"--data_dir {data_dir}: is not a folder")
    found = find_audio([data_dir])
    if not found.files:
        raise UserError(f"--data_dir {'; '.join(found.faults)}")
    for fault in found.faults:
        notice(fault)
    names = [file.relative_to(data_dir).as_posix() for file in found.files]
    odd = [name for name in names if not is_utf8(name)]
    if odd:
        notice(f"{data_dir / odd[0]}: left out, because its name is not UTF-8 ({len(odd)} such files); rename it")
    return sorted(set(names) - set(odd))


@contextmanager
def planning(output_dir: Path) -> Iterator[None]:
    """Keep other processes from writing the plan or the manifest within the block; waits for one that does."""
    while take(output_dir / _LOCK):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    try:
        yield
    finally:
        give_back(output_dir / _LOCK)


def digest_of(shards: list[list[str]]) -> str:
    """SHA-256 over the paths of all shards."""
    return hashlib.sha256(json_text(shards, indent=None).encode()).hexdigest()


def _check(before: Plan, path: Path, model: str, settings: Settings) -> None:
    if digest_of(before["shards"]) != before["sha256"]:
        raise UserError(f"{path}: is damaged: its recordings do not have its sha256; name another --output_dir")
    outside = next((file for shard in before["shards"] for file in shard if not _is_below(file)), None)
    if outside is not None:
        raise UserError(f"{path}: names {outside!r}, which is not below --data_dir; name another --output_dir")
    for name, value in settings.items():
        if (earlier := before["settings"][name]) == value:  # type: ignore[literal-required]
            continue
        if name in ("model", "labels", "scales", "temperature"):
            raise UserError(
                f"--model {model}: {path} was begun with another model ({before['model']}); take that one, or name "
                "another --output_dir"
            )
        raise UserError(f"{path}: was begun with {name} {earlier}, not {value}; name another --output_dir")


def _dealt(files: list[str], data_dir: Path, shard_files: int) -> Iterator[list[str]]:
    shard: list[str] = []
    total = 0
    for file in files:
        if shard and (len(shard) == shard_files or total >= _BYTES):
            yield shard
            shard, total = [], 0
        shard.append(file)
        total += max(0, _size(data_dir / file))
    if shard:
        yield shard


def _check_same(before: Plan, path: Path, data_dir: Path) -> None:
    """Check that the recordings have not been exchanged, by the size of one in each shard."""
    sizes = zip(before["shards"], before.get("first_bytes", []), strict=False)
    looked = [(shard[0], size == now) for shard, size in sizes if -1 not in (size, now := _size(data_dir / shard[0]))]
    changed = [file for file, same in looked if not same]
    if len(changed) == len(looked) > 1:
        raise UserError(
            f"--data_dir {data_dir}: its recordings are not those that {path} was begun with: the sizes of "
            f"all {len(looked)} that were compared differ, such as {changed[0]}; name another --output_dir"
        )
    if changed:
        notice(
            f"{data_dir / changed[0]}: has changed since {path} was begun ({len(changed)} of the {len(looked)} that "
            "were compared); delete the shards that are to be annotated again"
        )


def _size(file: Path) -> int:
    """Bytes of a file; -1 if it is gone, which its row will report."""
    try:
        return os.path.getsize(file)
    except OSError:
        return -1


def _is_below(file: str) -> bool:
    """Whether a path of a plan, which may be of unknown origin, is inside the folder of recordings."""
    return bool(file) and "\0" not in file and not file.startswith("/") and ".." not in file.split("/")
