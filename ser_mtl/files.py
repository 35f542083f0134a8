"""Reading and writing files. A file is written whole or not at all: an interruption leaves the old file or none."""

import errno
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ser_mtl.errors import UserError

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. It is renamed to `path` when the block ends, and removed if it fails.

    The block may write a file or a folder there. The suffix stays the same, because many writers choose the format by
    it. Missing parent folders are created. A pipe or a device is written into as it is.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(path)
    if not path.name:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if _is_open_ended(path):
        with writing(path):
            yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of the greatest length leaves no room for a prefix.
    partial = path.with_name(f".partial.{path.name if len(os.fsencode(path.name)) <= _ROOM else path.name[9:]}")
    _remove(partial)  # of a program that was killed
    try:
        with writing(path):
            yield partial
            partial.replace(path)
    finally:
        _remove(partial)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there; of a link, the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)


def _is_open_ended(path: Path) -> bool:
    """Whether it is a pipe, a device, or a name for an open file such as /dev/stdout, which root could replace."""
    named = path.is_relative_to("/proc") or (path.is_relative_to("/dev") and not path.is_relative_to("/dev/shm"))
    return os.path.exists(path) and not path.is_dir() and (named or not path.is_file())


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Name `path` in errors of a disk: Python does so only when it opens a file; torch and safetensors have their own.

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


_ROOM = 255 - len(".partial.")  # bytes
_LITTLE = 2**22  # bytes free on a disk that is full


def read_json(path: str | Path, schema: Any = dict) -> Any:
    """Read what `write_json` wrote to `path`.

    Args:
        path: the file to read.
        schema: the type of the content: dict, list, or any type that pydantic checks, such as a TypedDict. Types are
            strict: a number is not text. Keys that a TypedDict does not name are allowed.

    Raises:
        UserError: the file is missing or damaged, or does not fit the schema; the line names the key.
    """
    return fitting(_parsed(path, loads), schema, path)


def read_json_lines(path: str | Path, schema: Any = dict) -> list[Any]:
    """Read what `write_json_lines` wrote to `path`; each line fits the schema.

    Raises:
        UserError: as `read_json`.
    """
    lines = _parsed(path, lambda text: [loads(line) for line in text.split("\n") if line])
    return fitting(lines, list[schema], path)


def read_yaml(path: str | Path, schema: Any = dict) -> Any:
    """Read a file of settings that a user wrote.

    Raises:
        UserError: as `read_json`.
    """
    import yaml

    try:
        content = _parsed(path, yaml.safe_load)
    except (yaml.YAMLError, AttributeError, LookupError, TypeError) as error:  # the last three are its own bugs
        raise UserError(f"{path}: is damaged: {' '.join(str(error).split())}") from error
    inner = [content]
    for values in inner:  # aliases within aliases: a few lines may stand for more than any memory holds
        inner += values.values() if isinstance(values, dict) else values if isinstance(values, list) else ()
        if len(inner) > _MOST_SETTINGS:
            raise UserError(f"{path}: holds more than {_MOST_SETTINGS} settings")
    return fitting(content, schema, path)


def fitting(content: Any, schema: Any, what: object) -> Any:
    """Return the content unchanged if it fits the schema.

    Args:
        content: parsed JSON.
        schema: as for `read_json`.
        what: the file that it was read from.

    Raises:
        UserError: names the file, the key, and what must be there.
    """
    from pydantic import ValidationError

    try:
        _adapter(schema).validate_python(content, strict=True)
    except ValidationError as refused:
        error = refused.errors(include_url=False)[0]
        raise UserError(f"{what}: is damaged: {_misfit(error)}") from None
    return content


@cache
def _adapter(schema: Any) -> "TypeAdapter":
    from pydantic import TypeAdapter

    return TypeAdapter(schema)


def _misfit(error: Any) -> str:
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f'it has no "{where}"'
    if not where:
        return f"it holds no {'array' if error['type'] == 'list_type' else 'object'}"
    what = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f'"{_short(where)}" {what}, not {_short(json.dumps(error["input"], default=str))}'


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."


_MOST_SETTINGS = 10_000
_LARGEST = 2**29
"""Bytes of a file that is read whole. `predictions.jsonl` of a million utterances is smaller."""


def _parsed(path: str | Path, parse: Callable[[str], Any]) -> Any:
    try:
        if not Path(path).exists():
            raise UserError(f"{path}: is missing")
        if not Path(path).is_file():
            raise UserError(f"{path}: is a folder or a device, not a file")
        if Path(path).stat().st_size > _LARGEST:
            raise UserError(f"{path}: is larger than {_LARGEST >> 20} MiB")
        return parse(Path(path).read_text(encoding="utf-8"))
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{path}: is damaged: too many brackets in one another") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: is damaged: {' '.join(str(error).split())}") from error


def read_bytes(file: Path) -> bytes:
    """The content of a file of unknown origin.

    Raises:
        OSError: it is missing, a pipe or a device, or too large to be read whole.
    """
    if _is_special(file):
        raise OSError(errno.EINVAL, "a pipe or a device")
    if os.path.isfile(file) and os.path.getsize(file) > _LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {_LARGEST >> 20} MiB")
    return file.read_bytes()


def loads(text: str) -> Any:
    """Parse JSON. A number that is not finite, or has more than 64 bits, is null, as `write_json` writes it."""
    content = json.loads(text, parse_constant=lambda _: None, parse_float=_finite_number, parse_int=_whole_number)
    if "\\u" in text:
        json.dumps(content, ensure_ascii=False).encode()  # refuses half a surrogate pair, which no file could hold
    return content


def _finite_number(text: str) -> float | None:
    return value if math.isfinite(value := float(text)) else None


def _whole_number(text: str) -> int | None:
    return int(text) if len(text) < 20 else None


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


def refuse_special(path: Path) -> None:
    """Refuse a pipe or a device in place of a file: opening it could wait forever.

    Raises:
        UserError: it is one.
    """
    if _is_special(path):
        raise UserError(f"{path}: is a pipe or a device; remove it")


def _is_special(path: Path) -> bool:
    return os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path)
