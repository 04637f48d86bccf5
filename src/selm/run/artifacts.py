"""Where a stage's output lies, and whether it is complete and current.

There are two places: a folder on this disk and, if `hub.push` is true, the Hub (`on_hub.py`). A
stage writes to the disk, then pushes; an input that is missing on the disk is pulled.

An artifact is a folder with a `manifest.json`. The manifest holds the part of the recipe that the
stage depends on and the hashes of its inputs' manifests, so each artifact is chained back to the
base model. An artifact is *current* if that part, those hashes and its own files are unchanged.

Folders are built under a temporary name and then renamed, so a folder with its final name is
complete.
"""

import hashlib
import json
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from selm.errors import UserError
from selm.escape import one_line
from selm.files import write_text
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.benchmarks import results
from selm.run.hashes import hashes_in
from selm.run.lineage import differing_keys, inputs, recipe_part
from selm.run.plan import Run, command
from selm.run.stages import Entry, name, stages

if TYPE_CHECKING:  # the Hub's client takes half a second to import, and runs without it must not
    from selm.run.on_hub import Pushed


@dataclass(frozen=True)
class State:
    """Whether an artifact can be used, and if not, the reason: `missing`, `recipe changed: ...`.

    Attributes:
        pushed: its place, if it is current on the Hub but not on this disk.
    """

    current: bool
    why: str = ""
    manifest_hash: str | None = None
    pushed: "Pushed | None" = None


def run_folder(recipe: Recipe) -> Path:
    return Path(recipe.output_dir) / recipe.run_name


def folder(recipe: Recipe, stage: str, t: int | None) -> Path:
    """`runs/<run_name>/iter-2/responses`; the report has no iteration."""
    return run_folder(recipe) / name(stage, t)


def policy_path(recipe: Recipe, t: int) -> str:
    """What `from_pretrained` loads for pi_t; t = 0 is the base model."""
    return recipe.model.name_or_path if t == 0 else str(folder(recipe, "checkpoint", t))


def read_manifest(recipe: Recipe, stage: str, t: int | None) -> dict[str, Any]:
    """The manifest of an artifact that is known to exist."""
    return manifest.parse(file(recipe, stage, t, manifest.NAME).read_bytes())


def state(recipe: Recipe, stage: str, t: int | None) -> State:
    """Whether the artifact is what the recipe asks for, all the way to the base model.

    UserError if the Hub holds something else under its name: nothing there is overwritten.
    """
    return Look(recipe).state(stage, t)


class Look:
    """The states of a run's artifacts; each is computed once, however many others depend on it."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self._seen: dict[Entry, State] = {}

    def state(self, stage: str, t: int | None) -> State:
        """See the function of that name."""
        entry = (stage, t)
        if entry not in self._seen:
            here = self._on_disk(*entry)
            ask_hub = self.recipe.hub.push and not here.current
            self._seen[entry] = self._on_hub(*entry, here) if ask_hub else here
        return self._seen[entry]

    def inputs(self, stage: str, t: int | None) -> list[tuple[str, int]]:
        """The artifacts that a stage reads; the report also reads the benchmarks that are done."""
        done = results(self.recipe) if stage == "report" else []
        return inputs(self.recipe, stage, t) + [e for e in done if self.state(*e).current]

    def _on_disk(self, stage: str, t: int | None) -> State:
        return self.state_of(folder(self.recipe, stage, t), stage, t)

    def state_of(self, root: Path, stage: str, t: int | None) -> State:
        """Whether this folder, of this run or of another, holds what the recipe asks for."""
        if not (root / manifest.NAME).is_file():
            return State(False, "missing")
        try:
            text = manifest.read(root)
            found = self._match(stage, t, text)
            if found.current:
                hashes = hashes_in(Path(self.recipe.output_dir))
                manifest.check_files(root, manifest.parse(text)["files"], hashes)
        except manifest.Damaged as error:
            return State(False, f"damaged: {error}")
        return found

    def _on_hub(self, stage: str, t: int | None, here: State) -> State:
        from selm.run import on_hub

        there = on_hub.find(on_hub.place(self.recipe, stage, t))
        if there is None:
            return here
        try:
            found = self._match(stage, t, there.manifest)
        except manifest.Damaged as error:
            found = State(False, f"damaged: {error}")
        if found.current:
            return replace(found, pushed=there)
        if stage == "report":  # made of all the others in seconds, and pushed again
            return here
        raise UserError(_refusal(there, found.why))

    def _match(self, stage: str, t: int | None, manifest_bytes: bytes) -> State:
        """Whether a manifest matches this recipe and the present inputs."""
        facts = manifest.parse(manifest_bytes)
        changed = differing_keys(facts["recipe"], recipe_part(self.recipe, stage, t))
        if changed:
            return State(False, f"recipe changed: {', '.join(changed)}")
        wanted = self.inputs(stage, t)
        if set(facts["inputs"]) != {name(*entry) for entry in wanted}:
            return State(False, "it now has other inputs")
        for entry in wanted:
            upstream = self.state(*entry)
            if not upstream.current:
                return State(False, f"its input {name(*entry)} is not current ({upstream.why})")
            if upstream.manifest_hash != facts["inputs"][name(*entry)]:
                return State(False, f"its input {name(*entry)} was written again")
        return State(True, manifest_hash=hashlib.sha256(manifest_bytes).hexdigest())


def _refusal(there: "Pushed", why: str) -> str:
    return (
        f"{there.place} is already on the Hub and was not made by this recipe: {why}; "
        "use another run_name, or delete it there"
    )


def finished_benchmarks(recipe: Recipe) -> list[tuple[str, int]]:
    """The current results of the recipe's benchmarks."""
    look = Look(recipe)
    return [entry for entry in results(recipe) if look.state(*entry).current]


def finished_iterations(recipe: Recipe) -> list[tuple[str, int]]:
    """The stages up to the last evaluation before the first stage that is not current."""
    look = Look(recipe)
    current = takewhile(lambda entry: look.state(*entry).current, inputs(recipe, "report", None))
    entries = list(current)
    while entries and entries[-1][0] != "evaluation":
        entries.pop()
    return entries


def done(recipe: Recipe, benchmarks: bool = False) -> dict[Entry, str]:
    """The stages that are finished and pushed if the recipe says so, each with a line for the plan.

    The report is never among them, because its last line ends a run; after benchmarks it is left
    out while the run itself is not finished.

    Args:
        benchmarks: the results of benchmarks instead of the run's stages.
    """
    look, lines = Look(recipe), dict[Entry, str]()
    missing = [e for e in inputs(recipe, "report", None) if not look.state(*e).current]
    if benchmarks and missing:
        why = f"the run is not finished ({name(*missing[0])} is missing)"
        lines["report", None] = f"{folder(recipe, 'report', None)}: not written, {why}"
    for stage, t in results(recipe) if benchmarks else stages(recipe):
        found = look.state(stage, t)
        if stage != "report" and found.current and _is_where_it_belongs(recipe, stage, t, found):
            lines[stage, t] = done_line(recipe, stage, t, found)
            sweep(recipe, stage, t)
    return lines


def done_line(recipe: Recipe, stage: str, t: int | None, found: State) -> str:
    """`runs/<run_name>/iter-1/responses: already done`, and the place if it is not on this disk."""
    where = "" if found.pushed is None else f", on the Hub in {found.pushed.place}"
    return f"{folder(recipe, stage, t)}: already done{where}"


def _is_where_it_belongs(recipe: Recipe, stage: str, t: int | None, found: State) -> bool:
    return not recipe.hub.push or found.pushed is not None or is_pushed(recipe, stage, t)


def is_pushed(recipe: Recipe, stage: str, t: int | None) -> bool:
    """Whether the Hub holds the same artifact as this disk; UserError if it holds another."""
    from selm.run import on_hub

    there = on_hub.find(on_hub.place(recipe, stage, t))
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


def sweep(recipe: Recipe, stage: str, t: int | None) -> None:
    """Remove leftovers of a process that was killed after the artifact was complete."""
    for what in ("tmp", "old", "partial", "pull"):
        shutil.rmtree(_beside(recipe, stage, t, what), ignore_errors=True)


def require_inputs(run: Run, stage: str, t: int | None) -> dict[str, str]:
    """Hashes of the inputs' manifests; UserError with the command to run if one is not current."""
    look, hashes = Look(run.recipe), {}
    for entry in look.inputs(stage, t):
        found = look.state(*entry)
        if not found.current or found.manifest_hash is None:
            where = folder(run.recipe, *entry)
            raise UserError(f"{where}: {found.why}; run: {command(run, *entry)}")
        hashes[name(*entry)] = found.manifest_hash
    return hashes


def inputs_on_hub_alone(run: Run, stage: str, t: int | None) -> list[tuple[str, int]]:
    """The inputs that must be pulled; none for the report, which reads single files."""
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
    from selm.run import on_hub

    return on_hub.file(there.place, there.revision, name)


def partial_path(recipe: Recipe, stage: str, t: int | None) -> Path:
    """The folder of unfinished work; processes beside the main one only need its name."""
    return _beside(recipe, stage, t, "partial")


def _beside(recipe: Recipe, stage: str, t: int | None, what: str) -> Path:
    target = folder(recipe, stage, t)
    return target.parent / f".{target.name}.{what}"


def partial_folder(run: Run, stage: str, t: int | None) -> Path:
    """The folder of a stage's finished shards until it is complete; emptied if its inputs changed.

    A stage that was killed finds its shards here if recipe and inputs are the same. A line says
    what is deleted, and why.
    """
    partial = partial_path(run.recipe, stage, t)
    key = partial_key(run, stage, t)
    if partial.exists():
        kept = partial / "key.json"
        why = _why_discard(kept.read_bytes() if kept.is_file() else b"", key)
        if why:
            shutil.rmtree(partial)
            print(one_line(f"{partial}: unfinished work is deleted, {why}"), flush=True)
    if not partial.exists():
        partial.mkdir(parents=True)
        write_text(partial / "key.json", key)
    return partial


def partial_key(run: Run, stage: str, t: int | None) -> str:
    """The key of unfinished work: the recipe's part and the inputs."""
    belongs_to = [recipe_part(run.recipe, stage, t), require_inputs(run, stage, t)]
    return json.dumps(belongs_to, sort_keys=True)


def _why_discard(kept: bytes, key: str) -> str:
    """What has changed since the work began; empty if nothing has."""
    (part, inputs_now), then = json.loads(key), None
    with suppress(ValueError, RecursionError):
        then = json.loads(kept)
    if then == [part, inputs_now]:
        return ""
    if not isinstance(then, list) or len(then) != 2:
        return "damaged: key.json has changed since it was written"
    changed = differing_keys(then[0], part)
    if changed:
        return f"recipe changed: {', '.join(changed)}"
    return f"its inputs were written again: {', '.join(differing_keys(then[1], inputs_now))}"


def verdicts_folder(recipe: Recipe) -> Path:
    """The folder of the judges' verdicts, each under a hash of its whole question.

    It is not an artifact: all stages of a run share it, and it stays when the recipe changes.
    Delete it to ask everything again.
    """
    return run_folder(recipe) / "verdicts"
