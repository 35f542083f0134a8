"""Patterns of paths with named parts, such as `{emotion}/{speaker}_{number:d}`, and templates filled from them."""

from collections.abc import Mapping

import regex as re

from ser_mtl.errors import UserError

_PART = re.compile(r"\{(?P<name>\w+)(?::(?P<length>\d{0,4})(?P<kind>[da]?))?\}")
_TOKEN = re.compile(r"(\*\*/|\*|\{[^{}]*\})")
_KINDS = {"d": r"\d", "a": r"[^\W\d_]", "": r"[^/]", None: r"[^/]"}

_SECONDS = 2.0  # limit for one name; usually it takes microseconds
_LARGEST = 100_000  # characters of an expression, repetitions written out, as it is compiled
_PIECE = re.compile(
    r"(?P<nothing>(?:\s|\(\?#[^)]*\))+)|\{(?P<least>\d+)(?:,\d*)?\}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL
)


class Pattern:
    """A user's regular expression, with limits: it may be one that takes forever.

    Args:
        written: as the user wrote it.
        expression: that matches a whole text.
        flags: of `re.compile`.

    Raises:
        UserError: it is not valid.
    """

    def __init__(self, written: str, expression: str, flags: int = 0):
        self.written = written
        if _size(expression) > _LARGEST:
            raise UserError(f"{written!r} is not a valid regular expression (its repetitions make it too large)")
        try:
            self._compiled = re.compile(expression, flags)
        except (re.error, OverflowError, RecursionError) as error:
            raise UserError(f"{written!r} is not a valid regular expression ({error})") from error

    def fullmatch(self, text: str) -> "re.Match[str] | None":
        """The match with the whole text.

        Raises:
            UserError: it takes too long.
        """
        try:
            return self._compiled.fullmatch(text, timeout=_SECONDS)
        except (TimeoutError, MemoryError) as error:
            raise UserError(
                f"pattern {self.written!r}: takes longer than {_SECONDS:g} seconds, or too much memory, on "
                f"{text[:80]!r}; leave parts out that repeat one another"
            ) from error


def _size(expression: str) -> int:
    """The approximate length of an expression with its repetitions written out."""
    sizes, last = [0], 0
    for piece in _PIECE.finditer(expression):
        if piece["nothing"]:
            continue
        if piece["least"]:
            last *= min(int(piece["least"][:9]), _LARGEST + 1)
        elif piece[0] == "(":
            sizes, last = [*sizes, 0], 0
        elif piece[0] == ")" and len(sizes) > 1:
            last = sizes.pop()
        else:
            last = 1
        sizes[-1] += last
    return sum(sizes)


def compile_pattern(pattern: str) -> Pattern:
    """A regular expression for a whole path, in upper or lower case.

    `{name}` is a part of a file or folder name, `{name:3}` three characters of it, `{name:d}` digits, `{name:2d}` two
    of them, `{name:a}` letters. A part that occurs twice is the same text twice. `*` is anything within a name, and
    `**/` any folders or none.

    Raises:
        UserError: braces that hold something else.
    """
    seen: set[str] = set()
    expression = "".join(_token(token, pattern, seen) for token in _TOKEN.split(pattern))
    return Pattern(pattern, expression, re.IGNORECASE)


def _token(token: str, pattern: str, seen: set[str]) -> str:
    if token in ("**/", "*"):
        return "(?:.*/)?" if token == "**/" else "[^/]*"
    if not token.startswith("{"):
        return re.escape(token)
    part = _PART.fullmatch(token)
    if part is None:
        raise UserError(
            f"pattern {pattern!r}: {token} is not a part; write {{name}}, {{name:2}}, {{name:d}} or {{name:a}}"
        )
    name, length = part["name"], part["length"]
    if name in seen:
        return f"(?P={name})"
    seen.add(name)
    times = f"{{{length}}}" if length else "+" if part["kind"] else "+?"
    return f"(?P<{name}>{_KINDS[part['kind']]}{times})"


def parts_in(template: str) -> list[str]:
    """The names of the parts of a template."""
    return [name for name, *_ in _PART.findall(template)]


def fill(template: str, fields: Mapping[str, str | None]) -> str | None:
    """The template with its parts filled in; None if one of them is missing or empty."""
    if not all(fields.get(name) for name in parts_in(template)):
        return None
    return _PART.sub(lambda part: str(fields[part["name"]]), template)
