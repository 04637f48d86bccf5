"""Artifacts that several runs of one output folder share: made once, hard-linked for the others.

An artifact does not depend on the run's name, so a run with another alpha has the same responses in
iteration 1, and the same checkpoint after an iteration of objective `dpo`.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.artifacts import Look, folder, run_folder
from selm.run.hashes import hashes_in
from selm.run.lineage import inputs, recipe_part
from selm.run.stages import Entry, name, stages
from selm.run.writing import move_into_place


def key(recipe: Recipe, stage: str, t: int | None) -> str:
    """What decides an artifact, as a hash: its part of the recipe and, in turn, its inputs.

    It is equal for the artifacts that two runs share, and known before any of them is made.
    """
    parts = [recipe_part(recipe, stage, t), *(key(recipe, *e) for e in inputs(recipe, stage, t))]
    return hashlib.sha256(json.dumps([stage, t, parts], sort_keys=True).encode()).hexdigest()


def link_all(recipe: Recipe) -> list[tuple[Entry, str]]:
    """Link what this run lacks and another run has; the entries, each with that run's name.

    The log-probs of the reference, which are no artifact, come along.
    """
    linked: list[tuple[Entry, str]] = []
    for stage, t in stages(recipe):
        if t is None or Look(recipe).state(stage, t).current:
            continue
        other = link(recipe, stage, t)
        if other is not None:
            linked.append(((stage, t), other))
        elif stage == "checkpoint":
            _link_reference(recipe, t)
    return linked


def link(recipe: Recipe, stage: str, t: int) -> str | None:
    """Link an artifact that another run has: complete, unchanged, and what this recipe asks for.

    Returns:
        The other run's name; None if there is no such artifact.
    """
    for other in _others(recipe, name(stage, t)):
        if Look(recipe).state_of(other, stage, t).current:
            _link_files(other, folder(recipe, stage, t))
            return other.relative_to(recipe.output_dir).parts[0]
    return None


def _others(recipe: Recipe, path: str) -> Iterator[Path]:
    """The folder of that path in every other run of the output folder."""
    own = run_folder(recipe)
    for run in sorted(Path(recipe.output_dir).iterdir()) if own.parent.is_dir() else ():
        if run != own and (run / path).is_dir():
            yield run / path


def _link_reference(recipe: Recipe, t: int) -> None:
    """Link the reference's log-probs of a training with the same inputs.

    The file's name is a hash of all that decides its content, so a wrong one does no harm.
    """
    own = folder(recipe, "checkpoint", t).with_name("reference")
    needed = [name(*entry) for entry in inputs(recipe, "checkpoint", t)]
    if own.exists() or not all((run_folder(recipe) / each).is_dir() for each in needed):
        return
    for other in _others(recipe, f"iter-{t}/reference"):
        run = other.parents[1]
        if all(_same(run / each, run_folder(recipe) / each) for each in needed):
            _link_files(other, own)
            return


def _same(one: Path, other: Path) -> bool:
    files = [folder / manifest.NAME for folder in (one, other)]
    return all(f.is_file() for f in files) and files[0].read_bytes() == files[1].read_bytes()


def _link_files(source: Path, target: Path) -> None:
    """Link every file of a folder into a new folder, which then gets its name."""
    building = target.parent / f".{target.name}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    hashes = hashes_in(target.parents[2])
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        copy = building / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        digest = hashes.of(path)
        os.link(path, copy)
        hashes.remember(path, digest)  # a link changes the time stamp that the hash is known by
    move_into_place(building, target)
