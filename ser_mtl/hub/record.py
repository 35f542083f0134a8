"""`published.json` of a run folder: where it was published, so that later runs can name their base."""

from dataclasses import asdict, dataclass
from pathlib import Path

from typing_extensions import TypedDict

from ser_mtl.files import read_json, write_json

_FILE = "published.json"


@dataclass(frozen=True)
class Published:
    """A repository on the Hub, at one commit."""

    repo_id: str
    revision: str


class _Record(TypedDict):
    repo_id: str
    revision: str


def published_as(run: Path) -> Published | None:
    """Where the run in this folder was published, if it was."""
    file = run / _FILE
    if not file.is_file():
        return None
    record = read_json(file, _Record)
    return Published(record["repo_id"], record["revision"])


def record_publication(run: Path, published: Published) -> None:
    """Record where the run was published."""
    write_json(run / _FILE, asdict(published))
