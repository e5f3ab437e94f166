"""A Hub on the loopback interface: enough of its protocol to publish a model and load it back.

    with HubServer() as hub:
        subprocess.run([...], env=os.environ | hub.environment(tmp_path))
        assert "model.safetensors" in hub.files("someone/model")
        hub.assert_no_secret_travelled()

It speaks to the real huggingface_hub: repositories with branches and pull requests, regular and LFS
uploads, downloads by branch or commit; Spaces, whose ids begin with ``spaces/`` here. Writing needs the
bearer token :attr:`HubServer.token`.
Everything that arrives is kept in :attr:`HubServer.requests`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import yaml

TOKEN = "hf_" + "loopback" * 4
SECRET = re.compile(rb"hf_[A-Za-z0-9]{20,}")
LFS_THRESHOLD = 10_000_000


@dataclass
class Request:
    """One request as it arrived; ``status`` is what it was answered with, 0 for a dropped connection."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @property
    def token(self) -> str | None:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme == "Bearer" else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Ends a request with the headers by which the Hub names an error."""

    def __init__(self, status: int, code: str | None = None, message: str | None = None) -> None:
        super().__init__(status, code, message)
        self.answer = _json({"error": message or code or "refused"}, status)
        self.answer.headers |= {"X-Error-Code": code} if code else {}
        self.answer.headers |= {"X-Error-Message": message} if message else {}


@dataclass
class Repository:
    name: str
    private: bool
    refs: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)

    def commit(self, ref: str, files: dict[str, bytes], message: str) -> str:
        sha = hashlib.sha1(f"{self.name} {len(self.commits)} {message}".encode()).hexdigest()
        self.refs[ref], self.commits[sha], self.messages[sha] = sha, files, message
        return sha

    def sha(self, revision: str) -> str:
        sha = self.refs.get(revision, revision)
        if sha not in self.commits:
            raise Refused(404, "RevisionNotFound")
        return sha

    @property
    def pull_requests(self) -> list[str]:
        return [ref for ref in self.refs if ref.startswith("refs/pr/")]


@dataclass
class Fault:
    pattern: re.Pattern[str]
    status: int | None
    code: str | None
    times: int


class HubServer:
    """The server; use it as a context manager. ``repos`` maps ids to :class:`Repository`."""

    user = "someone"
    token = TOKEN

    def __init__(self) -> None:
        self.repos: dict[str, Repository] = {}
        self.requests: list[Request] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._http.shutdown()
        self._http.server_close()

    # What tests arrange

    def environment(self, home: Path) -> dict[str, str]:
        """Variables that point a process of its own, not yet started, to this Hub."""
        return {
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_OFFLINE": "0",
            "TRANSFORMERS_OFFLINE": "0",
        }

    def use(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        """Point this very process to this Hub; huggingface_hub read its variables when it was imported."""
        from huggingface_hub import constants

        template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(home / "stored_tokens"))
        monkeypatch.setenv("HF_TOKEN", self.token)

    def fail_next(self, path: str, status: int, code: str | None = None, times: int = 1) -> None:
        """Answer the next requests whose ``METHOD path`` matches with an error, without acting on them."""
        self._faults.append(Fault(re.compile(path), status, code, times))

    def drop_next(self, path: str, times: int = 1) -> None:
        """Act on the next requests whose ``METHOD path`` matches, then hang up instead of answering."""
        self._faults.append(Fault(re.compile(path), None, None, times))

    # What tests ask

    def files(self, repo_id: str, revision: str = "main") -> dict[str, bytes]:
        repo = self.repos[repo_id]
        return repo.commits[repo.sha(revision)]

    def received(self, path: str) -> list[Request]:
        """The requests whose ``METHOD path`` matches, oldest first."""
        return [request for request in self.requests if re.search(path, f"{request.method} {request.path}")]

    def assert_no_secret_travelled(self, *private: str) -> None:
        """No Hub token, and none of the given texts, in anything that arrived but the Authorization header."""
        forbidden = re.compile(b"|".join([SECRET.pattern, *(re.escape(text.encode()) for text in private)]))
        for where, data in self._everything():
            found = forbidden.search(data)
            assert found is None, f"{found[0]!r} travelled in {where}"

    def _everything(self) -> Iterator[tuple[str, bytes]]:
        for request in self.requests:
            where = f"{request.method} {request.path}"
            headers = {name: value for name, value in request.headers.items() if name != "authorization"}
            yield where, f"{request.path} {request.query} {headers}".encode()
            yield where, request.body
            yield from ((where, sample) for sample in _samples(request))
        for repo in self.repos.values():
            yield from ((f"large file of {repo.name}", data) for data in repo.large.values())
            for files in repo.commits.values():
                yield from ((f"{repo.name}/{name}", data) for name, data in files.items())

    # How requests are answered

    def handle(self, request: Request) -> Answer | None:
        """The answer, or None to hang up."""
        with self._lock:
            self.requests.append(request)
            fault = self._fault(request)
            try:
                if fault and fault.status:
                    raise Refused(fault.status, fault.code)
                answer = self._route(request)
            except Refused as refusal:
                answer = refusal.answer
            if fault and not fault.status:
                return None
            request.status = answer.status
            return answer

    def _fault(self, request: Request) -> Fault | None:
        for fault in self._faults:
            if fault.times and fault.pattern.search(f"{request.method} {request.path}"):
                fault.times -= 1
                return fault
        return None

    def _route(self, request: Request) -> Answer:
        for pattern, handler in _ROUTES:
            if match := pattern.fullmatch(f"{request.method} {request.path}"):
                arguments = {name: unquote(value or "") for name, value in match.groupdict().items()}
                return handler(self, request, **arguments)
        raise Refused(404, message=f"the loopback Hub has no {request.method} {request.path}")

    def _must_be_user(self, request: Request) -> None:
        if request.token != self.token:
            raise Refused(401, message="Invalid credentials in Authorization header")

    def _readable(self, request: Request, repo: str) -> Repository:
        found = self.repos.get(repo)
        if found is None or (found.private and request.token != self.token):
            raise Refused(404 if request.token else 401, "RepoNotFound", "Repository not found")
        return found

    def _writable(self, request: Request, repo: str) -> Repository:
        self._must_be_user(request)
        return self._readable(request, repo)

    def whoami(self, request: Request) -> Answer:
        self._must_be_user(request)
        return _json({"type": "user", "name": self.user, "orgs": [], "auth": {"type": "access_token"}})

    def create_repo(self, request: Request) -> Answer:
        self._must_be_user(request)
        namespace = request.json.get("organization") or self.user
        place = "spaces/" if request.json.get("type") == "space" else ""
        name = f"{place}{namespace}/{request.json['name']}"
        url = f"{self.endpoint}/{name}"
        if name in self.repos:
            return _json({"error": "You already created this model repo", "url": url}, 409)
        if namespace != self.user:
            raise Refused(403, message=f"You don't have the rights to create a model under the namespace {namespace}")
        self.repos[name] = Repository(name, private=request.json.get("visibility") == "private")
        self.repos[name].commit("main", {}, "initial commit")
        return _json({"url": url, "name": name.removeprefix("spaces/")})

    def validate_yaml(self, request: Request) -> Answer:
        front_matter = re.match(r"---\n(.*?)\n---\n", request.json["content"], re.DOTALL)
        try:
            valid = front_matter is None or isinstance(yaml.safe_load(front_matter[1]), dict)
        except yaml.YAMLError:
            valid = False
        errors = [] if valid else [{"message": "bad indentation of a mapping entry"}]
        return _json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, request: Request, repo: str, revision: str) -> Answer:
        found = self._writable(request, repo)
        files = found.commits[found.sha(revision)]
        return _json({"files": [_upload_mode(file, files.get(file["path"])) for file in request.json["files"]]})

    def lfs_batch(self, request: Request, repo: str) -> Answer:
        large = self._writable(request, repo).large
        objects = [
            item if item["oid"] in large else {**item, "actions": {"upload": {"href": self._upload_url(repo, item)}}}
            for item in request.json["objects"]
        ]
        return _json({"transfer": "basic", "objects": objects})

    def _upload_url(self, repo: str, item: dict[str, Any]) -> str:
        return f"{self.endpoint}/lfs-storage/{repo}/{item['oid']}?signature=loopback"

    def lfs_put(self, request: Request, repo: str, oid: str) -> Answer:
        if request.query.get("signature") != ["loopback"] or hashlib.sha256(request.body).hexdigest() != oid:
            raise Refused(403, message="bad signature or content")
        self.repos[repo].large[oid] = request.body
        return Answer()

    def commit(self, request: Request, repo: str, revision: str) -> Answer:
        found = self._writable(request, repo)
        files, pull_request = dict(found.commits[found.sha(revision)]), None
        header, *operations = [json.loads(line) for line in request.body.splitlines()]
        for operation in operations:
            _apply(operation["key"], operation["value"], files, found.large)
        if request.query.get("create_pr") == ["1"]:
            number = len(found.pull_requests) + 1
            revision, pull_request = f"refs/pr/{number}", f"{self.endpoint}/{repo}/discussions/{number}"
        sha = found.commit(revision, files, header["value"]["summary"])
        url = f"{self.endpoint}/{repo}/commit/{sha}"
        return _json({"success": True, "commitUrl": url, "commitOid": sha, "pullRequestUrl": pull_request})

    def create_branch(self, request: Request, repo: str, revision: str) -> Answer:
        found = self._writable(request, repo)
        if revision.startswith("refs/"):
            raise Refused(400, message=f"Invalid reference for a branch: {revision}")
        if revision in found.refs:
            raise Refused(409, message="Reference already exists")
        found.refs[revision] = found.sha(request.json.get("startingPoint", "main"))
        return _json({})

    def refs(self, request: Request, repo: str) -> Answer:
        refs = self._readable(request, repo).refs.items()
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": s} for n, s in refs if "/pr/" not in n]
        return _json({"branches": branches, "converts": [], "tags": []})

    def info(self, request: Request, repo: str, revision: str = "main") -> Answer:
        found = self._readable(request, repo)
        sha = found.sha(revision)
        siblings = [{"rfilename": name} for name in sorted(found.commits[sha])]
        about = {"id": repo, "modelId": repo, "sha": sha, "private": found.private, "tags": [], "downloads": 0}
        return _json({**about, "siblings": siblings})

    def tree(self, request: Request, repo: str, revision: str, folder: str = "") -> Answer:
        found = self._readable(request, repo)
        files = found.commits[found.sha(revision)]
        inside = {name: data for name, data in files.items() if not folder or name.startswith(folder + "/")}
        if folder and not inside:
            raise Refused(404, "EntryNotFound", "Entry not found")
        return _json([_tree_entry(name, data) for name, data in sorted(inside.items())])

    def resolve(self, request: Request, repo: str, revision: str, name: str) -> Answer:
        found = self._readable(request, repo)
        sha = found.sha(revision)
        if name not in found.commits[sha]:
            refusal = Refused(404, "EntryNotFound", "Entry not found")
            refusal.answer.headers["X-Repo-Commit"] = sha
            raise refusal
        data = found.commits[sha][name]
        return Answer(data, headers={"X-Repo-Commit": sha, "ETag": f'"{_oid(name, data)}"'})


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_SPACE = r"(?P<repo>spaces/[^/]+/[^/]+)"
_REVISION = r"(?P<revision>[^/]+)"
_HANDLERS: dict[str, Callable[..., Answer]] = {
    r"GET /api/whoami-v2": HubServer.whoami,
    r"POST /api/repos/create": HubServer.create_repo,
    r"POST /api/validate-yaml": HubServer.validate_yaml,
    rf"POST /api/models/{_REPO}/preupload/{_REVISION}": HubServer.preupload,
    rf"POST /{_REPO}\.git/info/lfs/objects/batch": HubServer.lfs_batch,
    rf"PUT /lfs-storage/{_REPO}/(?P<oid>[0-9a-f]+)": HubServer.lfs_put,
    rf"POST /api/models/{_REPO}/commit/{_REVISION}": HubServer.commit,
    rf"POST /api/models/{_REPO}/branch/{_REVISION}": HubServer.create_branch,
    rf"GET /api/models/{_REPO}/refs": HubServer.refs,
    rf"GET /api/models/{_REPO}": HubServer.info,
    rf"GET /api/models/{_REPO}/revision/{_REVISION}": HubServer.info,
    rf"GET /api/models/{_REPO}/tree/{_REVISION}(?:/(?P<folder>.+))?": HubServer.tree,
    rf"POST /api/{_SPACE}/preupload/{_REVISION}": HubServer.preupload,
    rf"POST /api/{_SPACE}/commit/{_REVISION}": HubServer.commit,
    rf"GET /api/{_SPACE}": HubServer.info,
    rf"GET /api/{_SPACE}/revision/{_REVISION}": HubServer.info,
    rf"(?:GET|HEAD) /{_REPO}/resolve/{_REVISION}/(?P<name>.+)": HubServer.resolve,
}
_ROUTES = [(re.compile(pattern), handler) for pattern, handler in _HANDLERS.items()]


def _json(value: Any, status: int = 200) -> Answer:
    return Answer(json.dumps(value).encode(), status, {"Content-Type": "application/json"})


def _is_large(name: str, size: int) -> bool:
    return name.endswith(".safetensors") or size > LFS_THRESHOLD


def _oid(name: str, data: bytes) -> str:
    if _is_large(name, len(data)):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _upload_mode(file: dict[str, Any], present: bytes | None) -> dict[str, Any]:
    mode = "lfs" if _is_large(file["path"], file["size"]) else "regular"
    oid = None if present is None else _oid(file["path"], present)
    return {"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid}


def _apply(key: str, value: dict[str, Any], files: dict[str, bytes], large: dict[str, bytes]) -> None:
    if key == "file":
        files[value["path"]] = base64.b64decode(value["content"])
    elif key == "lfsFile":
        if value["oid"] not in large:
            raise Refused(400, message=f"{value['path']}: its content was not uploaded")
        files[value["path"]] = large[value["oid"]]
    elif key == "deletedFile":
        del files[value["path"]]
    else:
        raise Refused(400, message=f"the loopback Hub has no operation {key}")


def _tree_entry(name: str, data: bytes) -> dict[str, Any]:
    oid = _oid(name, data)
    entry = {"type": "file", "path": name, "size": len(data), "oid": oid}
    lfs = {"oid": oid, "size": len(data), "pointerSize": 134}
    return {**entry, "lfs": lfs} if _is_large(name, len(data)) else entry


def _samples(request: Request) -> Iterator[bytes]:
    """What a request carries in base64: the first bytes of files before, whole files within a commit."""
    with suppress(ValueError, UnicodeDecodeError):
        for encoded in re.findall(r'"(?:sample|content)": ?"([A-Za-z0-9+/=]*)"', request.body.decode()):
            yield base64.b64decode(encoded)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else every answer waits for the client's delayed acknowledgement
    hub: HubServer

    def _serve(self) -> None:
        url = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, url.path, parse_qs(url.query), headers, self._body())
        answer = self.hub.handle(request)
        if answer is None:
            self.close_connection = True
            return
        self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _send(self, answer: Answer) -> None:
        self.send_response(answer.status)
        for name, value in {**answer.headers, "Content-Length": str(len(answer.body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are kept, not printed."""
