"""Text from outside (labels, names of people and files, transcripts, messages), made safe for where it is shown."""

import csv
import re
from collections.abc import Iterable
from io import StringIO

from markupsafe import Markup

# Control characters, line separators, marks of writing direction, and bytes of file names that are not UTF-8.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
# What Markdown, or HTML in it, reads as markup; in URLs, what makes them links.
_MARKUP = re.compile(r"[\\`*_\[\]<>&|~$@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
_ENTITIES = {"<": "&lt;", ">": "&gt;", "&": "&amp;"}
_FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def printable(text: str, keep: str = "") -> str:
    r"""The text in one line that cannot steer a terminal: a control character as \n or \x1b, except those to `keep`."""
    return _CONTROL.sub(lambda found: found[0] if found[0] in keep else _code(found[0]), text)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: file names and words of a command line may hold any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def markdown(text: object) -> Markup:
    """Escape the text, so that Markdown shows it as it is, in one line. `Markup` is Markdown already and stays."""
    if isinstance(text, Markup):
        return text
    return Markup(_MARKUP.sub(lambda found: _ENTITIES.get(found[0], f"\\{found[0]}"), printable(str(text))))


def csv_line(cells: Iterable[object]) -> str:
    """A row of comma-separated values, without the end of the line.

    A cell that a spreadsheet would compute, such as =1+1, gets a ' in front, which `unguarded` removes.
    """
    line = StringIO()
    csv.writer(line).writerow([_guarded(str(cell)) for cell in cells])
    return line.getvalue().removesuffix("\r\n")


def _guarded(cell: str) -> str:
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguarded(cell: str) -> str:
    """A cell of `csv_line` as it was."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
