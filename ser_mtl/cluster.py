"""Jobs of a cluster, through submitit."""

import os
from pathlib import Path

from submitit import AutoExecutor

from ser_mtl.errors import UserError

_ROOT = Path(__file__).resolve().parents[1]  # of a checkout, or of an installed wheel


def executor(folder: Path, name: str, options: dict, cluster: str) -> AutoExecutor:
    """The submitit executor that submits jobs.

    Args:
        folder: holds submitit's own files; all machines must share its file system.
        name: of the jobs.
        options: submitit's options, such as `timeout_min`, `gpus_per_node`, `slurm_partition`.
        cluster: "slurm", or "local" for processes of this machine.

    Raises:
        UserError: there is no such cluster here, or it does not know an option.
    """
    # A job unpickles its function by name, in any folder.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(_ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    try:
        submits = AutoExecutor(folder, cluster=cluster)
    except RuntimeError as error:  # no srun
        raise UserError(f"--launcher {cluster}: {error}") from error
    try:
        submits.update_parameters(name=name, **options)
    except (NameError, AssertionError, TypeError, ValueError) as error:  # submitit raises any of these
        raise UserError(f"--slurm_options: {' '.join(str(error).split())}") from error
    return submits


def options_of(words: list[str]) -> dict[str, str | int]:
    """The values of `--slurm_options`, name=value each, by name; numbers as numbers.

    Raises:
        UserError: one is not name=value.
    """
    if wrong := [word for word in words if "=" not in word]:
        raise UserError(f"--slurm_options {wrong[0]}: must be name=value")
    pairs = (word.split("=", 1) for word in words)
    return {name: int(value) if value.isdigit() else value for name, value in pairs}


def reason(error: BaseException) -> str:
    """Why a job ended, in one line."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[-1:]])
