"""The output folder of a run: which run it belongs to, and who may write there."""

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import MISSING, asdict, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NotRequired

from accelerate.utils import gather_object
from datasets import DatasetDict
from typing_extensions import TypedDict

from ser_mtl.corpora.dealing import ALL
from ser_mtl.corpora.loading import CORPORA, place_of_data
from ser_mtl.corpora.split_record import Split
from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json
from ser_mtl.lock import NAME as LOCK
from ser_mtl.lock import check_unlocked, has, lock, me, release
from ser_mtl.safe_text import is_utf8
from ser_mtl.training.arguments import CorpusArguments, SerMtlArguments
from ser_mtl.training.checkpoints import check_whole
from ser_mtl.training.stage import Stage

PACKAGES = ("torch", "torchaudio", "transformers", "datasets", "peft", "accelerate", "evaluate", "jiwer")

# Flags that change how a run is watched or how fast it is, but not its result.
NOT_THE_RUN = ("output_dir", "recipe",  # the recipe's values are compared one by one
                "disable_tqdm", "logging", "log_", "report_to", "run_name", "hub_", "push_to_hub",
                "dataloader_", "save_", "resume_from_checkpoint", "local_rank", "ddp_", "gradient_cosines",
                "use_cpu", "max_seconds", "accelerator_config", "front_end_cache", "enable_jit_checkpoint",
                "eval_accumulation_steps",  # version 0.1 had the default of transformers
                # How an update's utterances are shared out; `batch_size` is their number.
                "per_device_train_batch_size", "gradient_accumulation_steps")  # fmt: skip


_DEFAULTS: dict[str, object] = {"gradient_surgery": "none", "merge": "learned", "emotion_head": "none"} | {
    flag.name: flag.default
    for arguments in (CorpusArguments, Stage, SerMtlArguments)
    for flag in fields(arguments)
    if flag.default is not MISSING
}


class CorpusRecord(TypedDict):
    """The corpus of a run. A Trainer used from Python knows less about it than a script."""

    corpus: NotRequired[str | None]
    data_dir: NotRequired[list[str] | None]
    dev: NotRequired[str | None]


class Record(TypedDict):
    """The content of `args.json`. Keys that some versions did not write are optional."""

    stage: NotRequired[int]
    script: NotRequired[str | None]
    corpus: NotRequired[CorpusRecord]
    method: NotRequired[dict[str, Any]]
    training: NotRequired[dict[str, Any]]
    tasks_left_out: NotRequired[list[str]]


def run_record(
    stage: Stage, args: SerMtlArguments, corpus: dict, script: str | None = None, **experiments: str | bool | None
) -> dict:
    """Every setting of a run, resolved: the content of `args.json`.

    Args:
        stage: the method.
        args: of training.
        corpus: name, folders, fold and development set of the corpus.
        script: the script that runs it and will write its results; None for a Trainer used from Python.
        **experiments: settings of `ser_mtl.research`.
    """
    return {
        "stage": stage.number,
        "script": script,
        "corpus": corpus,
        "method": asdict(stage) | experiments,
        "training": json.loads(args.to_json_string()) | {"batch_size": args.utterances_per_update},
        "commit": commit(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def corpus_record(parts: DatasetDict) -> dict:
    """The corpus of a Trainer used from Python, as far as the utterances tell: its name or folders, fold and dev."""
    names = sorted({str(name) for part in parts.values() for name in set(part["corpus"][:])})
    folds = list(set(parts["test"]["fold"][:])) if "test" in parts else [ALL]
    known = names[0] if len(names) == 1 and names[0] in CORPORA else None
    corpus = {"corpus": known, "data_dir": None} if known else {"corpus": "folder", "data_dir": names}
    return corpus | {"fold": folds[0] if len(folds) == 1 else None, "dev": "dialog" if "dev" in parts else "none"}


def check_run_folder(folder: Path, record: dict) -> dict | None:
    """Check that a run may write into `folder`, before anything is loaded.

    Returns:
        The results, if this very run is finished there; else None.

    Raises:
        UserError: the folder holds another run, or files that belong to no run, or cannot be written, or a run is at
            work there; or the checkpoint to resume from is not whole.
    """
    check_writable(folder)
    if resume := record["training"].get("resume_from_checkpoint"):
        check_whole(Path(resume))
    saved = folder / "args.json"
    if not saved.is_file():
        # An interruption may come before anything else is written.
        if folder.is_dir() and any(not path.name.startswith((".lock", ".partial.")) for path in folder.iterdir()):
            raise UserError(
                f"--output_dir {folder}: holds files that do not belong to a run; name another folder or empty it"
            )
        check_unlocked(folder)
        return None
    if differences := _differences(_read_object(saved, Record), record):
        raise UserError(
            f"--output_dir {folder}: holds another run ({', '.join(differences)}); name another folder or remove it"
        )
    check_unlocked(folder)
    results = folder / "results.json"
    return _read_object(results, Results) if results.is_file() else None


def check_same_corpus(folder: Path, data: dict) -> None:
    """Check that a run is resumed on the corpus that it began with.

    Args:
        folder: of the run.
        data: the content that its `split.json` would have now. Keys that an older version did not write are ignored.

    Raises:
        UserError: names the changes.
    """
    if changes := changes_of_corpus(folder, data):
        raise UserError(
            f"--output_dir {folder}: the corpus has changed since this run began ({changes}); put it "
            "back as it was, or name another folder"
        )


def changes_of_corpus(folder: Path, data: dict) -> str:
    """The changes in the corpus since a run began; empty if there are none.

    Args:
        folder: of the run.
        data: the content that its `split.json` would have now, with or without the hashes of the audio.
    """
    saved = folder / "split.json"
    return "; ".join(_changes(_read_object(saved, Split) if saved.is_file() else {}, data))


def _changes(before: dict, now: dict) -> Iterator[str]:
    for task, labels in now["labels"].items():
        old = before.get("labels", now["labels"]).get(task)
        if old != labels:
            yield f"the labels of {task} were {', '.join(old or ['none'])}, now {', '.join(labels)}"
    for part in ("train", "dev", "test"):
        old, new = (audio_of(record.get(part, {})) for record in (before or now, now))
        if lost_or_new := old.keys() ^ new.keys():
            lost, got = len(old.keys() - new.keys()), len(new.keys() - old.keys())
            yield f"{part} has lost {lost} utterances and gained {got}, such as {min(lost_or_new)}"
        if changed := [name for name in old.keys() & new.keys() if old[name] and new[name] not in (None, old[name])]:
            yield f"the audio of {len(changed)} utterances of {part} has changed, such as {min(changed)}"
    if before.get("annotations", now["annotations"]) != now["annotations"]:
        yield "labels or transcripts of utterances have changed"


def audio_of(part: dict) -> dict[str, str | None]:
    """The hash of each utterance's samples in a part of `split.json`; None if an older version wrote it."""
    ids = part.get("ids", [])
    return dict(zip(ids, part.get("audio", [None] * len(ids)), strict=False))


def take_run_folder(folder: Path, record: dict) -> None:
    """Lock the folder for an unfinished run, and create it if it is missing. `lock.release` unlocks it.

    Raises:
        UserError: as `check_run_folder`, or the run is finished.
    """
    check_run_folder(folder, record)
    lock(folder)
    if check_run_folder(folder, record) is not None:
        release(folder)
        raise UserError(f"--output_dir {folder}: holds this run, finished; load it, or name another folder")


def check_shared(folder: Path, owner: str, patience: float = 60) -> None:
    """Check that all processes see the folder that the first one has locked: each machine may have one by that name.

    Args:
        folder: of the run.
        owner: of the lock, the first process; a killed run may have left a lock in another folder.
        patience: seconds for a network file system to show files of other machines.

    Raises:
        UserError: in all processes; names those that do not see it.
    """
    end = time.monotonic() + patience
    while not (sees := owner == me() or has(folder / LOCK, owner)) and time.monotonic() < end:
        time.sleep(0.2)
    if blind := [str(number) for number, seen in enumerate(gather_object([sees])) if not seen]:
        raise UserError(
            f"--output_dir {folder}: is not the same folder for all processes (process {', '.join(blind)} has another "
            "one); name one on a file system that all machines share"
        )


def check_writable(folder: Path) -> None:
    """Check that `folder` can be written to, or created.

    Raises:
        UserError: it cannot, with the reason.
    """
    if not is_utf8(str(folder)):  # safetensors and Arrow cannot write it
        raise UserError(f"--output_dir {folder}: is not UTF-8; name another folder")
    there = Path("/")
    for path in (folder, *folder.absolute().parents):
        if os.path.islink(path) and not os.path.exists(path):  # unlike a Path's, they bear names that are too long
            raise UserError(f"--output_dir {folder}: {path} is a link to nowhere; remove it, or name another folder")
    try:
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        # Only a trial tells: permissions say nothing about /proc, full disks or the length of names.
        with tempfile.TemporaryDirectory(prefix=".partial.probe-", dir=there) as probe:
            Path(probe, *folder.absolute().relative_to(there.absolute()).parts).mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--output_dir {folder}: no folder can be made in {there} ({reason}); name another") from error


def _read_object(file: Path, schema: Any) -> dict:
    try:
        return read_json(file, schema)
    except UserError as error:
        raise UserError(f"--output_dir: {error}; name another folder or remove this one") from error


def _differences(old: dict, new: dict) -> list[str]:
    """The flags in which two runs differ, as `--flag old, not new`."""
    flags = [f"stage {old.get('stage')}, not {new['stage']}"] if old.get("stage") != new["stage"] else []
    before, now = settings_of(old), settings_of(new)
    # A Trainer from Python does not know the folders as the command line has them; `check_same_corpus` compares them.
    idle = (*NOT_THE_RUN, "data_dir") if None in (old.get("script"), new["script"]) else NOT_THE_RUN
    for name, value in now.items():
        # A version without the flag ran with its default.
        saved = before.get(name, _DEFAULTS.get(name))
        if name == "data_dir" and old.get("script") and saved:  # earlier versions kept it as it was typed
            saved = [place_of_data(str(now["corpus"]), folder) for folder in saved]
        if saved != value and not name.startswith(idle):
            flags.append(f"--{name} {saved}, not {value}")
    return flags


def settings_of(record: dict) -> dict:
    """All settings in `args.json` by flag. Version 0.1 kept some in another part of the file."""
    parts = [record.get(part) for part in ("corpus", "method", "training")]
    return {name: value for part in parts if isinstance(part, dict) for name, value in part.items()}


@cache
def commit() -> str | None:
    """The commit of this code, with a `+` if files have changed since; None if this file is not under git.

    An installed package may be inside an unrelated checkout, whose commit says nothing about this code. Files that are
    not under git, such as recordings, do not count.
    """
    file = Path(__file__).resolve()
    try:
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+")
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
