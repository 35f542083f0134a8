"""Patterns of paths with named parts, such as `{emotion}/{speaker}_{number:d}`, and templates that such parts fill."""

import re
from collections.abc import Mapping

from ser_mtl.errors import UserError

_PART = re.compile(r"\{(?P<name>\w+)(?::(?P<length>\d*)(?P<kind>[da]?))?\}")
_TOKEN = re.compile(r"(\*\*/|\*|\{[^{}]*\})")
_KINDS = {"d": r"\d", "a": r"[^\W\d_]", "": r"[^/]", None: r"[^/]"}


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A regular expression for the whole of a path, in any case of its letters.

    `{name}` is a part of a file or folder name, `{name:3}` three characters of it, `{name:d}` digits, `{name:2d}` two
    of them, `{name:a}` letters. A part that comes twice is the same text twice. `*` is anything within a name, and
    `**/` any folders or none.

    Raises:
        UserError: braces that hold something else.
    """
    seen: set[str] = set()
    return re.compile("".join(_token(token, pattern, seen) for token in _TOKEN.split(pattern)), re.IGNORECASE)


def _token(token: str, pattern: str, seen: set[str]) -> str:
    if token in ("**/", "*"):
        return "(?:.*/)?" if token == "**/" else "[^/]*"
    if not token.startswith("{"):
        return re.escape(token)
    part = _PART.fullmatch(token)
    if part is None:
        raise UserError(
            f"pattern {pattern!r}: {token} is no part; write {{name}}, {{name:2}}, {{name:d}} or {{name:a}}"
        )
    name, length = part["name"], part["length"]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    times = f"{{{length}}}" if length else "+" if part["kind"] else "+?"
    return f"(?P<{name}>{_KINDS[part['kind']]}{times})"


def fill(template: str, fields: Mapping[str, str | None]) -> str | None:
    """The template with its parts filled in; None if one of them is missing or empty."""
    names = _PART.findall(template)
    if not all(fields.get(name) for name, *_ in names):
        return None
    return _PART.sub(lambda part: str(fields[part["name"]]), template)
