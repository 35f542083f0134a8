"""Finding the base of a run's adapters, also after both were moved."""

import os
from pathlib import Path

from typing_extensions import TypedDict

from ser_mtl.errors import UserError
from ser_mtl.files import read_json


class _Named(TypedDict):
    base_model_name_or_path: str


def base_of(run: str | Path, base: str | None = None, say: str = "name it with --base") -> str | None:
    """The folder or Hub id of the base of a run's adapters.

    If the folder that the adapters name is gone, one at the same relative path is taken: for `old/stage1/fold1`,
    `stage1/fold1` or `fold1` beside the run or above it. The adapters themselves refuse a wrong base.

    Args:
        run: a run's folder, or a Hub id.
        base: its folder or Hub id now; takes precedence.
        say: how the user can name it, for the message.

    Returns:
        None for a run of a whole model, and for adapters on the Hub.

    Raises:
        UserError: the base is not found, or can be neither a folder nor on the Hub.
    """
    file = Path(run) / "adapter_config.json"
    if base is not None and not os.path.exists(base) and (base.count("/") != 1 or base.startswith(("/", "."))):
        raise UserError(f"--base {base}: is neither a folder here nor a Hub id (namespace/name)")
    if base is not None or not file.is_file():
        return base
    named = read_json(file, _Named)["base_model_name_or_path"]
    parts = Path(named).parts
    hub_id = named.count("/") == 1 and not named.startswith(("/", "./", "../"))
    if Path(named).is_dir() or hub_id:
        return named
    for length in range(len(parts) - 1, 0, -1):
        for folder in Path(run).resolve().parents:
            moved = folder.joinpath(*parts[-length:])
            if (moved / "config.json").is_file() and moved != Path(run).resolve():
                return str(moved)
    raise UserError(
        f"{run}: the base of its adapters is not there ({named}); put it back, {say}, or merge the two: `ser-mtl "
        f"export {run} --to merged --base WHERE_IT_IS` (`ser-mtl publish --merge` merges too)"
    )
