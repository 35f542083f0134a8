"""Names of models: Hub ids and local folders, told apart and shown as links."""

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from markupsafe import Markup

from ser_mtl.hub.names import PRIVATE_MODEL
from ser_mtl.safe_text import markdown


def hub_id(model: str) -> str | None:
    """`model` if it reads as namespace/name and is not a folder here, which `from_pretrained` would prefer."""
    try:
        validate_repo_id(model)
    except HFValidationError:
        return None
    return model if "/" in model and not Path(model).exists() else None


def named(model: str) -> Markup:
    """A link for a model on the Hub; a folder is named without the path to it."""
    if model == PRIVATE_MODEL:
        return Markup(model)
    return repository_link(model) if hub_id(model) else Markup(f"{markdown(Path(model).name)} (a local folder)")


def repository_link(repo_id: str) -> Markup:
    """A link in Markdown to a repository on the Hub."""
    return Markup(f"[{markdown(repo_id)}](https://huggingface.co/{repo_id})")
