"""The second place of artifacts, the Hub: their names and how they are found.

    responses, initial_responses,        a dataset each, `<namespace>/<run_name>-<stage>`, with a
    preferences, answers, evaluation,    folder `iter-<t>` and a split `iter_<t>` per iteration
    logps
    checkpoint                           a model per iteration, `<namespace>/<run_name>-iter-<t>`
    benchmarks/<name>/answers, results   one dataset for all, `<namespace>/<run_name>-benchmarks`,
                                         with a folder `iter-<t>/<name>/<answers or results>` each
    report                               the folder `report` of the evaluations' dataset

An artifact is one commit with its manifest and the repository's card, checked after the push and
then tagged: `iter-<t>`, `iter-<t>-<name>-results`, or `report`. A commit without a tag does not
count. Imported only if `hub.push` is true, because the client takes half a second to import.
"""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

from selm.errors import UserError
from selm.huggingface import API, patiently
from selm.recipe.schema import Recipe
from selm.run.stages import BENCHMARKS, benchmark_of


@dataclass(frozen=True)
class Place:
    """An artifact's place on the Hub; `folder` is empty if it is the whole repository."""

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
    benchmark = benchmark_of(stage)
    if benchmark is not None:
        part = stage.rpartition("/")[-1]
        folder, tag = f"{tag}/{benchmark}/{part}", f"{tag}-{benchmark}-{part}"
        return Place(f"{prefix}-{BENCHMARKS}", "dataset", folder, tag)
    return Place(f"{prefix}-{stage}", "dataset", tag, tag)


def find(where: Place) -> Pushed | None:
    """What is at a place; None where there is no such repository or tag."""
    revision = tags(where.repo, where.repo_type).get(where.tag)
    if revision is None:
        return None
    manifest = file(where, revision, "manifest.json")
    return Pushed(where, revision, manifest.read_bytes())


@lru_cache
def tags(repo: str, repo_type: str) -> Mapping[str, str]:
    """Tag -> commit; empty if there is no such repository. The cache is cleared after each push."""

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

    A download that was killed continues.
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
