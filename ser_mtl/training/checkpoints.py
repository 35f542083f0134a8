"""Checkpoints on disk: which are whole, which is the newest, which is the best."""

import hashlib
import shutil
import zipfile
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Required

import xxhash
from pydantic import BeforeValidator, Field
from safetensors import SafetensorError, safe_open
from transformers import TrainerState
from typing_extensions import TypedDict

from ser_mtl.errors import UserError
from ser_mtl.evaluation.training_curves import History
from ser_mtl.files import read_json, write_json

STATE = "trainer_state.json"
_FILES = "files.json"
_Step = Annotated[int, Field(ge=0, le=10**12)]
_Number = Annotated[float, Field(ge=-1e12, le=1e12)]


class _State(TypedDict, total=False):
    """The content of `trainer_state.json`, which transformers reads unchecked."""

    epoch: Required[Annotated[float, Field(ge=0, le=1e6)]]
    global_step: Required[_Step]
    max_steps: Required[_Step]
    logging_steps: _Number
    eval_steps: _Number
    save_steps: _Number
    train_batch_size: int | None
    num_train_epochs: Required[int]
    num_input_tokens_seen: int
    total_flos: float
    log_history: Required[History]
    best_metric: _Number | None
    best_global_step: _Step | None
    best_model_checkpoint: str | None
    is_local_process_zero: bool
    is_world_process_zero: bool
    is_hyper_param_search: bool
    trial_name: str | None
    trial_params: dict | None
    stateful_callbacks: dict[str, dict | list]


def _known(state: object) -> object:
    names = {one.name for one in fields(TrainerState)}
    if isinstance(state, dict) and (unknown := sorted(state.keys() - names)):
        raise ValueError(f"is of another version of transformers ({unknown[0]!r})")
    return state


State = Annotated[_State, BeforeValidator(_known)]

_NEEDED = ("optimizer.pt", "scheduler.pt", "rng_state*.pth", "*model.safetensors")


def seal(checkpoint: Path) -> None:
    """Record the files of a finished checkpoint, with their digests."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name not in (STATE, _FILES))
    write_json(checkpoint / _FILES, {str(file.relative_to(checkpoint)): _digest(file) for file in files})


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint; None if it is whole. Earlier versions wrote no digests: then files must open."""
    try:
        read_json(checkpoint / STATE, State)
        files = read_json(checkpoint / _FILES, dict[str, str]) if (checkpoint / _FILES).exists() else {}
    except UserError as error:
        return str(error).removeprefix(f"{checkpoint}/")
    for pattern in () if files else _NEEDED:
        found = list(checkpoint.glob(pattern))
        if not found or (cut := [file.name for file in found if not _opens(file)]):
            return f"{cut[0]} is damaged" if found else f"{pattern} is missing"
    for name, digest in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _digest(checkpoint / name) != digest:
            return f"{name} is damaged"
    return None


def check_whole(checkpoint: Path) -> None:
    """Check a checkpoint to resume from.

    Raises:
        UserError: it is missing or damaged.
    """
    if wrong := damage(checkpoint) if checkpoint.is_dir() else "it is missing":
        raise UserError(f"--resume_from_checkpoint {checkpoint}: is not a complete checkpoint ({wrong})")


def last_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, if there is one. Damaged ones are renamed, and named on standard output."""
    for checkpoint in sorted(_all(folder), key=step_of, reverse=True):
        wrong = damage(checkpoint)
        if wrong is None:
            return checkpoint
        aside = checkpoint.with_name(f"damaged-{checkpoint.name}")
        print(f"{checkpoint} is not whole ({wrong}): set aside as {aside.name}")
        shutil.rmtree(aside, ignore_errors=True)
        checkpoint.rename(aside)
    return None


def step_of(checkpoint: Path) -> int:
    """The update after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("checkpoint-"))


def best_checkpoint(folder: Path, step: int) -> Path:
    """The checkpoint of the best update, wherever the run's folder is now.

    Raises:
        UserError: it is missing or damaged.
    """
    checkpoint = folder / f"checkpoint-{step}"
    if wrong := damage(checkpoint) if checkpoint.is_dir() else "is missing":
        raise UserError(
            f"--output_dir {folder}: {checkpoint.name}, the best one, cannot be loaded ({wrong}); put it back, or "
            "remove the folder to train again"
        )
    return checkpoint


def rotate(folder: Path, limit: int | None, kept: set[int]) -> None:
    """Delete the oldest checkpoints until `limit` are left (None or 0: all), but none of the steps in `kept`.

    A checkpoint is renamed first, so that a half-deleted one is never taken for a whole one.
    """
    if not limit:
        return
    steps = sorted(map(step_of, _all(folder)), reverse=True)
    spared = kept | set([step for step in steps if step not in kept][: max(0, limit - len(kept))])
    for step in set(steps) - spared:
        partial = folder / f".partial.checkpoint-{step}"
        (folder / f"checkpoint-{step}").rename(partial)
        shutil.rmtree(partial)


PARTIAL = (".partial.*",)
"""Patterns of half-written and half-deleted files, left by an interruption."""
OF_A_FINISHED_RUN = (*PARTIAL, "checkpoint-*", "damaged-checkpoint-*", ".lock", "line.json")
"""Patterns of the files that a finished run does not need."""


def search_folder(folder: Path) -> Path:
    """Where `--refit` keeps the first training of a run: beside its folder."""
    folder = folder.absolute()
    return folder.with_name(f"{folder.name}-search")


def tidy(folder: Path, patterns: tuple[str, ...]) -> None:
    """Delete the files and folders of these patterns."""
    for path in [path for pattern in patterns for path in folder.glob(pattern)]:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _all(folder: Path) -> list[Path]:
    return [path for path in folder.glob("checkpoint-*") if path.name.removeprefix("checkpoint-").isdigit()]


def _opens(file: Path) -> bool:
    """Whether a file of tensors has a readable index."""
    if file.suffix != ".safetensors":
        return zipfile.is_zipfile(file)
    try:
        with safe_open(file, "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _digest(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, xxhash.xxh3_128).hexdigest()
