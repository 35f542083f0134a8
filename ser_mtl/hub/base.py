"""The base model of a run's adapters, pinned by Hub id and commit so that users load exactly the same weights."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from ser_mtl.errors import UserError, hub_errors
from ser_mtl.files import read_json
from ser_mtl.hub.links import hub_id
from ser_mtl.hub.record import published_as
from ser_mtl.model.base import base_of
from ser_mtl.model.saved import AdapterConfig

_SAY = "name its repository (ser-mtl publish --base_repo_id)"


@dataclass(frozen=True)
class Base:
    """A model on the Hub at one commit. `of_stage1`: a stage-1 model of this project, not a stock encoder."""

    repo_id: str
    revision: str
    of_stage1: bool
    private: bool = False


def refuse_private(base: Base | None, what: str) -> None:
    """Refuse public adapters on a private base.

    Args:
        base: of the adapters.
        what: the flag that makes them public.

    Raises:
        UserError: the base is private.
    """
    if base is not None and base.private:
        raise UserError(
            f"{what}: the base of the adapters, {base.repo_id}, is private, so nobody else could load them; make it "
            "public first, publish these in private, or publish the merged model alone (ser-mtl publish --merge)"
        )


def find_base(adapter_of: str | Path, base_repo_id: str | None = None, token: str | None = None) -> Base | None:
    """Find the base of a run's adapters on the Hub.

    Args:
        adapter_of: the run's folder.
        base_repo_id: the base's repository; by default, where the base was published, or its name if that is a Hub id.
        token: the Hub token; by default, the one of the login.

    Returns:
        None for a run of a whole model.

    Raises:
        UserError: the base is not on the Hub, or the adapters were trained on another one.
    """
    file = Path(adapter_of) / "adapter_config.json"
    if not file.is_file():
        return None
    adapter = read_json(file, AdapterConfig)
    named = None if base_repo_id else base_of(adapter_of, say=_SAY)
    return base_on_hub(named or adapter["base_model_name_or_path"], adapter.get("revision"), base_repo_id, token)


def base_on_hub(
    name: str, revision: str | None = None, base_repo_id: str | None = None, token: str | None = None
) -> Base:
    """Find the model `name`, a folder or Hub id (at the commit `revision`), on the Hub; see `find_base`."""
    folder = Path(name)
    published = published_as(folder)
    if base_repo_id is None and published is not None:
        base_repo_id, revision = published.repo_id, published.revision
    elif base_repo_id not in (None, hub_id(name)):
        revision = None  # it belongs to another repository
    base_repo_id = base_repo_id or hub_id(name)
    if base_repo_id is None:
        raise UserError(
            f"the base of the adapters, {name}, is not on the Hub: publish it first "
            f"(ser-mtl publish {name} --repo_id ...), or {_SAY}"
        )
    api = HfApi(token=token)
    with hub_errors(f"the base {base_repo_id}"):
        info = api.model_info(base_repo_id, revision=revision)
        commit = info.sha or revision or "main"
        _check_same_weights(api, folder, base_repo_id, commit)
    files = {sibling.rfilename for sibling in info.siblings or ()}
    return Base(base_repo_id, commit, of_stage1="modeling_ser_mtl.py" in files, private=bool(info.private))


def _check_same_weights(api: HfApi, folder: Path, repo_id: str, revision: str) -> None:
    """Compare the weights by hash. Without the folder, adapters still check their base when they are loaded."""
    file = folder / "model.safetensors"
    if not file.is_file():
        return
    with file.open("rb") as weights:
        own = hashlib.file_digest(weights, "sha256").hexdigest()
    published = [
        info.lfs for info in api.get_paths_info(repo_id, [file.name], revision=revision) if hasattr(info, "lfs")
    ]
    if not published or published[0] is None or published[0].sha256 != own:
        raise UserError(
            f"the weights of the base {repo_id} at {revision[:7]} are not those of {folder}: publish the folder again"
        )
