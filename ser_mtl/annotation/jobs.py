"""Annotating as jobs on a cluster. The jobs share the folder of shards, and nothing else."""

import time
from contextlib import suppress

from submitit import Job, JobEnvironment
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import Checkpointable

from ser_mtl import cluster as clusters
from ser_mtl.annotation.plan import NAME, Plan
from ser_mtl.annotation.progress import Progress
from ser_mtl.annotation.work import Place, Task, annotate, outcome
from ser_mtl.errors import UserError
from ser_mtl.files import read_json

_SECONDS_BETWEEN_LOOKS = 1.0


class _Share(Checkpointable):
    """The share of one process of a job. submitit requeues it when its time is up."""

    def __call__(self, task: Task, job: int, jobs: int) -> str | None:
        """Annotate. Returns None, or the message of a `UserError`."""
        here = JobEnvironment()
        place = Place(job * here.num_tasks + here.global_rank, jobs * here.num_tasks, here.local_rank)
        try:
            annotate(task, place)
        except UserError as error:
            return str(error)
        return None


def annotate_by_jobs(task: Task, jobs: int, options: dict, cluster: str = "slurm") -> str:
    """Submit jobs, and wait for them. If this program is stopped, they continue.

    Args:
        task: to be shared by the jobs.
        jobs: their number.
        options: of submitit, for each job.
        cluster: "slurm", or "local" for processes of this machine.

    Returns:
        One line on the result.

    Raises:
        UserError: there is no such cluster here, or not all shards could be written.
    """
    executor = clusters.executor(task.output_dir / "jobs", "ser-annotate", options, cluster)
    try:
        running = [executor.submit(_Share(), task, job, jobs) for job in range(jobs)]
    except (FailedJobError, FailedSubmissionError) as error:
        raise UserError(f"--launcher {cluster}: {clusters.reason(error)}") from error
    _wait(task, running)
    reasons = [(job, _reason(job)) for job in running]
    if failed := [(job, reason) for job, reason in reasons if reason]:
        job, reason = failed[0]
        raise UserError(f"{reason} ({len(failed)} of {jobs} jobs; the log of one is {job.paths.stderr}); run the same "
                        "command again to continue")  # fmt: skip
    return outcome(read_json(task.output_dir / NAME, Plan), task.output_dir)[0]


def _reason(job: Job) -> str | None:
    """Why a job failed."""
    error = job.exception()
    return job.result() if error is None else f"--launcher: {clusters.reason(error)}"


def _wait(task: Task, running: list[Job]) -> None:
    bar = None
    while not all(job.done() for job in running):
        time.sleep(_SECONDS_BETWEEN_LOOKS)
        if bar is None:
            with suppress(UserError):  # the first job writes the plan
                bar = Progress(read_json(task.output_dir / NAME, Plan), task.output_dir, shown=True)
        else:
            bar.show()
    if bar is not None:
        bar.__exit__()
