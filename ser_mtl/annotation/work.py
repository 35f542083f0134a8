"""The work of one process. No process waits for another: shards are claimed by locks that end with their owner."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from answers_ser_mtl import transcript_source
from segments_ser_mtl import has_silero
from ser_mtl.annotation import manifest
from ser_mtl.annotation.plan import Plan, Settings, plan
from ser_mtl.annotation.progress import Progress
from ser_mtl.annotation.shards import is_whole, path_of, write_shard
from ser_mtl.errors import UserError, write_errors
from ser_mtl.inference.recognizer import Recognizer, load_flagged
from ser_mtl.lock import give_back, take, works_in
from ser_mtl.model.front_end import weights_digest


@dataclass(frozen=True)
class Task:
    """The recordings to annotate, the model, and the folder of the answers."""

    data_dir: Path
    output_dir: Path
    model: str
    base: str | None = None
    transcript: bool = True
    dtype: str = "float32"
    shard_files: int = 1000


@dataclass(frozen=True)
class Place:
    """The number of this process among `world` processes; `local` is its number on its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def of_launcher(cls) -> "Place":
        """The place that `accelerate launch` or `torchrun` has set in the environment.

        Raises:
            UserError: a variable of the environment is not a number, or they contradict each other.
        """
        names = {"rank": "RANK", "world": "WORLD_SIZE", "local": "LOCAL_RANK"}
        given = {field: os.environ[name] for field, name in names.items() if name in os.environ}
        if all(value.isdecimal() for value in given.values()):
            place = cls(**{field: int(value) for field, value in given.items()})
            if place.rank < place.world:
                return place
        variables = ", ".join(f"{names[field]}={value}" for field, value in given.items())
        raise UserError(f"{variables}: are not set by a launcher; unset them, or use accelerate launch or torchrun")

    def order(self, shards: list[int], shared: bool) -> list[int]:
        """The shards in the order in which this process tries them: its own share, then those of others.

        Args:
            shards: their numbers.
            shared: whether those of others are tried too.
        """
        own = [number for number in shards if number % self.world == self.rank]
        others = [number for number in reversed(shards) if number % self.world != self.rank]
        return own + (others if shared else [])


def annotate(task: Task, place: Place) -> str:
    """Write this process's share of the shards, and those that processes which died have left.

    Returns:
        One line on the result; empty if another process reports it.

    Raises:
        UserError: no model, nothing to annotate, another model than before, or a folder that cannot be written.
    """
    recognizer = load_flagged(
        task.model, device=_device(place.local), dtype=task.dtype, transcript=task.transcript, base=task.base
    )
    planned = plan(task.data_dir, task.output_dir, task.shard_files, task.model, _settings(recognizer))
    begun = bool(manifest.unfinished(planned, task.output_dir))
    with write_errors(f"--output_dir {task.output_dir}"), Progress(planned, task.output_dir, place.local == 0) as bar:
        while _pass(task, planned, place, recognizer, bar):
            pass  # again: a process may have died meanwhile, and left a shard
        line, state = outcome(planned, task.output_dir)
    first = place.rank == 0
    return line if {"written": True, "missing": first, "known": first and not begun}[state] else ""


def _pass(task: Task, planned: Plan, place: Place, recognizer: Recognizer, bar: Progress) -> int:
    """Try every unfinished shard once. Returns the number of shards that this process wrote."""
    wrote = 0
    for number in place.order(manifest.unfinished(planned, task.output_dir), works_in(task.output_dir)):
        with _claimed(task.output_dir, number, planned) as mine:
            wrote += mine
            for answered in _written(task, planned, number, recognizer) if mine else ():
                bar.show(answered)
    return wrote


def outcome(planned: Plan, output_dir: Path) -> tuple[str, Literal["missing", "written", "known"]]:
    """One line on the result, and its state: shards are missing, this process wrote the manifest, or it was there."""
    if missing := manifest.unfinished(planned, output_dir):
        left = f"{len(missing)} of {len(planned['shards'])} shards are still to come: other processes write them"
        return f"{left}; if none does, run the same command again", "missing"
    whole, written = manifest.complete(planned, output_dir)
    hours = f"{whole['rows']} recordings, {whole['seconds'] / 3600:.2f} hours"
    errors = f", {whole['errors']} of them with an error" if whole["errors"] else ""
    return f"{hours}{errors}: {output_dir / manifest.NAME}", "written" if written else "known"


@contextmanager
def _claimed(output_dir: Path, number: int, planned: Plan) -> Iterator[bool]:
    """Whether this process is to write a shard: no other process is writing it, or has written it."""
    lock = path_of(output_dir, number).with_suffix(".lock")
    lock = lock.with_name(f".{lock.name}")
    if take(lock):
        yield False
        return
    try:
        yield not is_whole(path_of(output_dir, number), len(planned["shards"][number]))
    finally:
        give_back(lock)


def _written(task: Task, planned: Plan, number: int, recognizer: Recognizer) -> Iterator[int]:
    (task.output_dir / manifest.NAME).unlink(missing_ok=True)
    return write_shard(path_of(task.output_dir, number), task.data_dir, planned["shards"][number], recognizer)


def _settings(recognizer: Recognizer) -> Settings:
    model = recognizer.model
    return Settings(
        dtype=str(model.dtype).removeprefix("torch."),
        transcript=recognizer.transcript and transcript_source(model) is not None,
        speech="silero-vad" if has_silero() else "energy",
        model=weights_digest(_answering(model.state_dict())),
        labels=recognizer.labels,
        scales=model.config.value_scales or {},
        temperature=model.config.temperature,
    )


def _answering(state: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """The weights that answers depend on: not the modules that adapters replace, which are random in each process."""
    return [weight for name, weight in state.items() if ".original_module." not in name]


def _device(local: int) -> str | None:
    return f"cuda:{local % torch.cuda.device_count()}" if torch.cuda.is_available() else None
