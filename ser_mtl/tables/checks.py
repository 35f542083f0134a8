"""Checking the flags of all runs of a table before the first of them starts."""

from collections.abc import Iterable
from importlib import import_module

import torch

from ser_mtl.errors import UserError
from ser_mtl.recipe import parse_settings
from ser_mtl.tables.arguments import STAGES, TablesArguments, without
from ser_mtl.tables.launch import without_launcher
from ser_mtl.tables.plan import Run

_OF_THE_MACHINE = {
    "use_cpu", "bf16", "fp16", "tf32", "dataloader_pin_memory", "ddp_find_unused_parameters", "ddp_bucket_cap_mb",
    "ddp_broadcast_buffers", "ddp_timeout", "ddp_backend", "ddp_static_graph",
}  # fmt: skip
"""Flags whose values depend on the devices of a run and on its processes."""


def check_runs(args: TablesArguments, runs: Iterable[Run]) -> None:
    """Parse the flags of each run that is to be done, as its script will.

    Flags of the machine are left to the runs if they have another machine, or GPUs.

    Raises:
        UserError: the script's own error, with its name.
    """
    here = args.launcher == "local" and not torch.accelerator.is_available()
    different = {(run.name, run.flags): run for run in runs if run.state != "finished"}  # not only in fold and seed
    for run in different.values():
        words = args.flags_of(run)
        if not here:
            words = [*without(words, _OF_THE_MACHINE), "--use_cpu"]
        if run.stage == 1 and "--encoder" not in words:
            words += ["--encoder", "default"]  # else the demo's encoder would be made
        program = run.settings.program
        try:
            with without_launcher():
                _parse(run, program, words)
        except UserError as error:
            raise UserError(f"{program or f'run_stage{run.stage}.py'}: {error}") from None


def _parse(run: Run, program: str, words: list[str]) -> None:
    if program:
        import_module(program).settings_of(words)
    else:
        parse_settings(STAGES[run.stage], words)
