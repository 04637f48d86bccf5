"""Pushes artifacts to the Hub with their inputs, and pulls them."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from selm.errors import OutsideError
from selm.escape import one_line
from selm.hub import benchmark_cards, cards, client, model_results, saves
from selm.hub.access import make_repository
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.artifacts import Look, folder, is_pushed, state
from selm.run.hashes import sha256
from selm.run.on_hub import Pushed, download, find, place, tags
from selm.run.plan import Run
from selm.run.stages import benchmark_of, entry_of
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
        tags.cache_clear()  # another process may have pushed it since, such as one of our own
        if is_pushed(recipe, stage, t):
            return
        look = Look(recipe)
        for entry in look.inputs(stage, t):
            if look.state(*entry).pushed is None:
                push(run, *entry)
        make_repository(recipe, where)
        revision = client.push(where, target, lambda texts: _card(recipe, stage, t, texts))
        if model_results.are_of_a_model(stage, t):  # before the tag: or a stop would forget it
            model_results.attach(recipe, t)
        client.tag(where, revision)
        if stage == "checkpoint" and recipe.hub.every_save:
            saves.drop(where.repo)
    except OutsideError as error:
        raise OutsideError(
            f"{target} is complete on this disk, but not on the Hub; repeat the command to push "
            f"it. {error}"
        ) from error
    print(one_line(f"{target}: pushed to {where.url}"))


def _card(recipe: Recipe, stage: str, t: int | None, texts: Mapping[str, bytes]) -> str:
    """The card of the repository of an artifact; `texts`: its files `client.OF_CARDS`, by path."""
    if stage == "checkpoint" and t is not None:
        log = json.loads(
            (folder(recipe, stage, t) / "training_log.json").read_text(encoding="utf-8")
        )
        facts = json.loads(texts[manifest.NAME])
        card = cards.model_card(recipe, t, facts, log, _sources(recipe, facts))
        return model_results.on_card(card, recipe, t, texts[manifest.NAME])
    artifacts = []
    for path, text in texts.items():
        where = PurePosixPath(path)
        if where.name == manifest.NAME and where.parent.name != "report":
            facts = json.loads(text)
            artifacts.append((facts, _sources(recipe, facts)))
    if benchmark_of(stage) is not None:
        found = [json.loads(text) for path, text in texts.items() if path.endswith("results.json")]
        return benchmark_cards.dataset_card(recipe, artifacts, found)
    of_iterations = {facts["iteration"]: (facts, sources) for facts, sources in artifacts}
    what = "evaluation" if stage == "report" else stage
    return cards.dataset_card(recipe, what, of_iterations, "report/manifest.json" in texts)


def _sources(
    recipe: Recipe, facts: Mapping[str, Any], found: dict[str, Pushed] | None = None
) -> dict[str, Pushed]:
    """The inputs that a manifest names, and their inputs, that are unchanged on the Hub."""
    found = {} if found is None else found
    for key, wanted in facts["inputs"].items():
        there = find(place(recipe, *entry_of(key)))
        is_it = there is not None and hashlib.sha256(there.manifest).hexdigest() == wanted
        if there is not None and is_it and key not in found:
            found[key] = there
            _sources(recipe, json.loads(there.manifest), found)
    return found
