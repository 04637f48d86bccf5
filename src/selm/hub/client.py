"""Artifacts on the Hugging Face Hub. Imported only where `hub.push` is true.

    responses, preferences, evaluation   a dataset each, `<namespace>/<run_name>-<stage>`, with a
                                         folder `iter-<t>` and a split `iter_<t>` per iteration
    checkpoint                           a model per iteration, `<namespace>/<run_name>-iter-<t>`
    report                               the folder `report` of the evaluations' dataset

An artifact is one commit with its manifest and the repository's card, checked after the push and
then tagged: `iter-<t>`, or `report`. What has no tag is not there yet.
"""

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from httpx2 import HTTPError
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import validate_repo_id
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from selm.errors import OutsideError, UserError
from selm.escape import one_line
from selm.recipe.schema import Recipe

API = HfApi(library_name="selm")

# Seconds before each further attempt. Beneath it the client retries single transfers by itself.
WAITS_SECONDS = (1, 2, 4, 8, 16)

# Timeouts, conflicts with another writer (409, 412), rate limits, and the server's own troubles.
PASSING_STATUS = {408, 409, 412, 425, 429, 500, 502, 503, 504}

# The client's, the network's, and what uploads make of both: LFS and Xet raise RuntimeErrors.
UNSURE_ERRORS = (HTTPError, ConnectionError, TimeoutError, LocalEntryNotFoundError, RuntimeError)

# Where `hub.every_save` keeps the last checkpoint of a training that goes on.
SAVES_BRANCH = "saves"

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """Where an artifact lies on the Hub; `folder` is empty where it is the whole repository."""

    repo: str
    repo_type: str
    folder: str
    tag: str

    def path(self, file: str) -> str:
        """The name in the repository of one of the artifact's files."""
        return str(PurePosixPath(self.folder, file))

    @property
    def url(self) -> str:
        """The page of the repository at the artifact's tag."""
        kind = "datasets/" if self.repo_type == "dataset" else ""
        return f"{API.endpoint}/{kind}{self.repo}/tree/{self.tag}"

    def __str__(self) -> str:
        return f"{self.repo} ({self.tag})"


@dataclass(frozen=True)
class Pushed:
    """An artifact that is on the Hub: its place, its commit, its manifest's bytes."""

    place: Place
    revision: str
    manifest: bytes


def place(recipe: Recipe, stage: str, t: int | None) -> Place:
    """Names of repository, folder and tag.

    >>> place(a recipe of run "zephyr" with hub.namespace "me", "preferences", 2)
    Place("me/zephyr-preferences", "dataset", "iter-2", "iter-2")
    """
    prefix = f"{recipe.hub.namespace}/{recipe.run_name}"
    if t is None:
        return Place(f"{prefix}-evaluation", "dataset", stage, stage)
    tag = f"iter-{t}"
    if stage == "checkpoint":
        return Place(f"{prefix}-{tag}", "model", "", tag)
    return Place(f"{prefix}-{stage}", "dataset", tag, tag)


def find(where: Place) -> Pushed | None:
    """What is at a place; None where there is no such repository or tag."""
    revision = _tags(where.repo, where.repo_type).get(where.tag)
    if revision is None:
        return None
    manifest = file(where, revision, "manifest.json")
    return Pushed(where, revision, manifest.read_bytes())


@lru_cache
def _tags(repo: str, repo_type: str) -> Mapping[str, str]:
    """Tag -> commit; empty where there is no such repository. Forgotten after each push."""

    def ask() -> Mapping[str, str]:
        try:
            refs = API.list_repo_refs(repo, repo_type=repo_type)
        except RepositoryNotFoundError:
            return {}
        return {tag.name: tag.target_commit for tag in refs.tags}

    return patiently(f"looking for {repo}", ask)


def file(where: Place, revision: str, name: str) -> Path:
    """A file of an artifact, in the Hub's own cache on this disk."""
    download = {"repo_type": where.repo_type, "revision": revision}
    try:
        path = patiently(
            f"reading {name} of {where}",
            lambda: API.hf_hub_download(where.repo, where.path(name), **download),
        )
    except RemoteEntryNotFoundError as error:
        raise UserError(
            f"hub: {where} has no {where.path(name)}: it was not pushed by selm; use another "
            "run_name, or delete that repository"
        ) from error
    return Path(path)


def download(there: Pushed, files: Sequence[str], target: Path) -> Path:
    """Fetch files of an artifact at its commit, and return the folder that holds them.

    A download that was killed goes on where it stood.
    """
    where = there.place
    for name in files:
        patiently(
            f"downloading {name} of {where}",
            lambda name=name: API.hf_hub_download(
                where.repo,
                where.path(name),
                repo_type=where.repo_type,
                revision=there.revision,
                local_dir=target,
            ),
        )
    shutil.rmtree(target / ".cache", ignore_errors=True)  # the client's notes on what is whole
    return target / where.folder


def check_access(recipe: Recipe) -> None:
    """UserError if the token does not allow to push to the recipe's namespace. One request."""
    namespace = recipe.hub.namespace
    assert namespace is not None  # `load_recipe` has checked it
    try:
        validate_repo_id(place(recipe, "preferences", 1).repo)
    except HFValidationError as error:
        raise UserError(f"run_name, hub.namespace: {_first_line(error)}") from error
    token = get_token()
    if token is None:
        raise UserError("hub.push: no token on this machine; run `hf auth login` or set HF_TOKEN")
    if not (token.isascii() and token.isprintable()):
        raise UserError("hub.push: the token on this machine has characters that no token has")
    try:
        who = patiently("asking who the token belongs to", lambda: API.whoami(cache=True))
    except OfflineModeIsEnabled as error:
        raise UserError(
            "hub.push: HF_HUB_OFFLINE is set; unset it, or set hub.push=false"
        ) from error
    except OutsideError as error:
        if error.status != 401:
            raise
        raise UserError(
            f"hub.push: {API.endpoint} does not know the token on this machine (401); make a new "
            "one with write access, then `hf auth login` or HF_TOKEN"
        ) from error
    refusal = why_not(who, namespace)
    if refusal is not None:
        raise UserError(refusal)


def why_not(who: Mapping[str, Any], namespace: str) -> str | None:
    """Why the token that `whoami` describes cannot push to a namespace; None where it can.

    A fine-grained token lists what it may do, for single users and organisations. Where the answer
    does not say what the token may do (OAuth), `make_repository` finds out.
    """
    token = who.get("auth", {}).get("accessToken") or {}
    name = who["name"]
    if token.get("role") == "read":
        return f"hub.push: the token of {name} is read-only; make one with write access"
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        may_write = {s["entity"].get("name") for s in scopes if "repo.write" in s["permissions"]}
        if namespace not in may_write:
            return (
                f"hub.namespace: the fine-grained token of {name} has no write access to the "
                f"repositories of {namespace}; add it at {API.endpoint}/settings/tokens"
            )
        return None
    roles = {name: "admin"} | {o["name"]: o.get("roleInOrg", "write") for o in who.get("orgs", [])}
    if namespace not in roles:
        return (
            f"hub.namespace: the token is of {name}, who may not write to {namespace}; "
            f"possible: {', '.join(roles)}"
        )
    if roles[namespace] == "read":
        return f"hub.namespace: {name} may only read in the organisation {namespace}"
    return None


def make_repository(recipe: Recipe, where: Place) -> None:
    """Create the repository if there is none.

    UserError if the Hub refuses, or if the one that is there is public against the recipe's will or
    holds something else.
    """
    try:
        info = patiently(f"looking for {where.repo}", lambda: _repo_info(where))
        if info is None:
            patiently(
                f"creating {where.repo}",
                lambda: API.create_repo(
                    where.repo,
                    repo_type=where.repo_type,
                    private=recipe.hub.private,
                    exist_ok=True,
                ),
            )
            return
    except OutsideError as error:
        if error.status not in (401, 402, 403):
            raise
        raise UserError(f"hub.namespace: {error}") from error
    if recipe.hub.private and not info.private:
        raise UserError(
            f"hub.private: {where.repo} is public; make it private in its settings, or set "
            "hub.private=false"
        )
    names = {sibling.rfilename for sibling in info.siblings or []}
    is_ours = any(PurePosixPath(name).name == "manifest.json" for name in names)
    if names - {".gitattributes", "README.md"} and not is_ours:
        raise UserError(
            f"hub.namespace: {where.repo} is there already and holds something else; use another "
            "run_name"
        )


def _repo_info(where: Place, revision: str | None = None) -> Any:
    """Commit, files and visibility of a repository; None where there is none, or no revision."""
    try:
        return API.repo_info(where.repo, repo_type=where.repo_type, revision=revision)
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return None


def push(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """Commit a folder with the repository's card, check what arrived, tag it. Returns the commit.

    Args:
        make_card: from the manifests of all artifacts that the repository will hold, by folder.
    """
    revision = patiently(f"pushing to {where}", lambda: _commit(where, folder, make_card))
    patiently(f"checking {where}", lambda: _check(where, folder, revision))
    patiently(f"tagging {where}", lambda: _tag(where, revision))
    _tags.cache_clear()
    return revision


def _commit(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """One attempt. If an earlier one arrived after all, the client finds no change and no commit
    is made.

    The card lists what else is in the repository, so that the commit is bound to the state it was
    made from: if someone else commits in between, the Hub answers 412 and the next attempt sees it.
    """
    head = API.repo_info(where.repo, repo_type=where.repo_type)
    names = [sibling.rfilename for sibling in head.siblings or []]
    manifests = {
        str(PurePosixPath(name).parent): _read(where, head.sha, name)
        for name in names
        if PurePosixPath(name).name == "manifest.json"
    }
    manifests[where.folder or "."] = (folder / "manifest.json").read_bytes()
    files = _files(folder)
    adds = [CommitOperationAdd(where.path(name), path) for name, path in files.items()]
    adds.append(CommitOperationAdd("README.md", make_card(manifests).encode()))
    gone = [
        CommitOperationDelete(name)
        for name in names
        if where.folder
        and name.startswith(f"{where.folder}/")
        and name not in {where.path(new) for new in files}
    ]
    done = API.create_commit(
        where.repo,
        [*adds, *gone],
        commit_message=f"{where.tag}: {folder.name}",
        repo_type=where.repo_type,
        parent_commit=head.sha,
    )
    return done.oid


def push_save(where: Place, folder: Path, key: str) -> None:
    """Commit a training checkpoint to a branch of its own, in place of the one before.

    key: kept beside it, so that only the same training resumes from it.
    """

    def commit() -> None:
        repo, branch = where.repo, SAVES_BRANCH
        API.create_branch(repo, branch=branch, exist_ok=True)
        head = API.repo_info(repo, revision=branch)
        names = [sibling.rfilename for sibling in head.siblings or []]
        older = {name.split("/")[0] for name in names if name.startswith("checkpoint-")}
        adds = [CommitOperationAdd(f"{folder.name}/{n}", p) for n, p in _files(folder).items()]
        adds.append(CommitOperationAdd("key.json", key.encode()))
        gone = [CommitOperationDelete(f"{name}/") for name in sorted(older - {folder.name})]
        API.create_commit(repo, [*adds, *gone], commit_message=folder.name, revision=branch)

    patiently(f"pushing {folder.name} to {where.repo}", commit)


def pull_save(where: Place, target: Path, key: str) -> bool:
    """Fetch the last pushed training checkpoint into `target`; False if there is none of `key`."""
    info = patiently(f"looking for saves in {where.repo}", lambda: _repo_info(where, SAVES_BRANCH))
    names = [sibling.rfilename for sibling in info.siblings or []] if info is not None else []
    if "key.json" not in names or _read(where, info.sha, "key.json").decode() != key:
        return False
    saves = Place(where.repo, where.repo_type, "", SAVES_BRANCH)
    files = [name for name in names if name.startswith("checkpoint-")]
    download(Pushed(saves, info.sha, b""), files, target)
    return True


def drop_saves(where: Place) -> None:
    """Delete the branch of training checkpoints, if there is one: the training is finished."""

    def drop() -> None:
        refs = API.list_repo_refs(where.repo)
        if any(branch.name == SAVES_BRANCH for branch in refs.branches):
            API.delete_branch(where.repo, branch=SAVES_BRANCH)

    patiently(f"deleting the saves in {where.repo}", drop)


def _read(where: Place, revision: str, name: str) -> bytes:
    cached = API.hf_hub_download(where.repo, name, repo_type=where.repo_type, revision=revision)
    return Path(cached).read_bytes()


def _files(folder: Path) -> dict[str, Path]:
    """Name relative to the folder -> file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _check(where: Place, folder: Path, revision: str) -> None:
    """OutsideError unless every file is there with the content that it has on this disk."""
    files = {where.path(name): path for name, path in _files(folder).items()}
    found = API.get_paths_info(
        where.repo, list(files), repo_type=where.repo_type, revision=revision
    )
    there = {info.path: info for info in found if isinstance(info, RepoFile)}
    for name, path in files.items():
        if name not in there or not _is_same(there[name], path):
            raise OutsideError(f"hub: {where.repo}: {name} arrived damaged in {revision[:8]}")


def _is_same(there: RepoFile, here: Path) -> bool:
    if there.size != here.stat().st_size:
        return False
    if there.lfs is None:
        return there.blob_id == git_hash(here.read_bytes())
    with here.open("rb") as opened:
        return there.lfs.sha256 == sha_fileobj(opened).hex()


def _tag(where: Place, revision: str) -> None:
    """Only a report's tag is there already and moves: other artifacts are never replaced."""
    refs = API.list_repo_refs(where.repo, repo_type=where.repo_type)
    old = {tag.name: tag.target_commit for tag in refs.tags}.get(where.tag)
    if old is not None and old != revision:
        API.delete_tag(where.repo, tag=where.tag, repo_type=where.repo_type)
    if old != revision:
        API.create_tag(
            where.repo, tag=where.tag, revision=revision, repo_type=where.repo_type, exist_ok=True
        )


def patiently(what: str, call: Callable[[], T], waits_seconds: Sequence[int] = WAITS_SECONDS) -> T:
    """Call; on what may pass by itself wait and call again, and say so. OutsideError in the end."""
    attempts = len(waits_seconds) + 1
    attempt = 0
    while True:
        attempt += 1
        try:
            return call()
        except (OfflineModeIsEnabled, RemoteEntryNotFoundError):
            raise  # these do not pass; who calls knows what they mean
        except UNSURE_ERRORS as error:
            cause = _cause(error)
            reason, status = _reason(cause), _status(cause)
            if (status is not None and status not in PASSING_STATUS) or attempt == attempts:
                tries = "" if attempt == 1 else f", after {attempt} attempts"
                raise OutsideError(f"hub: {what}: {reason}{tries}", status) from error
            wait_seconds = max(waits_seconds[attempt - 1], _asked_to_wait(cause))
        tries = f"attempt {attempt} of {attempts} failed, next in {wait_seconds} s"
        print(one_line(f"hub: {what}: {reason}; {tries}"), file=sys.stderr, flush=True)
        time.sleep(wait_seconds)


def _cause(error: BaseException) -> BaseException:
    """What happened, out of what the client wraps it in: transfer threads, files not found."""
    while isinstance(error, RuntimeError | LocalEntryNotFoundError) and error.__cause__:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _reason(error: BaseException) -> str:
    """On one line, without URLs: those of the storage are signed."""
    if isinstance(error, HfHubHTTPError):
        said = _first_line(error.server_message or error.response.reason_phrase)
        return f"{error.response.status_code} {said}".strip()
    return f"{type(error).__name__} {_first_line(error)}".strip()


def _first_line(text: object) -> str:
    return (str(text).strip().splitlines() or [""])[0]


def _asked_to_wait(error: BaseException) -> int:
    """Seconds of the answer's Retry-After header, 5 minutes (the Hub's own window) at most."""
    if not isinstance(error, HfHubHTTPError):
        return 0
    seconds = error.response.headers.get("Retry-After", "")
    return min(int(seconds), 300) if seconds.isdigit() else 0
