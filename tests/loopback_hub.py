"""A Hub on this machine: enough of its HTTP protocol for unmodified clients to push and pull.

    hub = LoopbackHub([User("me", "hf_me")]).start()
    ... run a script with HF_ENDPOINT=hub.endpoint ...
    hub.stop()

Files go through LFS to a storage host of another name (127.0.0.2), which notes every request that
carries a Hub token; or, with HF_HUB_DISABLE_XET unset, through Xet into a folder. `fail` makes
requests go wrong. Every request is in `log`.
"""

import base64
import hashlib
import json
import re
import socket
import struct
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml
from patience import PATIENCE

LARGE = re.compile(r".*\.(parquet|safetensors|bin|png|pt|pth)")  # by LFS or Xet, not in git
DAY = datetime(2024, 1, 1, tzinfo=UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def git_oid(data: bytes, kind: str = "blob") -> str:
    """What git calls an object of this content."""
    return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()


@dataclass(frozen=True)
class User:
    """The owner of a token. `roles`: organisation -> read, write, ...; `scopes`: fine-grained."""

    name: str
    token: str
    role: str = "write"
    roles: dict[str, str] = field(default_factory=dict)
    scopes: dict[str, list[str]] = field(default_factory=dict)

    def may_read(self, namespace: str) -> bool:
        return namespace == self.name or namespace in self.roles

    def may_write(self, namespace: str) -> bool:
        if self.role == "fineGrained":
            return "repo.write" in self.scopes.get(namespace, [])
        owns = namespace == self.name or self.roles.get(namespace) in ("write", "admin")
        return self.role == "write" and owns


@dataclass(frozen=True)
class Blob:
    """One file of a commit; a large one has its content's sha256."""

    data: bytes
    sha256: str | None = None

    @property
    def oid(self) -> str:
        return git_oid(self.pointer if self.sha256 else self.data)

    @property
    def pointer(self) -> bytes:
        header = "version https://git-lfs.github.com/spec/v1"
        return f"{header}\noid sha256:{self.sha256}\nsize {len(self.data)}\n".encode()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    tree: dict[str, Blob]


@dataclass
class Repo:
    """Branches hold all their commits, the oldest first."""

    kind: str
    name: str
    private: bool
    branches: dict[str, list[Commit]] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def resolve(self, revision: str) -> Commit:
        if revision in self.branches:
            return self.branches[revision][-1]
        wanted = self.tags.get(revision, revision)
        for commits in self.branches.values():
            for commit in commits:
                if commit.oid == wanted:
                    return commit
        raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")

    def add_commit(self, branch: str, tree: dict[str, Blob], title: str) -> Commit:
        commits = self.branches.setdefault(branch, [])
        content = [self.name, branch, len(commits), title, {p: b.oid for p, b in tree.items()}]
        made = Commit(git_oid(json.dumps(content).encode(), "commit"), title, tree)
        commits.append(made)
        return made


class Refusal(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.code = status, message, code


@dataclass
class Fault:
    """What goes wrong with requests whose "METHOD /path" matches; `times` counts down.

    status None: the connection is dropped, in the middle of the request's body.
    after: the request is carried out first, so that only the answer is lost.
    until: nothing goes wrong, but the request waits for this; once it has come, no request waits.
    """

    pattern: str
    times: int
    status: int | None = None
    after: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    until: threading.Event | None = None


class LoopbackHub:
    """State and two servers: the Hub and its storage host."""

    def __init__(self, users: list[User]) -> None:
        self.users = {user.token: user for user in users}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.objects: dict[str, bytes] = {}  # large files by sha256
        self._xet = tempfile.TemporaryDirectory(prefix="loopback-xet-")  # as long as the hub
        self.xet_folder = Path(self._xet.name)
        self.xet_files: dict[str, tuple[str, int]] = {}  # sha256 -> Xet's hash, size
        self.log: list[str] = []
        self.leaks: list[str] = []
        self.faults: list[Fault] = []
        self.loses = ""  # a file that commits leave out without a word
        self.lock = threading.RLock()
        self.servers: list[ThreadingHTTPServer] = []
        self.ports = (0, 0)

    def start(self) -> "LoopbackHub":
        """Listen; after `stop` at the same addresses, with all that was pushed."""
        hosts = (("127.0.0.1", HubHandler), ("127.0.0.2", StorageHandler))
        for (host, handler), port in zip(hosts, self.ports, strict=True):
            bound = type("Bound", (handler,), {"hub": self})
            server = ThreadingHTTPServer((host, port), bound)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            self.servers.append(server)
        self.ports = (self.servers[0].server_port, self.servers[1].server_port)
        return self

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()
        self.servers = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def storage(self) -> str:
        return f"http://127.0.0.2:{self.ports[1]}"

    def fail(self, pattern: str, status: int | None = None, times: int = 1, **how: Any) -> Fault:
        fault = Fault(pattern, times, status, **how)
        self.faults.append(fault)
        return fault

    def names(self, kind: str) -> list[str]:
        return sorted(name for of, name in self.repos if of == kind)

    def commits(self, kind: str, name: str, branch: str = "main") -> list[str]:
        """Titles, the oldest first."""
        return [commit.title for commit in self.repos[kind, name].branches[branch]]

    def files(self, kind: str, name: str, revision: str = "main") -> dict[str, bytes]:
        tree = self.repos[kind, name].resolve(revision).tree
        return {path: blob.data for path, blob in tree.items()}

    def create(self, kind: str, name: str, private: bool, files: dict[str, bytes]) -> Repo:
        """A repository whose first commit holds these files."""
        repo = self.repos[kind, name] = Repo(kind, name, private)
        repo.add_commit("main", {p: self.blob(p, data) for p, data in files.items()}, "initial")
        return repo

    def blob(self, path: str, data: bytes) -> Blob:
        if not LARGE.fullmatch(path):
            return Blob(data)
        sha256 = hashlib.sha256(data).hexdigest()
        self.objects[sha256] = data
        return Blob(data, sha256)

    def xet_object(self, sha256: str) -> bytes | None:
        """A large file that the client stored by Xet, rebuilt with Xet's own reader.

        The client leaves shards: records of 48 bytes, one header per file (hash, flags, number of
        segments), its segments, and at the end of a file's records its sha256.
        Layout: https://huggingface.co/docs/xet/shard
        """
        for shard in (self.xet_folder / "xet/xorbs/shards").glob("*.mdb"):
            self.xet_files |= _xet_files(shard.read_bytes())
        if sha256 not in self.xet_files:
            return None
        import hf_xet

        info = hf_xet.XetFileInfo(*self.xet_files[sha256])
        with tempfile.TemporaryDirectory() as folder:
            session = hf_xet.XetSession()
            endpoint = f"local://{self.xet_folder}"
            with session.new_file_download_group(endpoint=endpoint) as group:
                group.start_download_file(info, f"{folder}/file")
            return Path(folder, "file").read_bytes()


def _xet_files(shard: bytes) -> dict[str, tuple[str, int]]:
    found, at, record = {}, 48, 48
    while at + record <= len(shard) and shard[at : at + 32] != b"\xff" * 32:
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        sizes = [
            struct.unpack_from("<I", shard, at + record * (i + 1) + 36)[0] for i in range(segments)
        ]
        end = at + record * (1 + segments * (2 if flags >> 31 else 1))
        if flags >> 30 & 1:
            found[_hexadecimal(shard, end)] = (_hexadecimal(shard, at), sum(sizes))
            end += record
        at = end
    return found


def _hexadecimal(shard: bytes, at: int) -> str:
    return "".join(f"{word:016x}" for word in struct.unpack_from("<4Q", shard, at))


class Handler(BaseHTTPRequestHandler):
    """Bodies, faults and answers; `route` is the subclasses'."""

    hub: LoopbackHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms
    wbufsize = -1

    def log_message(self, *args: Any) -> None:
        """Nothing on stderr: `log` has it."""

    def serve(self) -> None:
        fault = self.fault()
        if fault is not None and fault.status is None and not fault.after:
            self.rfile.read(int(self.headers.get("Content-Length") or 0) // 2)
            return self.drop()
        self.raw = self.body()
        try:
            if fault is not None and fault.status is not None:
                return self.reply(fault.status, {"error": "as ordered"}, fault.headers)
            with self.hub.lock:
                self.dropping = fault is not None
                self.route()
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self.reply(refusal.status, {"error": refusal.message}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def route(self) -> None:
        raise NotImplementedError

    def fault(self) -> Fault | None:
        self.dropping = False
        for fault in self.hub.faults:
            if fault.times > 0 and re.search(fault.pattern, f"{self.command} {self.path}"):
                fault.times -= 1
                if fault.until is None:
                    return fault
                fault.until.wait(PATIENCE)
        return None

    def drop(self) -> None:
        self.hub.log.append(f"{self.command} {self.path} dropped")
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def json(self) -> dict[str, Any]:
        return json.loads(self.raw or b"{}")

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.path).query)

    def reply(
        self, status: int, content: bytes | dict | list = b"", headers: dict[str, str] | None = None
    ) -> None:
        if self.dropping:
            return self.drop()
        headers = dict(headers or {})
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json; charset=utf-8"
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        self.hub.log.append(f"{self.command} {self.path} {status}")

    def reply_file(self, data: bytes, headers: dict[str, str]) -> None:
        """Whole, or the range that was asked for."""
        headers = {"Accept-Ranges": "bytes", **headers}
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return self.reply(200, data, headers)
        start, end = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
        headers["Content-Range"] = f"bytes {start}-{end}/{len(data)}"
        self.reply(206, data[start : end + 1], headers)


class StorageHandler(Handler):
    """Where large files lie: another host, which no token may reach."""

    def route(self) -> None:
        if self.headers.get("Authorization"):
            self.hub.leaks.append(f"{self.command} {self.path}")
        sha256 = self.path.rsplit("/", 1)[-1]
        if self.command == "PUT":
            if hashlib.sha256(self.raw).hexdigest() != sha256:
                raise Refusal(400, "the content is not what its name says")
            self.hub.objects[sha256] = self.raw
            return self.reply(200)
        self.reply_file(self.hub.objects[sha256], {"ETag": f'"{sha256}"'})


class HubHandler(Handler):
    """The Hub's own API; the table of routes is at the end of the file."""

    def route(self) -> None:
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        self.user = self.hub.users.get(bearer)
        if bearer and self.user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        path = urlsplit(self.path).path
        for methods, pattern, answer in ROUTES:
            match = pattern.fullmatch(path)
            if match and self.command in methods.split(","):
                return answer(self, **{k: unquote(v or "") for k, v in match.groupdict().items()})
        raise Refusal(404, f"no such page: {self.command} {path}")

    def repo(self, kind: str, name: str, write: bool = False) -> Repo:
        repo = self.hub.repos.get((kind, name))
        namespace = name.split("/")[0]
        may_read = self.user is not None and self.user.may_read(namespace)
        if repo is None or (repo.private and not may_read):
            status = 404 if self.user else 401
            raise Refusal(status, "Repository not found", "RepoNotFound")
        if write and not (self.user and self.user.may_write(namespace)):
            raise Refusal(403, f"Forbidden: this token may not write to {namespace}")
        return repo

    def whoami(self) -> None:
        user = self.user
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        token: dict[str, Any] = {"displayName": "token", "role": user.role}
        if user.role == "fineGrained":
            scopes = [
                {"entity": {"type": "user", "name": namespace}, "permissions": permissions}
                for namespace, permissions in user.scopes.items()
            ]
            token["fineGrained"] = {"global": [], "scoped": scopes}
        orgs = [{"name": org, "roleInOrg": role} for org, role in user.roles.items()]
        auth = {"type": "access_token", "accessToken": token}
        self.reply(200, {"type": "user", "name": user.name, "orgs": orgs, "auth": auth})

    def create_repo(self) -> None:
        wanted = self.json()
        kind = wanted.get("type", "model") + "s"
        owner = wanted.get("organization") or (self.user.name if self.user else "")
        name = f"{owner}/{wanted['name']}"
        if self.user is None or not self.user.may_write(owner):
            raise Refusal(403, f"You don't have the rights to create a {kind[:-1]} under {owner}")
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{name}"
        if (kind, name) in self.hub.repos:
            return self.reply(409, {"error": "You already created this repo", "url": url})
        private = wanted.get("visibility") == "private"
        self.hub.create(kind, name, private, {".gitattributes": b"*.parquet filter=lfs\n"})
        self.reply(200, {"url": url, "name": name})

    def validate_yaml(self) -> None:
        """As the Hub does it: errors are 400, a card without metadata is a warning."""
        block = re.match(r"---\n(.*?)\n---", self.json()["content"], re.DOTALL)
        try:
            metadata = yaml.safe_load(block[1]) if block else None
        except yaml.YAMLError as error:
            return self.reply(400, {"errors": [{"message": str(error)}], "warnings": []})
        warnings = [] if metadata else [{"message": "empty or missing yaml metadata"}]
        self.reply(200, {"errors": [], "warnings": warnings})

    def info(self, kind: str, name: str, revision: str = "") -> None:
        repo = self.repo(kind, name)
        commit = repo.resolve(revision or "main")
        self.reply(
            200,
            {
                "id": name,
                "sha": commit.oid,
                "private": repo.private,
                "gated": False,
                "disabled": False,
                "downloads": 0,
                "likes": 0,
                "tags": [],
                "lastModified": DAY,
                "createdAt": DAY,
                "siblings": [{"rfilename": path} for path in sorted(commit.tree)],
            },
        )

    def refs(self, kind: str, name: str) -> None:
        repo = self.repo(kind, name)
        branches = {branch: commits[-1].oid for branch, commits in repo.branches.items()}
        self.reply(
            200,
            {
                "branches": [
                    {"name": n, "ref": f"refs/heads/{n}", "targetCommit": oid}
                    for n, oid in branches.items()
                ],
                "tags": [
                    {"name": n, "ref": f"refs/tags/{n}", "targetCommit": oid}
                    for n, oid in repo.tags.items()
                ],
                "converts": [],
            },
        )

    def tag(self, kind: str, name: str, revision: str) -> None:
        """POST: the revision is in the path, the tag in the body. DELETE: the tag in the path."""
        repo = self.repo(kind, name, write=True)
        if self.command == "DELETE":
            del repo.tags[revision]
            return self.reply(200, b"OK")
        tag = self.json()["tag"]
        if tag in repo.tags:
            raise Refusal(409, f"Tag reference exists already: {tag}")
        repo.tags[tag] = repo.resolve(revision).oid
        self.reply(200, b"OK")

    def branch(self, kind: str, name: str, branch: str) -> None:
        repo = self.repo(kind, name, write=True)
        if self.command == "DELETE":
            del repo.branches[branch]
            return self.reply(200, b"OK")
        if branch in repo.branches:
            raise Refusal(409, f"Reference refs/heads/{branch} already exists")
        repo.branches[branch] = list(repo.branches["main"])
        self.reply(200, b"OK")

    def tree(self, kind: str, name: str, revision: str, path: str = "") -> None:
        commit = self.repo(kind, name).resolve(revision)
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        prefix = f"{path.strip('/')}/" if path.strip("/") else ""
        inside = [p for p in sorted(commit.tree) if p.startswith(prefix)]
        if prefix and not inside:
            raise Refusal(404, f"{path} does not exist", "EntryNotFound")
        files = [p for p in inside if recursive or "/" not in p[len(prefix) :]]
        folders = {
            prefix + "/".join(parts[:depth])
            for p in inside
            for parts in [p[len(prefix) :].split("/")]
            for depth in range(1, len(parts) if recursive else min(len(parts), 2))
        }
        listed = [_folder_entry(p) for p in folders] + [_entry(p, commit.tree[p]) for p in files]
        self.reply(200, sorted(listed, key=lambda entry: entry["path"]))

    def paths_info(self, kind: str, name: str, revision: str) -> None:
        tree = self.repo(kind, name).resolve(revision).tree
        is_json = "json" in self.headers.get("Content-Type", "")
        form = parse_qs(self.raw.decode()) if not is_json else self.json()
        paths = [path.strip("/") for path in form.get("paths", [])]
        files = [_entry(path, tree[path]) for path in paths if path in tree]
        folders = [
            _folder_entry(path) for path in paths if any(p.startswith(f"{path}/") for p in tree)
        ]
        self.reply(200, files + folders)

    def resolve(self, prefix: str, name: str, revision: str, path: str) -> None:
        kind = prefix.rstrip("/") or "models"
        commit = self.repo(kind, name).resolve(revision)
        headers = {"X-Repo-Commit": commit.oid}
        blob = commit.tree.get(path)
        if blob is None:
            headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
            return self.reply(404, b"Entry not found", headers)
        if blob.sha256 is None:
            return self.reply_file(blob.data, headers | {"ETag": f'"{blob.oid}"'})
        if blob.sha256 in self.hub.xet_files:
            token_url = f"{self.hub.endpoint}/api/{kind}/{name}/xet-read-token/{commit.oid}"
            headers["X-Xet-Hash"] = self.hub.xet_files[blob.sha256][0]
            headers["Link"] = f'<{token_url}>; rel="xet-auth"'
        headers["X-Linked-Etag"] = f'"{blob.sha256}"'
        headers["X-Linked-Size"] = str(len(blob.data))
        self.reply(302, b"", headers | {"Location": f"{self.hub.storage}/lfs/{blob.sha256}"})

    def preupload(self, kind: str, name: str, revision: str) -> None:
        tree = self.repo(kind, name, write=True).resolve(revision).tree
        answers = []
        for wanted in self.json()["files"]:
            path = wanted["path"]
            there = tree.get(path)
            mode = "lfs" if LARGE.fullmatch(path) else "regular"
            oid = (there.sha256 or there.oid) if there else None
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.reply(200, {"files": answers})

    def lfs_batch(self, prefix: str, name: str) -> None:
        self.repo(prefix.rstrip("/") or "models", name, write=True)
        objects = []
        for wanted in self.json()["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                upload = {"href": f"{self.hub.storage}/lfs/{wanted['oid']}"}
                answer["actions"] = {"upload": upload}
            objects.append(answer)
        self.reply(200, {"transfer": "basic", "objects": objects})

    def xet_token(self, kind: str, name: str, mode: str, revision: str) -> None:
        """Sends the client's Xet library to a folder instead of a server."""
        self.repo(kind, name, write=mode == "write")
        url, expiry = f"local://{self.hub.xet_folder}", str(2**32)
        self.reply(
            200,
            {"accessToken": "xet", "exp": 2**32, "casUrl": url},
            {
                "X-Xet-Cas-Url": url,
                "X-Xet-Access-Token": "xet",
                "X-Xet-Token-Expiration": expiry,
            },
        )

    def commit(self, kind: str, name: str, revision: str) -> None:
        repo = self.repo(kind, name, write=True)
        base = repo.resolve(revision)
        tree, title = dict(base.tree), ""
        for line in self.raw.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, base.oid):
                    raise Refusal(412, "The branch was updated since you opened this page.")
            elif operation["key"] == "file":
                tree[value["path"]] = Blob(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                tree[value["path"]] = self.large(value["oid"])
            elif operation["key"] == "deletedFile":
                del tree[value["path"]]
            elif operation["key"] == "deletedFolder":
                for path in [p for p in tree if p.startswith(value["path"].rstrip("/") + "/")]:
                    del tree[path]
            else:
                raise Refusal(400, f"unknown operation {operation['key']}")
        tree.pop(self.hub.loses, None)
        made = repo.add_commit(revision, tree, title)
        self.reply(200, {"commitUrl": f"{self.hub.endpoint}/{name}", "commitOid": made.oid})

    def large(self, sha256: str) -> Blob:
        data = self.hub.objects.get(sha256) or self.hub.xet_object(sha256)
        if data is None or hashlib.sha256(data).hexdigest() != sha256:
            raise Refusal(400, f"no object {sha256} was uploaded")
        self.hub.objects[sha256] = data
        return Blob(data, sha256)

    def nothing(self, **_: str) -> None:
        """Registries and telemetry that clients ask for."""
        self.reply(200, {})


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(blob.data), "oid": blob.oid}
    if blob.sha256:
        pointer = len(blob.pointer)
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": pointer}
    return entry | {"lastCommit": {"id": "0" * 40, "title": "", "date": DAY}}


def _folder_entry(path: str) -> dict[str, Any]:
    oid = git_oid(path.encode(), "tree")
    return {"type": "directory", "path": path, "size": 0, "oid": oid}


REPO = r"/api/(?P<kind>models|datasets)/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?P<prefix>datasets/|spaces/)?(?P<name>[^/]+/[^/]+?)"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., None]]] = [
    (methods, re.compile(pattern), answer)
    for methods, pattern, answer in [
        ("GET", r"/api/whoami-v2", HubHandler.whoami),
        ("POST", r"/api/repos/create", HubHandler.create_repo),
        ("POST", r"/api/validate-yaml", HubHandler.validate_yaml),
        ("GET,HEAD", r"/api/(?:agent-harnesses|telemetry/.*)", HubHandler.nothing),
        ("GET", REPO, HubHandler.info),
        ("GET", REPO + r"/revision/(?P<revision>[^/]+)", HubHandler.info),
        ("GET", REPO + r"/refs", HubHandler.refs),
        ("GET", REPO + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", HubHandler.tree),
        ("POST", REPO + r"/paths-info/(?P<revision>[^/]+)", HubHandler.paths_info),
        ("POST,DELETE", REPO + r"/tag/(?P<revision>[^/]+)", HubHandler.tag),
        ("POST,DELETE", REPO + r"/branch/(?P<branch>[^/]+)", HubHandler.branch),
        ("POST", REPO + r"/preupload/(?P<revision>[^/]+)", HubHandler.preupload),
        ("POST", REPO + r"/commit/(?P<revision>[^/]+)", HubHandler.commit),
        ("GET", REPO + r"/xet-(?P<mode>\w+)-token/(?P<revision>[^/]+)", HubHandler.xet_token),
        ("POST", PAGE + r"\.git/info/lfs/objects/batch", HubHandler.lfs_batch),
        ("GET,HEAD", PAGE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", HubHandler.resolve),
    ]
]
