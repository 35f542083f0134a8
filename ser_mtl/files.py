"""Files written whole or not at all: an interrupted run leaves the old file or none, never half of one."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_mtl.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed to `path` when the block ends and removed when it fails.

    The block may make a file or a folder of it. The temporary name keeps the suffix, from which many writers tell the
    format. Missing folders above are made.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    try:
        yield partial
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """Read what `write_json` wrote to `path`.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is missing or damaged") from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, obj: object) -> None:
    """Write `obj` to `path` as JSON, indented for people to read."""
    write_text(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")
