"""A small Hub on loopback for the tests: the calls that publish and load models, over real HTTP.

Like the real ones, the Hub and its storage of large files are two servers. Repositories are in memory: branches,
commits and files. Readers without access get the answers of the Hub: 401 without a token, 404 with one. `fail` makes
the next matching requests fail.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

SECRET = "signature-of-this-upload"
"""In the addresses of the storage, as on the Hub."""

LARGE = (".safetensors", ".png")
"""Files for the storage: on the Hub, those in `.gitattributes` and binary ones."""


@dataclass(frozen=True)
class File:
    """A file of one commit."""

    content: bytes
    large: bool

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def oid(self) -> str:
        """Its id in git, which sees only the pointer of a large file."""
        seen = self.content
        if self.large:
            seen = f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {len(seen)}\n".encode()
        return hashlib.sha1(b"blob %d\0" % len(seen) + seen).hexdigest()

    def entry(self, path: str) -> dict:
        entry = {"type": "file", "path": path, "oid": self.oid, "size": len(self.content)}
        lfs = {"oid": self.sha256, "size": len(self.content), "pointerSize": 130}
        return entry | ({"lfs": lfs} if self.large else {})


@dataclass
class Repository:
    """Commits by id, and the commit of each branch."""

    private: bool
    commits: dict[str, dict[str, File]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    titles: list[str] = field(default_factory=list)

    def commit(self, branch: str, title: str, files: dict[str, File]) -> str:
        state = [sorted((path, file.oid) for path, file in files.items()), title, len(self.commits)]
        oid = hashlib.sha1(json.dumps(state).encode()).hexdigest()
        self.commits[oid] = files
        self.branches[branch] = oid
        self.titles.append(title)
        return oid

    @property
    def files(self) -> dict[str, bytes]:
        """The files of `main`."""
        return {path: file.content for path, file in self.commits[self.branches["main"]].items()}


@dataclass
class Fault:
    """The answer to the next `times` matching requests, in place of the usual one."""

    method: str
    path: re.Pattern
    status: int | None
    message: str
    headers: dict[str, str]
    times: int
    before: Callable[[], object] | None


class Refused(Exception):
    """An error, as the answer to a request."""

    def __init__(self, status: int, message: str, code: str | None = None, body: dict | None = None, **headers: str):
        self.status, self.body = status, body or {"error": message}
        self.headers = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {}) | headers


class HubServer:
    """A Hub and its storage, each on its own port.

    Attributes:
        tokens: user name by token.
        roles: what a token may do, by token; "write" by default.
        scopes: of tokens with the role "fineGrained".
        organisations: role by name of the organisation, by user name.
        datasets: whether a data set is private, by its id.
        repositories: by "namespace/name".
        requests: "METHOD path" of every request, in order.
    """

    def __init__(self):
        self.tokens: dict[str, str] = {}
        self.roles: dict[str, str] = {}
        self.scopes: dict[str, list[dict]] = {}
        self.organisations: dict[str, dict[str, str]] = {}
        self.datasets: dict[str, bool] = {}
        self.repositories: dict[str, Repository] = {}
        self.stored: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.hub, self.storage = (ThreadingHTTPServer(("127.0.0.1", 0), _handler(self)) for _ in range(2))
        # By another name: some versions of the client tell two servers apart by their names alone.
        self.url = f"http://127.0.0.1:{self.hub.server_address[1]}"
        self.storage_url = f"http://localhost:{self.storage.server_address[1]}"
        for server in (self.hub, self.storage):
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()

    def clear(self) -> None:
        """Forget all repositories, requests and faults."""
        kept = (self.repositories, self.stored, self.requests, self.faults)
        for state in (*kept, self.roles, self.scopes, self.organisations, self.datasets):
            state.clear()

    def fail(
        self,
        method: str,
        path: str,
        status: int | None,
        message: str = "made to fail",
        times: int = 1,
        before: Callable[[], object] | None = None,
        **headers: str,
    ) -> None:
        """Answer the next requests to `path` (a regular expression) with `status`.

        Args:
            method: of HTTP.
            path: searched for in the request's path.
            status: None cuts the connection in the middle of the body; 0 answers as usual, after `before`.
            message: of the error.
            times: how many requests.
            before: called first.
            **headers: of the answer, `_` for `-`.
        """
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(method, re.compile(path), status, message, named, times, before))

    def fault_of(self, method: str, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path.search(path):
                    fault.times -= 1
                    return fault
        return None


def _handler(hub: HubServer) -> type[BaseHTTPRequestHandler]:
    return type("Handler", (_Handler,), {"world": hub})


class _Handler(BaseHTTPRequestHandler):
    world: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def handle_any(self) -> None:
        self.url = urlsplit(self.path)
        self.world.requests.append(f"{self.command} {self.url.path}")
        fault = self.world.fault_of(self.command, self.url.path)
        if fault is not None and fault.status is None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            self.close_connection = True
            return
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if fault is not None and fault.before is not None:
            fault.before()
        try:
            with self.world.lock:
                if fault is not None and fault.status:
                    raise Refused(fault.status, fault.message, **fault.headers)
                self.route()
        except Refused as refused:
            self.answer(refused.status, refused.body, **refused.headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_any

    def route(self) -> None:
        for method, pattern, call in _ROUTES:
            found = re.fullmatch(pattern, self.url.path)
            if method == self.command and found:
                return call(self, **{name: unquote(value) for name, value in found.groupdict().items()})
        raise Refused(404, f"no such call: {self.command} {self.url.path}")

    def answer(self, status: int, body: dict | list | bytes = b"", **headers: str) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        length = headers.pop("Content-Length", str(len(content)))
        for name, value in {**headers, "Content-Length": length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # ------------------------------------------------------------------------------------------ access

    @property
    def user(self) -> str | None:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.world.tokens:
            raise Refused(401, "Invalid credentials in Authorization header")
        return self.world.tokens.get(given)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def role_in(self, namespace: str) -> str | None:
        """What the user may do with the repositories there: admin, write, read, or None."""
        if self.user is None:
            return None
        return "admin" if namespace == self.user else self.world.organisations.get(self.user, {}).get(namespace)

    def may_write(self, namespace: str) -> bool:
        role = self.world.roles.get(self.token, "write")
        if role == "fineGrained":
            scopes = self.world.scopes[self.token]
            return any(one["entity"]["name"] == namespace and "repo.write" in one["permissions"] for one in scopes)
        return role == "write" and self.role_in(namespace) in ("admin", "write")

    def repository(self, repo_id: str, write: bool = False) -> Repository:
        repository = self.world.repositories.get(repo_id)
        namespace = repo_id.split("/")[0]
        if repository is None or (repository.private and self.role_in(namespace) is None):
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write and not self.may_write(namespace):
            raise Refused(403, "You have no right to write to this repository")
        return repository

    def commit_of(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    # ------------------------------------------------------------------------------------------------- calls

    def whoami(self) -> None:
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        role = self.world.roles.get(self.token, "write")
        token = {"role": role, "displayName": "test"}
        if role == "fineGrained":
            token["fineGrained"] = {"global": [], "scoped": self.world.scopes[self.token]}
        orgs = [{"name": name, "roleInOrg": r} for name, r in self.world.organisations.get(self.user, {}).items()]
        self.answer(200, {"name": self.user, "type": "user", "orgs": orgs, "auth": {"accessToken": token}})

    def create(self) -> None:
        asked = json.loads(self.body)
        if self.user is None:
            raise Refused(401, "Invalid username or password.")
        namespace = asked.get("organization") or self.user
        if not self.may_write(namespace):
            raise Refused(403, "You don't have the rights to create a model under this namespace")
        repo_id = f"{namespace}/{asked['name']}"
        url = f"{self.world.url}/{repo_id}"
        if repo_id in self.world.repositories:
            raise Refused(409, "already there", body={"error": "You already created this model repo", "url": url})
        # Clients before huggingface_hub 2 send `private`.
        private = asked.get("visibility") == "private" or asked.get("private", False)
        repository = self.world.repositories[repo_id] = Repository(private)
        repository.commit("main", "initial commit", {".gitattributes": File(b"*.safetensors filter=lfs\n", False)})
        self.answer(200, {"url": url})

    def settings(self, repo_id: str) -> None:
        self.repository(repo_id, write=True).private = json.loads(self.body)["visibility"] == "private"
        self.answer(200, {})

    def validate(self) -> None:
        found = re.match(r"---\n(.*?)\n---\n", json.loads(self.body)["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(found.group(1)) if found else None
        except yaml.YAMLError as error:
            raise Refused(400, "bad card", body={"errors": [{"message": str(error)}]}) from error
        warned = [] if metadata else [{"message": "empty or missing yaml metadata in repo card"}]
        self.answer(200, {"errors": [], "warnings": warned})

    def preupload(self, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_id, write=True)
        there = repository.commits[self.commit_of(repository, revision)]
        answers = []
        for asked in json.loads(self.body)["files"]:
            path, large = asked["path"], asked["path"].endswith(LARGE)
            entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in there:
                entry["oid"] = there[path].sha256 if large else there[path].oid
            answers.append(entry)
        self.answer(200, {"files": answers})

    def lfs_batch(self, repo_id: str) -> None:
        self.repository(repo_id, write=True)
        objects = []
        for asked in json.loads(self.body)["objects"]:
            href = f"{self.world.storage_url}/{asked['oid']}?X-Amz-Signature={SECRET}"
            new = asked["oid"] not in self.world.stored
            objects.append(asked | ({"actions": {"upload": {"href": href}}} if new else {}))
        self.answer(200, {"transfer": "basic", "objects": objects})

    def put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise Refused(400, "the content is not what its name says")
        self.world.stored[oid] = self.body
        self.answer(200)

    def commit(self, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_id, write=True)
        parent = self.commit_of(repository, revision)
        files = dict(repository.commits[parent])
        title = ""
        for line in self.body.splitlines():
            key, value = (record := json.loads(line))["key"], record["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, parent):
                    raise Refused(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = File(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.world.stored:
                    raise Refused(400, f"{value['path']}: its content was never uploaded")
                files[value["path"]] = File(self.world.stored[value["oid"]], True)
            elif key == "deletedFile":
                del files[value["path"]]
        oid = repository.commit(revision, title, files)
        self.answer(200, {"commitOid": oid, "commitUrl": f"{self.world.url}/{repo_id}/commit/{oid}"})

    def info(self, repo_id: str, revision: str = "main") -> None:
        repository = self.repository(repo_id)
        commit = self.commit_of(repository, revision)
        siblings = [{"rfilename": path} for path in sorted(repository.commits[commit])]
        about = {"id": repo_id, "sha": commit, "private": repository.private, "gated": False, "siblings": siblings}
        self.answer(200, about | {"tags": [], "disabled": False})

    def auth_check(self, repo_id: str) -> None:
        self.repository(repo_id)
        self.answer(200, {})

    def auth_check_write(self, repo_id: str) -> None:
        self.repository(repo_id, write=True)
        self.answer(200, {})

    def models(self) -> None:
        """Adapters on the base that the filter names, the only one that is asked for."""
        base = parse_qs(self.url.query)["filter"][0].removeprefix("base_model:adapter:")
        found = []
        for repo_id, repository in self.world.repositories.items():
            card = repository.files.get("README.md", b"").decode()
            visible = not repository.private or self.role_in(repo_id.split("/")[0])
            if visible and f"base_model: {base}\n" in card and "base_model_relation: adapter\n" in card:
                found.append(
                    {"id": repo_id, "sha": repository.branches["main"], "private": repository.private, "tags": []}
                )
        self.answer(200, found)

    def dataset(self, repo_id: str) -> None:
        if repo_id not in self.world.datasets:
            raise Refused(404 if self.user else 401, "Repository not found", "RepoNotFound")
        about = {"id": repo_id, "sha": 40 * "0", "private": self.world.datasets[repo_id], "gated": False}
        self.answer(200, about | {"tags": [], "disabled": False, "downloads": 0, "likes": 0, "siblings": []})

    def tree(self, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_id)
        files = repository.commits[self.commit_of(repository, revision)]
        self.answer(200, [file.entry(path) for path, file in sorted(files.items())])

    def paths_info(self, repo_id: str, revision: str) -> None:
        repository = self.repository(repo_id)
        files = repository.commits[self.commit_of(repository, revision)]
        body = self.body.decode()
        asked = json.loads(body)["paths"] if body.startswith("{") else parse_qs(body)["paths"]
        self.answer(200, [files[path].entry(path) for path in asked if path in files])

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        repository = self.repository(repo_id)
        commit = self.commit_of(repository, revision)
        file = repository.commits[commit].get(path)
        if file is None:
            raise Refused(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit})
        if not file.large:
            self.answer(200, file.content, ETag=f'"{file.oid}"', **{"X-Repo-Commit": commit})
            return
        linked = {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(len(file.content)), "X-Repo-Commit": commit}
        self.answer(302, Location=f"{self.world.storage_url}/{file.sha256}", **linked)

    def download(self, oid: str) -> None:
        content = self.world.stored.get(oid)
        if content is None:
            raise Refused(404, "no such object")
        self.answer(200, content, ETag=f'"{oid}"')


_ID = r"(?P<repo_id>[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_ROUTES = [
    ("GET", "/api/whoami-v2", _Handler.whoami),
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("PUT", f"/api/models/{_ID}/settings", _Handler.settings),
    ("POST", f"/api/models/{_ID}/preupload/{_REVISION}", _Handler.preupload),
    ("POST", f"/{_ID}.git/info/lfs/objects/batch", _Handler.lfs_batch),
    ("POST", f"/api/models/{_ID}/commit/{_REVISION}", _Handler.commit),
    ("GET", "/api/models", _Handler.models),
    ("GET", f"/api/models/{_ID}", _Handler.info),
    ("GET", f"/api/models/{_ID}/auth-check", _Handler.auth_check),
    ("GET", f"/api/models/{_ID}/auth-check/write", _Handler.auth_check_write),
    ("GET", f"/api/datasets/{_ID}", _Handler.dataset),
    ("GET", f"/api/models/{_ID}/revision/{_REVISION}", _Handler.info),
    ("GET", f"/api/models/{_ID}/tree/{_REVISION}", _Handler.tree),
    ("POST", f"/api/models/{_ID}/paths-info/{_REVISION}", _Handler.paths_info),
    ("GET", f"/{_ID}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
    ("HEAD", f"/{_ID}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
    ("PUT", "/(?P<oid>[0-9a-f]{64})", _Handler.put),
    ("GET", "/(?P<oid>[0-9a-f]{64})", _Handler.download),
]
