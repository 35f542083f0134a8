"""Checking, before a run is trained, that it can be published; nothing on the Hub changes."""

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from ser_mtl.errors import UserError, hub_errors, status_of

_WRITES = {"repo.write", "repo.content.write"}
"""Permissions of a fine-grained token, of which one is needed."""


def check_access(api: HfApi, repo_id: str, public: bool) -> None:
    """Check that a repository's name is valid and that the token may write there.

    Args:
        api: with the token.
        repo_id: "namespace/name", or a name in the user's own namespace.
        public: whether the repository may be public.

    Raises:
        UserError: the name is not valid; the token is missing, wrong or may not write there; or the repository is
            public and `public` does not allow that.
    """
    what = f"--hub_model_id {repo_id}"
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise UserError(
            f"{what}: cannot be the name of a repository: namespace/name, each of letters, digits, '-', '_' and '.', "
            "at most 96 characters"
        ) from error
    with hub_errors(what):
        user = api.whoami()
    namespace, _, name = repo_id.rpartition("/")
    namespace = namespace or user["name"]
    _check_namespace(user, namespace, what)
    _check_token(user, namespace, f"{namespace}/{name}", what)
    _check_repository(api, f"{namespace}/{name}", public, what)


def _check_namespace(user: dict, namespace: str, what: str) -> None:
    if namespace.lower() == user["name"].lower() or "orgs" not in user:
        return
    organisations = {organisation["name"].lower(): organisation for organisation in user["orgs"]}
    if namespace.lower() not in organisations:
        known = ", ".join(organisation["name"] for organisation in user["orgs"]) or "none"
        raise UserError(f"{what}: {namespace} is neither you ({user['name']}) nor an organisation of yours ({known})")
    if organisations[namespace.lower()].get("roleInOrg") == "read":
        raise UserError(f"{what}: your role in the organisation {namespace} is to read; ask its admins for more")


def _check_token(user: dict, namespace: str, repo_id: str, what: str) -> None:
    token = (user.get("auth") or {}).get("accessToken") or {}
    scopes = (token.get("fineGrained") or {}).get("scoped")
    writes = token.get("role") != "read"
    if token.get("role") == "fineGrained" and scopes is not None:
        names = {namespace.lower(), repo_id.lower()}
        writes = any(
            scope.get("entity", {}).get("name", "").lower() in names and _WRITES & set(scope.get("permissions", []))
            for scope in scopes
        )
    if not writes:
        raise UserError(
            f"{what}: the token lacks the right to write there; make one that has it (huggingface.co/settings/tokens), "
            "then `hf auth login`, or set HF_TOKEN"
        )


def _check_repository(api: HfApi, repo_id: str, public: bool, what: str) -> None:
    """Check the repository, if it exists already."""
    with hub_errors(what):
        try:
            private = bool(api.model_info(repo_id).private)
        except HfHubHTTPError as error:
            if status_of(error) == 404:
                return
            raise
        refuse_public(private, public, what)
        try:
            api.auth_check(repo_id, write=True)
        except HfHubHTTPError as error:
            if status_of(error) in (401, 403):  # else the server does not offer this check
                raise


def refuse_public(private: bool, public: bool, what: str) -> None:
    """Refuse a public repository unless `public` allows it.

    Raises:
        UserError: it is public.
    """
    if not private and not public:
        raise UserError(
            f"{what}: is public; make it private in its settings, or allow it (ser-mtl publish --public; in a "
            "training, --no_hub_private_repo)"
        )
