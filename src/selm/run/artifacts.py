"""Where a stage's output lies, whether it is complete and current, and how it is written.

There are two places: a folder on this disk and, where `hub.push` is true, the Hub (`hub.py`). A
stage writes to the disk, then pushes; an input that is missing on the disk is pulled.

An artifact is a folder with a `manifest.json`. The manifest holds the part of the recipe that the
stage depends on and the hashes of its inputs' manifests, so each artifact is chained back to the
base model. An artifact is *current* if that part, those hashes and its own files are unchanged.

Folders are built under a temporary name and renamed: what has its final name is complete.
"""

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selm.errors import OutsideError, UserError
from selm.escape import one_line
from selm.files import rename, write_text
from selm.generation.kinds import KINDS
from selm.ranking.kinds import kind_of
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.commit import code_commit
from selm.run.hashes import hashes_in, sha256
from selm.run.lineage import differing_keys, inputs, recipe_part
from selm.run.plan import Run, command
from selm.run.stages import Entry, name, stages

if TYPE_CHECKING:  # `hub` takes half a second to import, and runs without it must not
    from selm.hub.client import Pushed

PACKAGES = (
    *("selm", "torch", "transformers", "trl", "datasets", "accelerate", "peft"),
    *(package for kind in KINDS.values() for package in kind.packages),
)


@dataclass(frozen=True)
class State:
    """Whether an artifact can be used, and if not, why: `missing`, `recipe changed: ...`.

    Attributes:
        pushed: where it is, if it is current on the Hub and not on this disk.
    """

    current: bool
    why: str = ""
    manifest_hash: str | None = None
    pushed: "Pushed | None" = None


def run_folder(recipe: Recipe) -> Path:
    return Path(recipe.output_dir) / recipe.run_name


def folder(recipe: Recipe, stage: str, t: int | None) -> Path:
    """`runs/<run_name>/iter-2/responses`; the report belongs to no iteration."""
    return run_folder(recipe) / name(stage, t)


def policy_path(recipe: Recipe, t: int) -> str:
    """What `from_pretrained` loads for pi_t; t = 0 is the base model."""
    return recipe.model.name_or_path if t == 0 else str(folder(recipe, "checkpoint", t))


def read_manifest(recipe: Recipe, stage: str, t: int | None) -> dict[str, Any]:
    """The manifest of an artifact that is known to be there."""
    return manifest.parse(file(recipe, stage, t, manifest.NAME).read_bytes())


def state(
    recipe: Recipe,
    stage: str,
    t: int | None,
    seen: dict[Entry, State] | None = None,
) -> State:
    """Whether the artifact is what the recipe asks for, all the way to the base model.

    UserError if the Hub holds something else under its name: nothing there is overwritten.
    """
    seen = {} if seen is None else seen
    if (stage, t) not in seen:
        seen[stage, t] = _state(recipe, stage, t, seen)
    return seen[stage, t]


def _state(recipe: Recipe, stage: str, t: int | None, seen: dict[Entry, State]) -> State:
    found = _state_here(recipe, stage, t, seen)
    if recipe.hub.push and not found.current:
        return _state_on_hub(recipe, stage, t, found, seen)
    return found


def _state_here(recipe: Recipe, stage: str, t: int | None, seen: dict[Entry, State]) -> State:
    root = folder(recipe, stage, t)
    if not (root / manifest.NAME).is_file():
        return State(False, "missing")
    try:
        text = manifest.read(root)
        found = _match(recipe, stage, t, text, seen)
        if found.current:
            hashes = hashes_in(Path(recipe.output_dir))
            manifest.check_files(root, manifest.parse(text)["files"], hashes)
    except manifest.Damaged as error:
        return State(False, f"damaged: {error}")
    return found


def _state_on_hub(
    recipe: Recipe,
    stage: str,
    t: int | None,
    here: State,
    seen: dict[Entry, State],
) -> State:
    from selm.hub import client

    there = client.find(client.place(recipe, stage, t))
    if there is None:
        return here
    try:
        found = _match(recipe, stage, t, there.manifest, seen)
    except manifest.Damaged as error:
        found = State(False, f"damaged: {error}")
    if found.current:
        return replace(found, pushed=there)
    if stage == "report":  # made of all the others in seconds, and replaced
        return here
    raise UserError(_refusal(there, found.why))


def _refusal(there: "Pushed", why: str) -> str:
    return (
        f"{there.place} is on the Hub already and is not what this recipe makes: {why}; "
        "use another run_name, or delete it there"
    )


def _match(
    recipe: Recipe,
    stage: str,
    t: int | None,
    manifest_bytes: bytes,
    seen: dict[Entry, State],
) -> State:
    """Whether a manifest is of this recipe, and of its inputs as they are now."""
    facts = manifest.parse(manifest_bytes)
    changed = differing_keys(facts["recipe"], recipe_part(recipe, stage, t))
    if changed:
        return State(False, f"recipe changed: {', '.join(changed)}")
    wanted = inputs(recipe, stage, t)
    if set(facts["inputs"]) != {name(*entry) for entry in wanted}:
        return State(False, "its inputs are other ones now")
    for entry in wanted:
        upstream = state(recipe, *entry, seen)
        if not upstream.current:
            return State(False, f"its input {name(*entry)} is not current ({upstream.why})")
        if upstream.manifest_hash != facts["inputs"][name(*entry)]:
            return State(False, f"its input {name(*entry)} was written anew")
    return State(True, manifest_hash=hashlib.sha256(manifest_bytes).hexdigest())


def done(recipe: Recipe) -> dict[Entry, str]:
    """The stages whose artifact is current, and pushed if it shall be; and a line that says so.

    The report is never among them: its last line is what a run ends with. With `hub.push` this
    finds out before any work whether the token may push, and whether the Hub has another run.
    """
    if recipe.hub.push:
        from selm.hub import client

        client.check_access(recipe)
    seen: dict[Entry, State] = {}
    lines = {}
    for stage, t in stages(recipe):
        found = state(recipe, stage, t, seen)
        if stage != "report" and found.current and not _must_push(recipe, stage, t, found):
            lines[stage, t] = done_line(recipe, stage, t, found)
            sweep(recipe, stage, t)
    return lines


def done_line(recipe: Recipe, stage: str, t: int | None, found: State) -> str:
    """`runs/<run_name>/iter-1/responses: already done`, and where, if not on this disk."""
    where = "" if found.pushed is None else f", on the Hub in {found.pushed.place}"
    return f"{folder(recipe, stage, t)}: already done{where}"


def _must_push(recipe: Recipe, stage: str, t: int | None, found: State) -> bool:
    return recipe.hub.push and found.pushed is None and not _is_pushed(recipe, stage, t)


def require_inputs(run: Run, stage: str, t: int | None) -> dict[str, str]:
    """Hashes of the inputs' manifests; UserError naming the command where one is not current."""
    seen: dict[Entry, State] = {}
    hashes = {}
    for entry in inputs(run.recipe, stage, t):
        found = state(run.recipe, *entry, seen)
        if not found.current or found.manifest_hash is None:
            where = folder(run.recipe, *entry)
            raise UserError(f"{where}: {found.why}; run: {command(run, *entry)}")
        hashes[name(*entry)] = found.manifest_hash
    return hashes


def inputs_on_hub_alone(run: Run, stage: str, t: int | None) -> list[tuple[str, int]]:
    """The inputs that must be pulled. The report needs none: it reads single files."""
    if stage == "report" or not run.recipe.hub.push:
        return []
    return [e for e in inputs(run.recipe, stage, t) if state(run.recipe, *e).pushed is not None]


def file(recipe: Recipe, stage: str, t: int | None, name: str) -> Path:
    """One file of a current artifact: on this disk, or a copy of the Hub's.

    A report needs a checkpoint's training log, but not its gigabytes of weights.
    """
    there = state(recipe, stage, t).pushed if recipe.hub.push else None
    if there is None:
        return folder(recipe, stage, t) / name
    from selm.hub import client

    return client.file(there.place, there.revision, name)


def push_save(run: Run, t: int, folder: Path) -> None:
    """Bring a checkpoint of a training that goes on to the Hub; if that fails, say so and go on."""
    from selm.hub import client

    where = client.place(run.recipe, "checkpoint", t)
    try:
        client.push_save(where, folder, _partial_key(run, "checkpoint", t))
    except OutsideError as error:
        print(one_line(f"{error}; the training goes on without this save on the Hub"))
    else:
        print(one_line(f"{folder.name}: pushed to {where.repo} ({client.SAVES_BRANCH})"))


def pull_save(run: Run, t: int, folder: Path) -> None:
    """Bring the last pushed save of this very training to `folder`, if that holds none."""
    from selm.hub import client

    where = client.place(run.recipe, "checkpoint", t)
    if any(folder.glob("checkpoint-*")):
        return
    partial = folder.with_name(f".{folder.name}.pull")
    if client.pull_save(where, partial, _partial_key(run, "checkpoint", t)):
        folder.mkdir(parents=True, exist_ok=True)
        move_files(partial, folder)
        partial.rmdir()
        print(one_line(f"{folder}: pulled from {where.repo} ({client.SAVES_BRANCH})"))


def pull(recipe: Recipe, stage: str, t: int | None) -> None:
    """Bring an artifact that is on the Hub alone to this disk, checked file by file."""
    from selm.hub import client

    there = state(recipe, stage, t).pushed
    assert there is not None
    target = folder(recipe, stage, t)
    partial = target.parent / f".{stage}.pull"
    files = manifest.parse(there.manifest)["files"]
    pulled = client.download(there, [manifest.NAME, *files], partial)
    for path, facts in files.items():
        if sha256(pulled / path) != facts["sha256"]:
            shutil.rmtree(partial)
            raise OutsideError(f"hub: {there.place}: {path} arrived damaged; repeat the command")
    _move_into_place(pulled, target)
    shutil.rmtree(partial, ignore_errors=True)
    print(one_line(f"{target}: pulled from {there.place}"))


def push(run: Run, stage: str, t: int | None) -> None:
    """Bring a current artifact to the Hub, unless it is there; its inputs first.

    Raises:
        UserError: the Hub holds another artifact under this name.
        OutsideError: the Hub failed. Nothing is lost, a repeated push does what is missing.
    """
    from selm.hub import client

    recipe, target = run.recipe, folder(run.recipe, stage, t)
    where = client.place(recipe, stage, t)
    try:
        if _is_pushed(recipe, stage, t):
            return
        for entry in inputs(recipe, stage, t):
            if state(recipe, *entry).pushed is None:
                push(run, *entry)
        client.make_repository(recipe, where)
        client.push(where, target, lambda manifests: _card(recipe, stage, t, manifests))
        if stage == "checkpoint" and recipe.hub.every_save:
            client.drop_saves(where)
    except OutsideError as error:
        raise OutsideError(
            f"{target} is complete on this disk, but not on the Hub; repeat the command to push "
            f"it. {error}"
        ) from error
    print(one_line(f"{target}: pushed to {where.url}"))


def _is_pushed(recipe: Recipe, stage: str, t: int | None) -> bool:
    """Whether the Hub holds just what is on this disk; UserError if it holds something else."""
    from selm.hub import client

    there = client.find(client.place(recipe, stage, t))
    here = (folder(recipe, stage, t) / manifest.NAME).read_bytes()
    if there is None or there.manifest == here:
        return there is not None
    if stage == "report":
        return False
    changed = differing_keys(
        manifest.parse(there.manifest)["recipe"], manifest.parse(here)["recipe"]
    )
    written = manifest.parse(there.manifest)["written"]
    why = ", ".join(changed) or f"it was made in another run, at {written}"
    raise UserError(_refusal(there, why))


def _card(recipe: Recipe, stage: str, t: int | None, manifests: Mapping[str, bytes]) -> str:
    """The card of the repository of an artifact; `manifests` by folder in that repository."""
    from selm.hub import cards

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
    found: dict[str, "Pushed"] | None = None,
) -> dict[str, "Pushed"]:
    """What an artifact was made from and is on the Hub, just as it was then: inputs, and theirs."""
    from selm.hub import client

    found = {} if found is None else found
    for entry in inputs(recipe, stage, t):
        there = client.find(client.place(recipe, *entry))
        wanted = facts["inputs"].get(name(*entry))
        is_it = there is not None and hashlib.sha256(there.manifest).hexdigest() == wanted
        if there is not None and is_it and name(*entry) not in found:
            found[name(*entry)] = there
            _sources(recipe, *entry, json.loads(there.manifest), found)
    return found


def partial_path(recipe: Recipe, stage: str, t: int | None) -> Path:
    """Where unfinished work lies; processes beside the main one only need to know the name."""
    return folder(recipe, stage, t).parent / f".{stage}.partial"


def partial_folder(run: Run, stage: str, t: int | None) -> Path:
    """Where a stage keeps finished shards until it is complete; emptied if they are of old inputs.

    A stage that was killed finds here what it had done, if recipe and inputs are the same. What is
    discarded is said, and why.
    """
    partial = partial_path(run.recipe, stage, t)
    key = _partial_key(run, stage, t)
    if partial.exists():
        why = _why_discard(_read_bytes(partial / "key.json"), key)
        if why:
            shutil.rmtree(partial)
            print(one_line(f"{partial}: unfinished work is discarded, {why}"), flush=True)
    if not partial.exists():
        partial.mkdir(parents=True)
        write_text(partial / "key.json", key)
    return partial


def _partial_key(run: Run, stage: str, t: int | None) -> str:
    """What unfinished work belongs to: one recipe part, one set of inputs."""
    return json.dumps([recipe_part(run.recipe, stage, t), require_inputs(run, stage, t)])


def _why_discard(kept: bytes, key: str) -> str:
    """What is another one than when the work began; empty if nothing is."""
    if kept == key.encode():
        return ""
    (part, inputs_now), then = json.loads(key), None
    with suppress(ValueError, RecursionError):
        then = json.loads(kept)
    if not isinstance(then, list) or len(then) != 2:
        return "damaged: key.json is not the file that was written"
    changed = differing_keys(then[0], part)
    if changed:
        return f"recipe changed: {', '.join(changed)}"
    return f"its inputs were written anew: {', '.join(differing_keys(then[1], inputs_now))}"


def verdicts_folder(recipe: Recipe) -> Path:
    """Where judges keep their verdicts, each under a hash of all that was asked.

    No artifact: the stages of a run share it, and it outlives changes of the recipe. Delete it to
    have everything asked again.
    """
    return run_folder(recipe) / "verdicts"


def _read_bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


@dataclass
class Record:
    """What a stage reports about itself in its manifest; `note` is for its last line alone."""

    folder: Path
    rows: int = 0
    tokens: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    note: str = ""


@contextmanager
def writing(run: Run, stage: str, t: int | None, seconds_before: float = 0.0) -> Iterator[Record]:
    """Yield an empty folder to fill; at the end it gets its manifest and its final name.

    `seconds_before`: seconds that the stage has worked before it got here.
    """
    hashes, commit = require_inputs(run, stage, t), code_commit()
    target = folder(run.recipe, stage, t)
    building = target.parent / f".{stage}.tmp"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir(parents=True)
    started = time.monotonic()
    record = Record(building)
    yield record
    facts = {
        "stage": stage,
        "iteration": t,
        "run_name": run.recipe.run_name,
        "recipe": recipe_part(run.recipe, stage, t),
        "inputs": hashes,
        "revisions": _revisions(run.recipe),
        "rows": record.rows,
        "tokens": record.tokens,
        "dropped": dict(record.dropped),
        "seconds": round(seconds_before + time.monotonic() - started, 1),
        **record.facts,
        "command": command(run, stage, t),
        "versions": _versions(),
        "git_commit": commit,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    manifest.write(building, facts, hashes_in(Path(run.recipe.output_dir)))
    _move_into_place(building, target)
    shutil.rmtree(partial_path(run.recipe, stage, t), ignore_errors=True)


def _move_into_place(building: Path, target: Path) -> None:
    """Rename; an older artifact of that name is moved aside first, and deleted last."""
    old = target.parent / f".{target.name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    rename(building, target)
    shutil.rmtree(old, ignore_errors=True)


def sweep(recipe: Recipe, stage: str, t: int | None) -> None:
    """Remove what a kill left behind after a finished artifact had got its name."""
    parent = folder(recipe, stage, t).parent
    for what in ("tmp", "old", "partial", "pull"):
        shutil.rmtree(parent / f".{stage}.{what}", ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # an engine's package
    return found


def _revisions(recipe: Recipe) -> dict[str, str]:
    """The commits that the revisions of model, data and rankers stand for, as far as known.

    From the Hub's cache on this disk, which remembers what it last loaded; nothing is asked.
    """
    found = {}
    named = [("model", recipe.model.name_or_path, recipe.model.revision, "model")]
    named.append(("data", recipe.data.name_or_path, recipe.data.revision, "dataset"))
    for ranking in recipe.rankings():
        model = kind_of(ranking).model(ranking)
        if model is not None:
            named.append((ranking.section, model, ranking.revision, "model"))
    for key, repo, revision, repo_type in named:
        if is_local_path(repo):
            continue
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        cached = repo_folder_name(repo_id=repo, repo_type=repo_type)
        commit = _read_bytes(Path(constants.HF_HUB_CACHE, cached, "refs", revision))
        if commit:
            found[key] = commit.decode(errors="replace").strip()
    return found


def move_files(source: Path, target: Path) -> None:
    """Move everything in `source` into `target`, on the same disk."""
    for path in source.iterdir():
        os.replace(path, target / path.name)
