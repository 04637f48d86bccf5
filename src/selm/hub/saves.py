"""`hub.every_save`: the last save of a running training, on a branch of the model's repository."""

import sys
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from selm.errors import OutsideError
from selm.escape import one_line
from selm.hub.client import files_of, read
from selm.huggingface import API, patiently, repo_info
from selm.run.artifacts import partial_key
from selm.run.on_hub import Place, Pushed, download, place
from selm.run.parents import die_with_parent
from selm.run.plan import Run
from selm.run.writing import move_files

BRANCH = "saves"


def push(repo: str, folder: Path, key: str) -> None:
    """Push a save in place of the earlier one; OutsideError if that fails.

    key: saved beside it; only a training with the same key resumes from it.
    """
    patiently(f"pushing {folder.name} to {repo}", lambda: _commit(repo, folder, key))
    print(one_line(f"{folder.name}: pushed to {repo} ({BRANCH})"))


def _commit(repo: str, folder: Path, key: str) -> None:
    API.create_branch(repo, branch=BRANCH, exist_ok=True)
    head = API.repo_info(repo, revision=BRANCH)
    names = [sibling.rfilename for sibling in head.siblings or []]
    older = {name.split("/")[0] for name in names if name.startswith("checkpoint-")}
    adds = [CommitOperationAdd(f"{folder.name}/{n}", p) for n, p in files_of(folder).items()]
    adds.append(CommitOperationAdd("key.json", key.encode()))
    gone = [CommitOperationDelete(f"{name}/") for name in sorted(older - {folder.name})]
    API.create_commit(repo, [*adds, *gone], commit_message=folder.name, revision=BRANCH)


def pull(run: Run, t: int, folder: Path) -> None:
    """Download the last pushed save of this training to `folder`, unless it has one."""
    where = place(run.recipe, "checkpoint", t)
    repo = where.repo
    if any(folder.glob("checkpoint-*")):
        return
    info = patiently(f"looking for saves in {repo}", lambda: repo_info(repo, "model", BRANCH))
    names = [sibling.rfilename for sibling in info.siblings or []] if info is not None else []
    key = partial_key(run, "checkpoint", t)
    if "key.json" not in names or read(where, info.sha, "key.json").decode() != key:
        return
    saves = Place(repo, where.repo_type, "", BRANCH)
    partial = folder.with_name(f".{folder.name}.pull")
    files = [name for name in names if name.startswith("checkpoint-")]
    download(Pushed(saves, info.sha, b""), files, partial)
    folder.mkdir(parents=True, exist_ok=True)
    move_files(partial, folder)
    partial.rmdir()
    print(one_line(f"{folder}: pulled from {repo} ({BRANCH})"))


def drop(repo: str) -> None:
    """Delete the branch of saves, if there is one: the training is finished."""

    def delete() -> None:
        if any(branch.name == BRANCH for branch in API.list_repo_refs(repo).branches):
            API.delete_branch(repo, branch=BRANCH)

    patiently(f"deleting the saves in {repo}", delete)


if __name__ == "__main__":  # every_save.py starts it beside the training
    die_with_parent()
    repo, folder, key = sys.argv[1:]
    try:
        push(repo, Path(folder), Path(key).read_text(encoding="utf-8"))
    except OutsideError as error:
        sys.exit(one_line(str(error)))
