"""Whether the runs of a table would take their flags: found out before the first of them starts."""

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
    """Parse the flags of each run that is to do as its script does.

    Flags of the machine are left to the runs if these have another one, or processes of their own on its GPUs.

    Raises:
        UserError: names the script, and says what it would.
    """
    here = args.launcher == "local" and not torch.accelerator.is_available()
    alike = {(run.name, run.flags): run for run in runs if run.state != "finished"}  # but for the fold and the seed
    for run in alike.values():
        words = args.flags_of(run)
        if not here:
            words = [*without(words, _OF_THE_MACHINE), "--use_cpu"]
        if run.stage == 1 and "--encoder" not in words:
            words += ["--encoder", "default"]  # that of the demo would be made for it
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
