"""Publish a run folder as a repository on the Hub: private by default, in one commit, safe to repeat."""

import os
from collections.abc import Iterable, Set
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from ser_mtl.errors import UserError, hub_errors, notice, status_of
from ser_mtl.hub.access import refuse_public
from ser_mtl.hub.base import find_base, refuse_private
from ser_mtl.hub.complete import read_complete
from ser_mtl.hub.completion import check_datasets, keep_edits
from ser_mtl.hub.contents import files_to_publish, models_named, replaced
from ser_mtl.hub.names import NOTE
from ser_mtl.hub.options import PRIVATE, Options
from ser_mtl.hub.record import Published, record_publication

os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "3")  # else it repeats a 500 for more than two minutes


def publish_run(
    run: Path,
    repo_id: str,
    base_repo_id: str | None = None,
    options: Options = PRIVATE,
    token: str | None = None,
) -> Published:
    """Publish a finished run, and record in its folder where.

    Args:
        run: the run's folder; nothing else in it changes.
        repo_id: "namespace/name", or a name in the user's own namespace.
        base_repo_id: the repository of the adapters' base; by default, where the base was published.
        options: what is published, and to whom.
        token: the Hub token; by default, the one of the login.

    Raises:
        UserError: the run is incomplete, or the Hub refuses. It is safe to repeat.
    """
    results = read_complete(run)  # raises before anything is made on the Hub
    api = HfApi(token=token)
    base = find_base(run, base_repo_id, token)
    if options.public:
        refuse_private(base, "--public")
    check_datasets(api, options.completion, options.public)
    repo_id = make_repository(api, repo_id, options.public)
    hidden = hidden_models(api, [run], repo_id, options)
    files = files_to_publish(run, repo_id, base, options, hidden)
    edited = keep_edits(api, repo_id, files, options.completion, options.overwrite_card)
    published = push(api, edited, repo_id, options.public, replaced(results))
    record_publication(run, published)
    return published


def make_repository(api: HfApi, repo_id: str, public: bool = False) -> str:
    """Make a private repository, unless it exists.

    Returns:
        Its full name.

    Raises:
        UserError: it is public, and `public` does not allow that.
    """
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(f"repository {repo_id}: is not a valid name; write namespace/name, as on the Hub") from error
    with hub_errors(f"repository {repo_id}"):
        repo_id = api.create_repo(repo_id, private=True, exist_ok=True).repo_id
        # Servers that do not understand the client's "private" silently make it public.
        private = bool(api.model_info(repo_id).private)
    refuse_public(private, public, f"repository {repo_id}")
    return repo_id


def hidden_models(api: HfApi, runs: Iterable[Path], repo_id: str, options: Options) -> frozenset[str]:
    """The private models of `runs` that a public repository must not name; none if the repository is private.

    Raises:
        UserError: its history names one, or has names of speakers and files that are to be hashed.
    """
    if not options.public:
        return frozenset()
    hidden = _private_models(api, set().union(*map(models_named, runs)) - {repo_id})
    _check_history(api, repo_id, options.hashing, hidden)
    return hidden


def _private_models(api: HfApi, names: Set[str]) -> frozenset[str]:
    """The private models among `names`. A name that the Hub does not know is not private."""
    private = set()
    for name in sorted(names):
        with hub_errors(name):
            try:
                private |= {name} if api.model_info(name).private else set()
            except HfHubHTTPError as error:
                if status_of(error) not in (401, 404):
                    raise
    return frozenset(private)


def _check_history(api: HfApi, repo_id: str, hashing: bool, hidden: Set[str]) -> None:
    """Check the earlier commits of a private repository, which everyone can read once it is public.

    Args:
        api: with the token.
        repo_id: the repository.
        hashing: whether names of speakers and files must not be there.
        hidden: names of private models, which must not be there either.

    Raises:
        UserError: it was published with such names.
    """
    with hub_errors(f"repository {repo_id}"):
        info = api.model_info(repo_id)
        if not info.private or "README.md" not in {sibling.rfilename for sibling in info.siblings or ()}:
            return
        card = Path(api.hf_hub_download(repo_id, "README.md", revision=info.sha)).read_text(encoding="utf-8")
    if hashing and NOTE not in card:
        raise UserError(
            f"repository {repo_id}: was private and has names of speakers and files in its history; publish under "
            "another name, delete it on the Hub first, or publish the names (ser-mtl publish --public --keep_names)"
        )
    if named := [name for name in sorted(hidden) if name in card]:
        raise UserError(
            f"repository {repo_id}: was private and has the name of a private model, {named[0]}, in its history; "
            "publish under another name, or delete it on the Hub first"
        )


def push(
    api: HfApi, files: dict[str, Path | bytes], repo_id: str, public: bool = False, unwanted: Set[str] = frozenset()
) -> Published:
    """Push these files to a repository in one commit; without a commit if it holds them already.

    Other files there stay, except those in `unwanted`. Not `upload_folder`: it may split files into several commits,
    between which a reader sees half a model.

    Raises:
        UserError: the Hub refuses, or someone else changed the repository at the same time.
    """
    with hub_errors(f"repository {repo_id}"):
        info = api.model_info(repo_id)
        there = {sibling.rfilename for sibling in info.siblings or ()}
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        operations += [CommitOperationDelete(name) for name in sorted(there & unwanted)]
        operations += [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        commit = api.create_commit(repo_id, operations, commit_message="Publish the run", parent_commit=info.sha)
        if public and info.private:
            api.update_repo_settings(repo_id, private=False)
    if info.sha and commit.oid != info.sha and "model.safetensors" in there & set(files):
        _name_adapters(api, repo_id, info.sha)
    return Published(repo_id, commit.oid)


def _name_adapters(api: HfApi, repo_id: str, before: str) -> None:
    """Name the adapters on the Hub that depend on a model that changed, where the server can list them."""
    try:
        adapters = sorted(model.id for model in api.list_models(filter=f"base_model:adapter:{repo_id}", limit=100))
    except Exception:  # of a server that does not list them: the push itself is done
        return
    if adapters:
        notice(
            f"{repo_id} has changed; {', '.join(adapters)} are based on it. They keep the weights of the commit "
            f"that they were trained on, and run the new code unless code_revision={before[:7]} is passed"
        )
