"""Answer all recordings below a folder, as Parquet files; resumes, and any number of processes share the work.

ser-mtl annotate --data_dir recordings/ --output_dir answers/ --model me/xlsr-ser-stage2
accelerate launch --multi_gpu --num_processes 8 -m ser_mtl annotate --data_dir ... --output_dir ... --model ...
ser-mtl annotate ... --launcher slurm --jobs 16 --slurm_options gpus_per_node=1 timeout_min=720
"""

import os
from argparse import ArgumentParser, Namespace
from math import inf
from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.parsing import add_loading, number
from ser_mtl.safe_text import printable


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of the command."""
    add = parser.add_argument
    add("--data_dir", type=Path, required=True, help="Folder of the recordings, at any depth.")
    add(
        "--output_dir", type=Path, required=True, help="Folder of the answers, shared by the processes of all machines."
    )
    add("--model", required=True, help="Hub id or run folder.")
    add(
        "--shard_files",
        type=number(int, 1, inf),
        default=1000,
        help="Recordings per shard; fewer if they reach 1 GiB. [1000]",
    )
    add_loading(parser)
    add(
        "--launcher",
        default="local",
        choices=["local", "slurm"],
        help="local: this process, or those of accelerate; slurm: jobs on a cluster. [local]",
    )
    add("--jobs", type=number(int, 1, inf), default=1, help="With --launcher slurm: how many jobs share the work. [1]")
    add("--slurm_options", nargs="+", default=[], help="Options of submitit for each job, name=value.")


def main(args: Namespace) -> None:
    """Annotate.

    Raises:
        UserError: nothing to annotate, another model than before, or a folder that cannot be written.
    """
    others = {"--jobs": args.jobs != 1, "--slurm_options": args.slurm_options}
    if args.launcher == "local" and (idle := [flag for flag, given in others.items() if given]):
        raise UserError(f"{idle[0]}: is for --launcher slurm")
    if not args.data_dir.is_dir():
        raise UserError(f"--data_dir {args.data_dir}: is not a folder")
    from ser_mtl.annotation.work import Place, Task, annotate

    task = Task(
        data_dir=args.data_dir.resolve(),
        output_dir=Path(os.path.realpath(args.output_dir)),
        model=os.path.abspath(args.model) if os.path.exists(args.model) else args.model,
        base=args.base,
        transcript=not args.no_transcript,
        dtype=args.dtype,
        shard_files=args.shard_files,
    )
    if args.launcher == "slurm":
        from ser_mtl.annotation.jobs import annotate_by_jobs
        from ser_mtl.cluster import options_of

        line = annotate_by_jobs(task, args.jobs, options_of(args.slurm_options))
    else:
        line = annotate(task, Place.of_launcher())
    if line:
        print(printable(line))
