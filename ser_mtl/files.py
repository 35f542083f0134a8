"""Reading and writing files. A file is written whole or not at all: an interruption leaves the old file or none."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ser_mtl.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It is renamed to `path` when the block ends, and removed if it fails.

    The block may write a file or a folder there. The suffix stays the same, because many writers choose the format by
    it. Missing parent folders are created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial.{path.name}")
    try:
        with writing(path):
            yield partial
            partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` in the errors of a disk. Only opening a file names it, and torch and safetensors raise their own.

    Raises:
        OSError: with a file name, if something cannot be written.
    """
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
    except Exception as error:
        if number := _number(error, path):
            raise OSError(number, os.strerror(number), str(path)) from error
        raise


def _number(error: Exception, path: Path) -> int | None:
    """The `errno` of an error of safetensors or torch; None for another error."""
    if of_rust := re.search(r"\(os error (\d+)\)", str(error)):
        return int(of_rust[1])
    if isinstance(error, RuntimeError) and re.search("inline_container|PytorchStreamWriter", str(error)):
        return errno.ENOSPC if shutil.disk_usage(path if path.exists() else path.parent).free < _LITTLE else errno.EIO
    return None


_LITTLE = 2**22  # bytes free on a disk that is full


def read_json(path: str | Path, *keys: str, kind: type = dict) -> Any:
    """Read what `write_json` wrote to `path`.

    Args:
        path: the file to read.
        *keys: keys that the object must have; "test.all" is the key "all" of the object "test".
        kind: the type of the content: dict for an object, list for an array.

    Raises:
        UserError: the file is missing or damaged, holds another type, or lacks a key.
    """
    content = _parsed(path, json.loads)
    if not isinstance(content, kind):
        raise UserError(f"{path}: is damaged: it holds no {'object' if kind is dict else 'array'}")
    for key in keys:
        inner = content
        for name in key.split("."):
            if not isinstance(inner, dict) or name not in inner:
                raise UserError(f'{path}: is damaged: it has no "{key}"')
            inner = inner[name]
    return content


def read_json_lines(path: str | Path) -> list[Any]:
    """Read what `write_json_lines` wrote to `path`.

    Raises:
        UserError: the file is missing or damaged.
    """
    return _parsed(path, lambda text: [json.loads(line) for line in text.split("\n") if line])


def _parsed(path: str | Path, parse: Callable[[str], Any]) -> Any:
    try:
        return parse(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: is missing") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged: {' '.join(str(error).split())}") from error


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: str | Path, obj: object) -> None:
    """Write `obj` to `path` as JSON, indented for people to read."""
    write_text(path, json_text(obj))


def write_json_lines(path: str | Path, objects: Iterable[object]) -> None:
    """Write `objects` to `path` as JSON, one per line."""
    write_text(path, json_lines_text(objects))


def json_text(obj: object, indent: int | None = 2) -> str:
    """The text that `write_json` writes. A number that is not finite is null: JSON knows no NaN."""
    return json.dumps(_finite(obj), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"


def json_lines_text(objects: Iterable[object]) -> str:
    """The text that `write_json_lines` writes."""
    return "".join(json_text(obj, indent=None) for obj in objects)


def _finite(obj: object) -> object:
    if isinstance(obj, dict):
        return {key: _finite(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_finite(value) for value in obj]
    return None if isinstance(obj, float) and not math.isfinite(obj) else obj
