"""Where a run lies, a folder or the Hub, and its files, whose hashes are checked."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selm.data.schemas import EvaluationRow
from selm.errors import UserError
from selm.escape import one_line
from selm.recipe import yaml_tree
from selm.recipe.places import is_hub_id
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.hashes import hashes_in
from selm.run.manifest import Damaged
from selm.run.stages import entry_of

__all__ = ["Damaged", "Place", "place_of"]

RECIPE, ROWS = "recipe.yaml", "test.parquet"


class Place(ABC):
    """A run and the artifacts in it, each by its name such as `iter-1/evaluation`."""

    recipe: Recipe
    identity: str  # the same for the same run, however it was named

    @abstractmethod
    def manifest_bytes(self, artifact: str) -> bytes | None:
        """None if there is no such artifact."""

    @abstractmethod
    def file(self, artifact: str, name: str) -> Path:
        """A file of an artifact that is there."""

    @abstractmethod
    def check(self, artifact: str, facts: dict[str, Any]) -> None:
        """Damaged if the file of rows is not the manifest's."""

    def manifest(self, artifact: str) -> dict[str, Any] | None:
        """The content of the manifest; Damaged if it has changed."""
        found = self.manifest_bytes(artifact)
        return None if found is None else manifest.parse(found)

    def manifest_hash(self, artifact: str) -> str | None:
        found = self.manifest_bytes(artifact)
        return None if found is None else hashlib.sha256(found).hexdigest()

    def rows(self, artifact: str, facts: dict[str, Any]) -> Sequence[EvaluationRow]:
        """The rows of an evaluation; Damaged if the file has changed."""
        from selm.data.parquet import read_rows

        self.check(artifact, facts)
        return read_rows(self.file(artifact, ROWS))


class Folder(Place):
    """A run in a folder."""

    def __init__(self, path: Path) -> None:
        self.path, self.identity = path, str(path.resolve())
        self.recipe = recipe_of(path / RECIPE, str(path / RECIPE))

    def __str__(self) -> str:
        return str(self.path)

    def manifest_bytes(self, artifact: str) -> bytes | None:
        there = self.path / artifact / manifest.NAME
        return there.read_bytes() if there.is_file() else None

    def file(self, artifact: str, name: str) -> Path:
        return self.path / artifact / name

    def check(self, artifact: str, facts: dict[str, Any]) -> None:
        of_rows = {ROWS: facts["files"][ROWS]}
        manifest.check_files(self.path / artifact, of_rows, hashes_in(self.path.parent))


class OnHub(Place):
    """A run on the Hub; its report there holds the recipe."""

    def __init__(self, run: str) -> None:
        from selm.run import on_hub

        self.run, self.identity = run, f"hub: {run}"
        self._there: dict[str, on_hub.Pushed | None] = {}
        where = on_hub.Place(f"{run}-evaluation", "dataset", "report", "report")
        report = on_hub.find(where)
        if report is None:
            raise UserError(
                f"{run}: neither a run's folder nor a finished run on the Hub (there is no report "
                f"in the dataset {where.repo})"
            )
        if RECIPE not in manifest.parse(report.manifest)["files"]:
            raise UserError(
                f"{run}: its report on the Hub has no {RECIPE}; repeat scripts/report.py with its "
                "recipe"
            )
        self.recipe = recipe_of(on_hub.file(where, report.revision, RECIPE), f"{run}: {RECIPE}")

    def __str__(self) -> str:
        return self.run

    def manifest_bytes(self, artifact: str) -> bytes | None:
        found = self._pushed(artifact)
        return None if found is None else found.manifest

    def file(self, artifact: str, name: str) -> Path:
        from selm.run import on_hub

        found = self._pushed(artifact)
        assert found is not None
        return on_hub.file(found.place, found.revision, name)

    def check(self, artifact: str, facts: dict[str, Any]) -> None:
        from selm.run.hashes import sha256

        if sha256(self.file(artifact, ROWS)) != facts["files"][ROWS]["sha256"]:
            raise Damaged(f"{ROWS} has changed since it was written")

    def _pushed(self, artifact: str) -> Any:
        from selm.run import on_hub

        if artifact not in self._there:
            namespace, _, run_name = self.run.partition("/")
            hub = self.recipe.hub.model_copy(update={"namespace": namespace})
            named = self.recipe.model_copy(update={"hub": hub, "run_name": run_name})
            self._there[artifact] = on_hub.find(on_hub.place(named, *entry_of(artifact)))
        return self._there[artifact]


def place_of(path: str) -> list[Place]:
    """The run of that name; of a folder of runs, all in it.

    Raises:
        UserError: there is none.
    """
    folder = Path(path)
    if (folder / RECIPE).is_file():
        return [Folder(folder)]
    if folder.is_dir():
        inside = sorted(each.parent for each in folder.glob(f"*/{RECIPE}"))
        if not inside:
            raise UserError(
                one_line(f"{path}: not a run's folder: neither {RECIPE} nor a run is in it")
            )
        return [Folder(each) for each in inside]
    if path.count("/") != 1 or not is_hub_id(path):
        raise UserError(
            one_line(f"{path}: no such folder, and no name on the Hub (namespace/run_name)")
        )
    return [OnHub(path)]


def recipe_of(file: Path, shown: str) -> Recipe:
    """A resolved recipe as it was saved; what it names need not exist here."""
    try:
        return Recipe.model_validate(yaml_tree.read(file))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(
            one_line(f"{shown}: {key}: {first['msg']}; was it saved by another version of selm?")
        ) from error
