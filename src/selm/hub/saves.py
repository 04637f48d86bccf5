"""`hub.every_save`: the last save of a training that goes on, on a branch of its model there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from transformers import Trainer, TrainerCallback

from selm.errors import OutsideError
from selm.escape import one_line
from selm.hub.client import files_of, read
from selm.huggingface import API, patiently, repo_info
from selm.run.artifacts import partial_key
from selm.run.on_hub import Place, Pushed, download, place
from selm.run.plan import Run
from selm.run.writing import move_files

BRANCH = "saves"


def share(trainer: Trainer, run: Run, t: int) -> None:
    """Go on from the last save on the Hub, if there is none here; push those to come.

    The last one is left out: the finished checkpoint follows it.
    """
    if trainer.is_world_process_zero():
        pull(run, t, Path(trainer.args.output_dir))
    trainer.accelerator.wait_for_everyone()
    trainer.add_callback(PushSaves(lambda folder: push(run, t, folder)))


class PushSaves(TrainerCallback):
    """Hands every checkpoint but the last to `push`, once all processes have written their part."""

    def __init__(self, push: Callable[[Path], None]) -> None:
        self.push = push

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the Trainer in every process."""
        PartialState().wait_for_everyone()
        if state.is_world_process_zero and state.global_step < state.max_steps:
            self.push(Path(args.output_dir) / f"checkpoint-{state.global_step}")


def push(run: Run, t: int, folder: Path) -> None:
    """Bring a checkpoint of a training that goes on to the Hub; if that fails, say so and go on."""
    repo = place(run.recipe, "checkpoint", t).repo
    key = partial_key(run, "checkpoint", t)
    try:
        patiently(f"pushing {folder.name} to {repo}", lambda: _commit(repo, folder, key))
    except OutsideError as error:
        print(one_line(f"{error}; the training goes on without this save on the Hub"))
    else:
        print(one_line(f"{folder.name}: pushed to {repo} ({BRANCH})"))


def _commit(repo: str, folder: Path, key: str) -> None:
    """In place of the save before; the key beside it names the training that may resume from it."""
    API.create_branch(repo, branch=BRANCH, exist_ok=True)
    head = API.repo_info(repo, revision=BRANCH)
    names = [sibling.rfilename for sibling in head.siblings or []]
    older = {name.split("/")[0] for name in names if name.startswith("checkpoint-")}
    adds = [CommitOperationAdd(f"{folder.name}/{n}", p) for n, p in files_of(folder).items()]
    adds.append(CommitOperationAdd("key.json", key.encode()))
    gone = [CommitOperationDelete(f"{name}/") for name in sorted(older - {folder.name})]
    API.create_commit(repo, [*adds, *gone], commit_message=folder.name, revision=BRANCH)


def pull(run: Run, t: int, folder: Path) -> None:
    """Bring the last pushed save of this very training to `folder`, if that holds none."""
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
