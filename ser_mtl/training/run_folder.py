"""The output folder of a run: whose it is, how far it got, and what it holds at the end."""

import json
import os
import subprocess
from dataclasses import MISSING, asdict, fields
from functools import cache
from importlib.metadata import version
from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.training.arguments import CorpusArguments, MethodArguments, RunArguments

PACKAGES = ("torch", "torchaudio", "transformers", "datasets", "peft", "accelerate", "evaluate", "jiwer")

# Flags of transformers that change how a run is watched or how fast it goes, but not what comes out.
_NOT_THE_RUN = ("output_dir", "disable_tqdm", "logging", "log_", "report_to", "run_name", "hub_", "push_to_hub",
                "dataloader_", "save_", "resume_from_checkpoint", "local_rank", "ddp_", "gradient_cosines",
                "use_cpu", "accelerator_config",
                "eval_accumulation_steps",  # earlier runs have the default of transformers
                # How an update's utterances are shared out; `batch_size` says how many they are.
                "per_device_train_batch_size", "gradient_accumulation_steps")  # fmt: skip


_DEFAULTS = {
    flag.name: flag.default
    for arguments in (CorpusArguments, MethodArguments, RunArguments)
    for flag in fields(arguments)
    if flag.default is not MISSING
}


def run_record(stage: int, corpus: CorpusArguments, method: MethodArguments, args: RunArguments) -> dict:
    """Every value of a run, resolved: what `args.json` holds."""
    return {
        "stage": stage,
        "corpus": asdict(corpus),
        "method": asdict(method),
        "training": json.loads(args.to_json_string()) | {"batch_size": args.utterances_an_update},
        "commit": commit(),
        "versions": {package: version(package) for package in PACKAGES},
    }


def check_run_folder(folder: Path, record: dict) -> dict | None:
    """Look whether a run may write into `folder`, before anything is loaded.

    Returns:
        The results, where this very run is finished there; else None.

    Raises:
        UserError: the folder holds another run, or files that are no run's, or cannot be written.
    """
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise UserError(f"--output_dir {folder}: {there} is not a folder that can be written to; name another")
    saved = folder / "args.json"
    if not saved.is_file():
        if folder.is_dir() and any(folder.iterdir()):
            raise UserError(
                f"--output_dir {folder}: holds files that are not of a run; name another folder or empty it"
            )
        return None
    other = _read_json(saved)
    if differing := _differences(other, record):
        raise UserError(
            f"--output_dir {folder}: holds another run ({', '.join(differing)}); name another folder or remove it"
        )
    results = folder / "results.json"
    return _read_json(results) if results.is_file() else None


def last_checkpoint(folder: Path) -> str | None:
    """The last whole checkpoint in `folder`, if any; one that was cut off lacks the file that is written last."""
    whole = [file.parent for file in folder.glob("checkpoint-*/trainer_state.json")]
    return str(max(whole, key=lambda checkpoint: int(checkpoint.name.split("-")[1]))) if whole else None


def _read_json(file: Path) -> dict:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise UserError(f"--output_dir {file.parent}: {file.name} is damaged; name another folder or remove this one")
    return content


def _differences(old: dict, new: dict) -> list[str]:
    """Flags that tell two runs apart, as `--flag old, not new`."""
    flags = [f"stage {old.get('stage')}, not {new['stage']}"] if old.get("stage") != new["stage"] else []
    for part in ("corpus", "method", "training"):
        for name, value in new[part].items():
            # A run from before a flag was there had its default.
            before = old.get(part, {}).get(name, _DEFAULTS.get(name))
            if before != value and not name.startswith(_NOT_THE_RUN):
                flags.append(f"--{name} {before}, not {value}")
    return flags


@cache
def commit() -> str | None:
    """The commit of this code, `+` behind it where its files were changed since; None outside a git checkout.

    Files that git does not know, such as recordings in the checkout, change no code.
    """
    describe = ["git", "describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=+"]
    folder = Path(__file__).resolve().parent
    try:
        return subprocess.run(describe, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
