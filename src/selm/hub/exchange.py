"""Pushes artifacts to the Hub with their inputs, and pulls them."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from typing import Any

from selm.errors import OutsideError
from selm.escape import one_line
from selm.hub import cards, client, saves
from selm.hub.access import make_repository
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.artifacts import folder, is_pushed, state
from selm.run.hashes import sha256
from selm.run.lineage import inputs
from selm.run.on_hub import Pushed, download, find, place
from selm.run.plan import Run
from selm.run.stages import name
from selm.run.writing import move_into_place


def pull(recipe: Recipe, stage: str, t: int | None) -> None:
    """Download an artifact that is only on the Hub, and check each file."""
    there = state(recipe, stage, t).pushed
    assert there is not None
    target = folder(recipe, stage, t)
    partial = target.parent / f".{target.name}.pull"
    files = manifest.parse(there.manifest)["files"]
    pulled = download(there, [manifest.NAME, *files], partial)
    for path, facts in files.items():
        if sha256(pulled / path) != facts["sha256"]:
            shutil.rmtree(partial)
            raise OutsideError(f"hub: {there.place}: {path} arrived damaged; repeat the command")
    move_into_place(pulled, target)
    shutil.rmtree(partial, ignore_errors=True)
    print(one_line(f"{target}: pulled from {there.place}"))


def push(run: Run, stage: str, t: int | None) -> None:
    """Push a current artifact to the Hub unless it is there, its inputs first.

    Raises:
        UserError: the Hub holds another artifact under this name.
        OutsideError: the Hub failed. Nothing is lost: a repeated push does the rest.
    """
    recipe, target = run.recipe, folder(run.recipe, stage, t)
    where = place(recipe, stage, t)
    try:
        if is_pushed(recipe, stage, t):
            return
        for entry in inputs(recipe, stage, t):
            if state(recipe, *entry).pushed is None:
                push(run, *entry)
        make_repository(recipe, where)
        client.push(where, target, lambda manifests: _card(recipe, stage, t, manifests))
        if stage == "checkpoint" and recipe.hub.every_save:
            saves.drop(where.repo)
    except OutsideError as error:
        raise OutsideError(
            f"{target} is complete on this disk, but not on the Hub; repeat the command to push "
            f"it. {error}"
        ) from error
    print(one_line(f"{target}: pushed to {where.url}"))


def _card(recipe: Recipe, stage: str, t: int | None, manifests: Mapping[str, bytes]) -> str:
    """The card of the repository of an artifact; `manifests` by folder in that repository."""
    if stage == "checkpoint" and t is not None:
        log = json.loads(
            (folder(recipe, stage, t) / "training_log.json").read_text(encoding="utf-8")
        )
        facts = json.loads(manifests["."])
        return cards.model_card(recipe, t, facts, log, _sources(recipe, stage, t, facts))
    of_iterations = {}
    for key, text in manifests.items():
        if key != "report":
            facts = json.loads(text)
            parents = _sources(recipe, facts["stage"], facts["iteration"], facts)
            of_iterations[facts["iteration"]] = (facts, parents)
    what = "evaluation" if stage == "report" else stage
    return cards.dataset_card(recipe, what, of_iterations, "report" in manifests)


def _sources(
    recipe: Recipe,
    stage: str,
    t: int,
    facts: Mapping[str, Any],
    found: dict[str, Pushed] | None = None,
) -> dict[str, Pushed]:
    """The artifact's inputs, and their inputs, that are unchanged on the Hub."""
    found = {} if found is None else found
    for entry in inputs(recipe, stage, t):
        there = find(place(recipe, *entry))
        wanted = facts["inputs"].get(name(*entry))
        is_it = there is not None and hashlib.sha256(there.manifest).hexdigest() == wanted
        if there is not None and is_it and name(*entry) not in found:
            found[name(*entry)] = there
            _sources(recipe, *entry, json.loads(there.manifest), found)
    return found
