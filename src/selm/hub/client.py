"""Pushes an artifact as one commit, which is checked and then tagged."""

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils.sha import git_hash, sha_fileobj

from selm.errors import OutsideError
from selm.huggingface import API, patiently
from selm.run import manifest
from selm.run.on_hub import Place, tags

# The files that a card is made of: of every artifact, and of the results of benchmarks.
OF_CARDS = (manifest.NAME, "results.json")


def push(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """Commit a folder with the repository's card and check what arrived. Returns the commit.

    The artifact does not count before its commit has its tag.

    Args:
        make_card: from the files `OF_CARDS` of all artifacts that the repository will hold, by
            their paths there.
    """
    revision = patiently(f"pushing to {where}", lambda: _commit(where, folder, make_card))
    patiently(f"checking {where}", lambda: _check(where, folder, revision))
    return revision


def tag(where: Place, revision: str) -> None:
    """Make a commit that was pushed count."""
    patiently(f"tagging {where}", lambda: _tag(where, revision))
    tags.cache_clear()


def _commit(where: Place, folder: Path, make_card: Callable[[Mapping[str, bytes]], str]) -> str:
    """One attempt. If an earlier attempt arrived after all, the client finds no change and makes no
    commit.

    The card lists the other contents of the repository, so the commit depends on that state: if
    someone else commits in between, the Hub answers 412 and the next attempt reads the new state.
    """
    head = API.repo_info(where.repo, repo_type=where.repo_type)
    names = [sibling.rfilename for sibling in head.siblings or []]
    files = {where.path(name): path for name, path in files_of(folder).items()}
    gone = {
        name
        for name in names
        if where.folder and name.startswith(f"{where.folder}/") and name not in files
    }
    kept = {*names} - {*files} - gone
    texts = {name: read(where, head.sha, name) for name in kept if is_of_card(name)}
    texts |= {name: path.read_bytes() for name, path in files.items() if is_of_card(name)}
    adds = [CommitOperationAdd(name, path) for name, path in files.items()]
    adds.append(CommitOperationAdd("README.md", make_card(texts).encode()))
    done = API.create_commit(
        where.repo,
        [*adds, *map(CommitOperationDelete, sorted(gone))],
        commit_message=f"{where.tag}: {folder.name}",
        repo_type=where.repo_type,
        parent_commit=head.sha,
    )
    return done.oid


def is_of_card(name: str) -> bool:
    return PurePosixPath(name).name in OF_CARDS


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
