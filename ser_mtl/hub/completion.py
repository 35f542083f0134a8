"""A user's additions to a card, and whether the card on the Hub has been edited."""

import hashlib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from huggingface_hub import HfApi, ModelCard

from ser_mtl.errors import UserError, hub_errors, notice
from ser_mtl.files import read_bytes

_SIGNATURE = re.compile(r"<!-- ser-mtl card(, completed)? ([0-9a-f]{64}) -->\n\Z")


@dataclass(frozen=True)
class Completion:
    """A user's additions to a card.

    Attributes:
        license: the Hub's name of a licence, such as cc-by-4.0.
        language: codes, such as en.
        datasets: datasets on the Hub.
        text: Markdown.
        metadata: further metadata of the card's header.
    """

    license: str | None = None
    language: list[str] | None = None
    datasets: list[str] | None = None
    text: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)


AS_IT_IS = Completion()


def read_completion(
    license: str | None, language: list[str] | None, datasets: list[str] | None, card: Path | None
) -> Completion:
    """Gather the user's additions; the file `card` may have its own header.

    Raises:
        UserError: the file is missing, is not text, or its header is damaged.
    """
    if card is None:
        return Completion(license, language, datasets)
    try:
        text = read_bytes(card).decode("utf-8-sig").replace("\r\n", "\n").strip() + "\n"
        own = ModelCard(text) if text.startswith("---\n") else None
    except Exception as error:  # of the file, of the encoding, or any of YAML's
        raise UserError(f"--card {card}: cannot be read: {' '.join(str(error).split())}") from error
    if own is None:
        return Completion(license, language, datasets, text.strip())
    header = own.data.to_dict()
    # Flags take precedence over the header, whose values are checked in the same way.
    license, language = license or header.pop("license", None), language or _listed(header.pop("language", None))
    datasets = datasets or _listed(header.pop("datasets", None))
    return Completion(license, language, datasets, own.text.strip(), header)


def _listed(value: str | list[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else value


def check_datasets(api: HfApi, completion: Completion, public: bool) -> None:
    """Check that the card will name only datasets that are on the Hub and, if it is public, no private ones.

    Raises:
        UserError: names the dataset.
    """
    for name in completion.datasets or []:
        with hub_errors(f"--dataset {name}"):
            private = api.dataset_info(name).private
        if public and private:
            raise UserError(f"--dataset {name}: is private; a public card cannot name it")


def signed(card: str, completion: Completion = AS_IT_IS) -> str:
    """The card with an invisible last line, by which `state_of` tells whether it was edited."""
    completed = ", completed" if completion != AS_IT_IS else ""
    return f"{card.rstrip()}\n\n<!-- ser-mtl card{completed} {_hash(card)} -->\n"


def state_of(card: str) -> Literal["as written", "completed", "edited"]:
    """Whether a card is as `signed` wrote it, with or without a user's completion."""
    found = _SIGNATURE.search(card)
    if found is None or found[2] != _hash(card[: found.start()]):
        return "edited"
    return "completed" if found[1] else "as written"


def _hash(card: str) -> str:
    return hashlib.sha256(card.rstrip().encode()).hexdigest()


def keep_edits(
    api: HfApi, repo_id: str, files: dict[str, Path | bytes], completion: Completion, overwrite: bool
) -> dict[str, Path | bytes]:
    """The files to push, without the card if its user has edited or completed the one on the Hub.

    Raises:
        UserError: the card on the Hub was edited, and there are additions to make to it.
    """
    with hub_errors(f"repository {repo_id}"):
        info = api.model_info(repo_id)
        if overwrite or "README.md" not in {sibling.rfilename for sibling in info.siblings or ()}:
            return files
        there = Path(api.hf_hub_download(repo_id, "README.md", revision=info.sha)).read_bytes()
    state = state_of(there.decode("utf-8", errors="replace"))
    if there == files["README.md"] or state == "as written" or (state == "completed" and completion != AS_IT_IS):
        return files
    if completion != AS_IT_IS:
        raise UserError(f"repository {repo_id}: its card was edited on the Hub; edit it there, or add --overwrite_card")
    notice(
        f"the card of {repo_id} stays as it is, since it was {state}{' on the Hub' if state == 'edited' else ''}: "
        "check its numbers; --overwrite_card writes a new one"
    )
    return {name: content for name, content in files.items() if name != "README.md"}
