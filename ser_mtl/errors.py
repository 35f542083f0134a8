"""`UserError`, for mistakes that a user can fix, `Notice`, for what they should know, and errors of the Hub."""

import errno
import logging
import re
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ser_mtl.safe_text import printable

_LONGEST = 2000  # characters of a message

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError


class UserError(ValueError):
    """A mistake in the user's input: a flag, a file, a label.

    The message is one line that names the file or the flag and says what to do. The command line prints it without a
    traceback and exits with code 2 (`ser_mtl.cli.command_line`). Control characters of the names in it are spelled out.
    """

    def __init__(self, message: str):
        super().__init__(_one_line(message))


def _one_line(message: str) -> str:
    """The message without control characters, and without the middle of a name of thousands of characters."""
    line = printable(message)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 4 :]}"


def some_of(names: Iterable[str], most: int = 3) -> str:
    """The first names for a message, and how many more there are: `a, b, c and 4 more`."""
    names = list(names)
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


class Notice(UserWarning):
    """One line that a user should know, and that stops nothing. The command line prints it as it is."""


def notice(line: str) -> None:
    """Tell the user; as with a `UserError`, control characters of names are spelled out."""
    warnings.warn(_one_line(line), Notice, stacklevel=3)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn ValueErrors of the files that travel to the Hub, which have no `UserError`, into one.

    Raises:
        UserError: for a ValueError inside the block.
    """
    try:
        yield
    except ValueError as error:
        raise UserError(str(error)) from error


@contextmanager
def write_errors(what: str) -> Iterator[None]:
    """Turn errors of a disk into one line that begins with `what`, a flag and its path.

    Raises:
        UserError: for an OSError inside the block.
    """
    try:
        yield
    except OSError as error:
        file = str(error.filename2 or error.filename or "")
        inside = f": {file}" if file and file not in what and ".partial." not in file else ""
        raise UserError(f"{what}{inside}: cannot be written ({error.strerror})") from error


_REMEDIES = dict.fromkeys(
    (errno.ENOSPC, errno.EDQUOT, errno.EFBIG), "; free some space, or write elsewhere, and run this again"
) | {errno.EROFS: "; write elsewhere"}


def system_error(error: OSError) -> str | None:
    """One line on an error of the operating system, such as a full disk; None if it gives no reason."""
    if error.strerror is None:
        return None
    named = error.filename2 or error.filename  # of a copy, the second is what is written
    return _one_line(f"{f'{named}: ' if named else ''}{error.strerror}{_REMEDIES.get(error.errno or 0, '')}")


def encoding_error(error: UnicodeEncodeError) -> str:
    """One line on a text that cannot be written: it holds bytes that are not UTF-8, or the terminal is not UTF-8."""
    around = error.object[max(0, error.start - 80) : error.end + 40]
    if "\ud800" <= error.object[error.start] <= "\udfff":
        return _one_line(f"{around}: holds bytes that are not UTF-8; rename it, or write it in UTF-8")
    return _one_line(f"{around}: cannot be written as {error.encoding}; set PYTHONIOENCODING=utf-8")


_OF_XET = "Data processing error"  # start of RuntimeErrors of hf_xet, which transfers files

OFFLINE = "HF_HUB_OFFLINE forbids the network; unset it"
NO_TOKEN = "no token for the Hub: `hf auth login`, or set HF_TOKEN"
_STATUS = {
    401: "the Hub does not accept the token: `hf auth login` again, or set HF_TOKEN",
    403: "the token lacks the right to write there",
    404: "not there, or this token has no access",
    409: "someone else is changing it: run this again",
    412: "it was changed meanwhile: run this again",
}
_XET_STATUS = re.compile(r"HTTP status \w+ error \((\d{3})\b")
"""In the errors of hf_xet, which have no response and call every refusal a network error."""


def unsigned(text: str) -> str:
    """The text without the queries of its URLs: uploads are signed there, and signatures are secrets."""
    return re.sub(r"\?[^\s?=]+=\S*", "", text)


class _Unsigned(logging.Filter):
    """Removes signatures from what the Hub's client logs when it retries."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = unsigned(record.getMessage()), ()
        return True


_UNSIGNED = _Unsigned()


@contextmanager
def hub_errors(what: str) -> Iterator[None]:
    """Turn errors of the Hub's client, transformers and PEFT, in loading or sending a model, into one line.

    The libraries are imported here because programs without need of them import this module.

    Args:
        what: the flag, file or model that the message begins with.

    Raises:
        UserError: `what`, the reason, and what to do about it.
    """
    from huggingface_hub.errors import LocalTokenNotFoundError, OfflineModeIsEnabled

    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_UNSIGNED)
    try:
        yield
    except UserError:
        raise
    except LocalTokenNotFoundError as error:
        raise UserError(f"{what}: {NO_TOKEN}") from error
    except OfflineModeIsEnabled as error:
        raise UserError(f"{what}: {OFFLINE}") from error
    # The client and hf_xet raise RuntimeError if an upload fails, and ValueError for a bad card; a damaged file can
    # raise anything in them.
    except Exception as error:
        raise UserError(f"{what}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, HTTPError

    of_repository = "Repo id must" in str(error) or "Incorrect path_or_model_id" in str(error)
    if of_repository or isinstance(error, HFValidationError) or isinstance(error.__cause__, HFValidationError):
        return "there is no such folder, and it is no Hub id (namespace/name)"
    vague = isinstance(error, RuntimeError) or type(error).__name__ == "DatasetGenerationError"
    if vague and error.__cause__ is not None:  # "Error while uploading", "An error occurred", and no more
        error = error.__cause__
    response = error.response if isinstance(error, HfHubHTTPError) else None
    status = status_of(error)
    if isinstance(error, GatedRepoError):
        return f"is gated: ask for access on its page of the Hub ({status})"
    if isinstance(error, HfHubHTTPError) and status == 401 and _anonymous(error):
        return NO_TOKEN
    if status == 404 and "/xet-write-token/" in str(error):
        return "the server has no Xet storage: set HF_HUB_DISABLE_XET=1 and run this again (404)"
    if status == 429:
        seconds = None if response is None else response.headers.get("Retry-After")
        return f"too many requests (429): run this again {f'in {seconds} s' if seconds else 'later'}"
    if status == 403 and _reads(error):
        return "the token lacks the right to read there (403)"
    if status in _STATUS:
        return f"{_STATUS[status]} ({status})"
    if status is not None and status >= 500:
        return f"the Hub failed ({status}): run this again later"
    if status is not None and response is None:  # of hf_xet, which calls it a network error
        return f"the Hub refused it ({status})"
    if "trust_remote_code" in str(error):
        return "needs code of its own (auto_map in its json), which is not run; name a model that transformers has"
    if isinstance(error, AttributeError | LookupError | TypeError):  # their messages say little without it
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    text = unsigned(" ".join(str(error).split())) or type(error).__name__
    if "not valid UTF-8" in text:  # safetensors opens no other
        return "its path is not UTF-8; rename its folder"
    if type(error).__name__ == "SafetensorError":
        return f"its weights are damaged ({text}); copy or download them again"
    if "OfflineModeIsEnabled" in text:  # of datasets, which keeps no more than its name
        return OFFLINE
    of_the_network = isinstance(error, HTTPError | ConnectionError | TimeoutError) or _OF_XET in text
    return f"{text}: run this again" if of_the_network else text


def _reads(error: BaseException) -> bool:
    """Whether what was refused would have changed nothing."""
    from huggingface_hub.errors import HfHubHTTPError

    if not isinstance(error, HfHubHTTPError):
        return "/xet-read-token/" in str(error)
    request = error.response.request
    writing = "/xet-write-token/" in request.url.path or request.url.path.endswith("/auth-check/write")
    return request.method in ("GET", "HEAD") and not writing


def _anonymous(error: "HfHubHTTPError") -> bool:
    """Whether the request went to the Hub itself, not to its storage, and without a token."""
    from huggingface_hub.constants import ENDPOINT

    request = error.response.request
    return str(request.url).startswith(ENDPOINT) and "authorization" not in request.headers


def status_of(error: BaseException) -> int | None:
    """The HTTP status in an error of the Hub's client or of hf_xet; None without one."""
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return error.response.status_code
    found = _XET_STATUS.search(str(error))
    return int(found[1]) if found else None
