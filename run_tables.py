"""Train the rows of the paper's tables over folds and seeds, and compare them with the paper's numbers.

accelerate launch run_tables.py --tables 1 2 3 --folds 1 2 3 4 5 --seeds 0 1 2
python run_tables.py --rows t1-full-ser-asr t3-scl-cos --corpus folder --data_dir my_recordings --num_train_epochs 20
python run_tables.py --rows t3-scl-cos --folds 1 --grid learning_rate=5e-5,1e-4 scl_weight=0.5,1
"""

import os
import sys

from datasets import Dataset

from ser_mtl.cli import command_line
from ser_mtl.corpora.audio import with_samples
from ser_mtl.model.demo_encoder import demo_encoder
from ser_mtl.safe_text import printable
from ser_mtl.tables.arguments import TablesArguments, idle_in, keep_settings, parse_arguments
from ser_mtl.tables.baselines import write_baselines
from ser_mtl.tables.checks import check_runs
from ser_mtl.tables.cross import write_cross
from ser_mtl.tables.finished import finished_rows
from ser_mtl.tables.grid import plan_grid, runs_in, write_grid
from ser_mtl.tables.launch import Cluster, ThisMachine, run_all
from ser_mtl.tables.plan import choose_rows, plan, plan_table
from ser_mtl.tables.report import write_report


def main() -> None:
    """Train the runs of the chosen rows, and write the report."""
    if os.environ.get("LOCAL_RANK", "0") != "0":  # one process launches the processes of all runs
        return
    args = parse_arguments()
    if args.cross:
        return print(f"{write_cross(args.output_dir, args.cross)}\n\n{printable(str(args.output_dir / 'cross.md'))}")
    rows = choose_rows(args.tables, args.rows, args.leave_out)
    grid = plan_grid(rows, args.folds, args.seeds, args.output_dir, args.grid, idle_in) if args.grid else None
    runs = runs_in(grid) if grid else plan(rows, args.folds, args.seeds, args.output_dir)
    if not args.report_only:
        check_runs(args, runs)
    if args.dry_run:
        return print(plan_table(runs, args.jobs))

    failed = {}
    if not args.report_only:
        launcher = machine(args)
        corpus = prepare(args)
        keep_settings(args)
        if not grid:
            write_baselines(args.output_dir / "baselines.json", corpus)
        failed = run_all(runs, launcher)
    print(plan_table(runs, args.jobs))
    if grid:
        print(f"\n{write_grid(args.output_dir, grid, args.command)}")
    elif finished_rows(runs):
        print(f"\n{write_report(args.output_dir, runs, args.command)}")
    for run, reason in failed.items():
        print(printable(f"failed: {run.folder}: {reason}; its log is {run.log}"), file=sys.stderr)
    sys.exit(1 if failed else 0)


def prepare(args: TablesArguments) -> Dataset:
    """Read the corpus, and create what the runs share before they start, so that parallel ones do not collide."""
    if args.corpus == "demo" and args.encoder is None:
        demo_encoder()
    corpus = args.corpus_arguments.load()
    args.check_fits(corpus)
    return with_samples(corpus)


def machine(args: TablesArguments) -> ThisMachine | Cluster:
    """The machine or cluster of the runs."""
    if args.launcher == "slurm":
        return Cluster(args.output_dir / "jobs", args.options_of_slurm(), args.flags_of)
    return ThisMachine(args.jobs, args.flags_of)


if __name__ == "__main__":
    command_line(main)
