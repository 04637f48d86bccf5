"""Pushes an artifact as one commit, which is checked and then tagged."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from selm.errors import OutsideError
from selm.huggingface import API, patiently
from selm.run.on_hub import Place, tags


def push(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """Commit a folder with the repository's card, check what arrived, tag it. Returns the commit.

    Args:
        make_card: from the manifests of all artifacts that the repository will hold, by folder.
    """
    revision = patiently(f"pushing to {where}", lambda: _commit(where, folder, make_card))
    patiently(f"checking {where}", lambda: _check(where, folder, revision))
    patiently(f"tagging {where}", lambda: _tag(where, revision))
    tags.cache_clear()
    return revision


def _commit(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """One attempt. If an earlier attempt arrived after all, the client finds no change and makes no
    commit.

    The card lists the other contents of the repository, so the commit depends on that state: if
    someone else commits in between, the Hub answers 412 and the next attempt reads the new state.
    """
    head = API.repo_info(where.repo, repo_type=where.repo_type)
    names = [sibling.rfilename for sibling in head.siblings or []]
    manifests = {
        str(PurePosixPath(name).parent): read(where, head.sha, name)
        for name in names
        if PurePosixPath(name).name == "manifest.json"
    }
    manifests[where.folder or "."] = (folder / "manifest.json").read_bytes()
    files = files_of(folder)
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


def read(where: Place, revision: str, name: str) -> bytes:
    cached = API.hf_hub_download(where.repo, name, repo_type=where.repo_type, revision=revision)
    return Path(cached).read_bytes()


def files_of(folder: Path) -> dict[str, Path]:
    """Name relative to the folder -> file."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def _check(where: Place, folder: Path, revision: str) -> None:
    """OutsideError unless every file is there with the content that it has on this disk."""
    files = {where.path(name): path for name, path in files_of(folder).items()}
    found = API.get_paths_info(
        where.repo, list(files), repo_type=where.repo_type, revision=revision
    )
    there = {info.path: info for info in found if isinstance(info, RepoFile)}
    for name, path in files.items():
        if name not in there or not _is_same(there[name], path):
            raise OutsideError(
                f"hub: {where.repo}: {name} was damaged in the upload ({revision[:8]})"
            )


def _is_same(there: RepoFile, here: Path) -> bool:
    if there.size != here.stat().st_size:
        return False
    if there.lfs is None:
        return there.blob_id == git_hash(here.read_bytes())
    with here.open("rb") as opened:
        return there.lfs.sha256 == sha_fileobj(opened).hex()


def _tag(where: Place, revision: str) -> None:
    """Tag the commit. Only a report's tag can move, because other artifacts never change."""
    refs = API.list_repo_refs(where.repo, repo_type=where.repo_type)
    old = {tag.name: tag.target_commit for tag in refs.tags}.get(where.tag)
    if old is not None and old != revision:
        API.delete_tag(where.repo, tag=where.tag, repo_type=where.repo_type)
    if old != revision:
        API.create_tag(
            where.repo, tag=where.tag, revision=revision, repo_type=where.repo_type, exist_ok=True
        )
