"""Checking that an earlier run is finished, so that a new one can start from it."""

from pathlib import Path

from ser_mtl.errors import UserError
from ser_mtl.evaluation.results import Results
from ser_mtl.files import read_json
from ser_mtl.training.run_folder import Record


def check_finished(folder: Path, flag: str, stage: int | None = None) -> None:
    """Check the run in `folder`. A folder without `args.json`, such as a model from the Hub, passes.

    Args:
        folder: of the run.
        flag: that names it.
        stage: its stage; None for any.

    Raises:
        UserError: the run is not finished, or of another stage.
    """
    if not (folder / "args.json").is_file():
        return
    record, results = read_json(folder / "args.json", Record), folder / "results.json"
    found = (read_json(results, Results) if results.is_file() else record).get("stage")
    if stage is not None and found != stage:
        raise UserError(f"{flag} {folder}: holds a run of stage {found}; name the stage-1 model it started from")
    # A Trainer used from Python leaves no results. Version 0.1 did not record "script"; it was always one.
    by_script = record.get("script", f"run_stage{found}.py") is not None
    if not has_weights(folder) or (by_script and not results.is_file()):
        raise UserError(f"{flag} {folder}: its run is not finished; start run_stage{found}.py again, which resumes it")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds trained weights, which a run writes after its training."""
    return any((folder / name).is_file() for name in ("model.safetensors", "adapter_model.safetensors"))
