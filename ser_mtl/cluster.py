"""Jobs of a cluster, through submitit."""

import getpass
import os
import shutil
import subprocess
from pathlib import Path

from submitit import AutoExecutor, SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

from ser_mtl.errors import UserError

_SECONDS_BETWEEN_LOOKS = 60  # at most
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
    if cluster == "slurm" and not _keeps_accounts():
        SlurmJob.watcher = _Queue(_SECONDS_BETWEEN_LOOKS)
    try:
        submits.update_parameters(name=name, **options)
    except (NameError, AssertionError, TypeError, ValueError) as error:  # submitit raises any of these
        raise UserError(f"--slurm_options: {' '.join(str(error).split())}") from error
    return submits


def _keeps_accounts() -> bool:
    """Whether `sacct`, by which submitit watches jobs, knows them. Small clusters often have no data base for it."""
    return bool(shutil.which("sacct")) and subprocess.run(["sacct"], capture_output=True).returncode == 0


class _Queue(SlurmInfoWatcher):
    """Watches jobs by `squeue`: one that is not in the queue any more is over."""

    def _make_command(self) -> list[str]:
        return ["squeue", "--user", getpass.getuser(), "--noheader", "--format", "%A"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        queue = (string if isinstance(string, str) else string.decode()).split()
        return {job: {"JobID": job, "State": "RUNNING" if job in queue else "ENDED"} for job in self._registered}


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
