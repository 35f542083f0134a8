"""Publish a run folder as a repository on the Hub: private by default, in one commit, safe to repeat."""

from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from ser_mtl.errors import UserError, hub_errors
from ser_mtl.hub.base import find_base
from ser_mtl.hub.contents import OWN_NAMES, files_to_publish, read_results
from ser_mtl.hub.names import NOTE
from ser_mtl.hub.record import Published, record_publication


def publish_run(
    run: Path,
    repo_id: str,
    base_repo_id: str | None = None,
    public: bool = False,
    with_transcripts: bool = False,
    keep_names: bool = False,
    token: str | None = None,
) -> Published:
    """Publish a finished run, and record in its folder where.

    Args:
        run: the run's folder; nothing else in it changes.
        repo_id: "namespace/name", or a name in the user's own namespace.
        base_repo_id: the repository of the adapters' base; by default, where the base was published.
        public: make the repository public, once it is complete.
        with_transcripts: publish the transcripts of the test utterances too.
        keep_names: publish the names of speakers and files; otherwise a public repository has hashes of them.
        token: the Hub token; by default, the one of the login.

    Raises:
        UserError: the run is not finished or the Hub refuses. It is safe to repeat.
    """
    read_results(run)  # raises before anything is made on the Hub
    base = find_base(run, base_repo_id, token)
    api = HfApi(token=token)
    repo_id = make_repository(api, repo_id, public)
    hashing = public and not keep_names
    if hashing:
        check_history(api, repo_id)
    files = files_to_publish(run, repo_id, base, with_transcripts, keep_names=not hashing)
    published = push(api, files, repo_id, public)
    record_publication(run, published)
    return published


def make_repository(api: HfApi, repo_id: str, public: bool = False) -> str:
    """Make a private repository, unless it exists.

    Returns:
        Its full name.

    Raises:
        UserError: it is public, and `public` does not allow that.
    """
    with hub_errors(f"repository {repo_id}"):
        repo_id = api.create_repo(repo_id, private=True, exist_ok=True).repo_id
        # Servers that do not understand the client's "private" silently make it public.
        if not api.model_info(repo_id).private and not public:
            raise UserError(
                f"repository {repo_id}: is public; make it private in its settings, or allow it (ser-mtl publish "
                "--public; in a training, --no_hub_private_repo)"
            )
    return repo_id


def check_history(api: HfApi, repo_id: str) -> None:
    """Check that a private repository has no names in its earlier commits, which everyone reads once it is public.

    Raises:
        UserError: it was published with names.
    """
    with hub_errors(f"repository {repo_id}"):
        info = api.model_info(repo_id)
        if not info.private or "README.md" not in {sibling.rfilename for sibling in info.siblings}:
            return
        card = Path(api.hf_hub_download(repo_id, "README.md", revision=info.sha)).read_text(encoding="utf-8")
    if NOTE not in card:
        raise UserError(
            f"repository {repo_id}: was private and has names of speakers and files in its history; publish under "
            "another name, delete it on the Hub first, or publish the names (ser-mtl publish --public --keep_names)"
        )


def push(api: HfApi, files: dict[str, Path | bytes], repo_id: str, public: bool = False) -> Published:
    """Make the repository hold these files, in one commit; no commit if it holds them already.

    Not `upload_folder`: it may split them into several commits, between which a reader sees half a model.

    Raises:
        UserError: the Hub refuses, or someone else changed the repository at the same time.
    """
    with hub_errors(f"repository {repo_id}"):
        info = api.model_info(repo_id)
        there = {sibling.rfilename for sibling in info.siblings}
        operations: list[CommitOperationAdd | CommitOperationDelete] = []
        operations += [CommitOperationDelete(name) for name in sorted(there & OWN_NAMES - set(files))]
        operations += [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in files.items()
        ]
        commit = api.create_commit(repo_id, operations, commit_message="Publish the run", parent_commit=info.sha)
        if public and info.private:
            api.update_repo_settings(repo_id, private=False)
    return Published(repo_id, commit.oid)
