"""How far a run is: from what lies in its folder, while it runs and afterwards. Imports no torch.

A stage is done if its manifest says so; its files are not hashed, as that may take minutes. At work
is who holds its lock. How far that one is says a note beside its log (`selm.progress`); of one that
was stopped, its finished shards or its last save.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from selm import progress
from selm.cost.estimate import stage_cost, unknown
from selm.errors import UserError
from selm.escape import one_line
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.recipe.secrets import hide
from selm.run import artifacts, manifest
from selm.run.alone import holder
from selm.run.plan import time_text
from selm.run.spans import rows_in
from selm.run.stages import Entry, describe, label, stages

TAIL_LINES, TAIL_WIDTH = 3, 160

Kind = Literal["done", "stale", "running", "failed", "stopped", "not begun"]

# How the line begins with which a stage ends that failed; see `selm.cli` and Python's tracebacks.
_FAILURES = ("error: ", "Traceback ")
_WRITTEN = ": written, "  # of a stage that is done; see `selm.cli.Stage.writing`


@dataclass(frozen=True)
class Standing:
    """Where one stage stands.

    Attributes:
        text: how much of it is done, and how fast; or why it is stale.
        seconds: that a finished stage took, or one at work has taken so far.
        left: seconds until it is done; None if nobody can tell.
        tail: the last lines of its log, where they may say what happened.
    """

    stage: str
    t: int | None
    kind: Kind
    text: str = ""
    seconds: float | None = None
    left: float | None = None
    tail: tuple[str, ...] = ()


class _Glance(artifacts.Look):
    """The states by manifests alone."""

    def state_of(self, root: Path, stage: str, t: int | None) -> artifacts.State:
        """See `Look`."""
        if not (root / manifest.NAME).is_file():
            return artifacts.State(False, "missing")
        try:
            return self._match(stage, t, manifest.read(root))
        except manifest.Damaged as error:
            return artifacts.State(False, f"damaged: {error}")


def recipe_of(folder: Path) -> Recipe:
    """The recipe that was saved beside a run, for the folder where it is now, without the Hub.

    Raises:
        UserError: the folder holds no run.
    """
    saved = folder / "recipe.yaml"
    if not saved.is_file():
        why = "there is no recipe.yaml in it" if folder.is_dir() else "there is no such folder"
        raise UserError(f"{folder}: {why}; name the folder of a run, such as runs/<run_name>")
    recipe = load_recipe(str(saved), [])
    where = folder.absolute()
    here = {"output_dir": str(where.parent), "run_name": where.name}
    return recipe.model_copy(update=here | {"hub": recipe.hub.model_copy(update={"push": False})})


class Status:
    """The stages of a run, each with where it stands."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.recipe = folder, recipe_of(folder)
        self._estimates = unknown(self.recipe) is None

    @cached_property
    def standings(self) -> list[Standing]:
        """In the order of the plan."""
        look = _Glance(self.recipe)
        states = {entry: look.state(*entry) for entry in stages(self.recipe)}
        done = {entry: self._seconds(*entry) for entry, found in states.items() if found.current}
        ratios = _ratios(done, {entry: self._estimate(*entry) for entry in states})
        return [
            self._done(*entry, done[entry])
            if entry in done
            else self._unfinished(*entry, found, self._corrected(entry, ratios))
            for entry, found in states.items()
        ]

    def is_at_work(self) -> bool:
        """Whether any process is, also one that is just beginning or ending."""
        return any(holder(self._lock(*entry)) is not None for entry in stages(self.recipe))

    def _lock(self, stage: str, t: int | None) -> Path:
        folder = Path(self.recipe.output_dir) / ".locks"
        return folder / f"{self.recipe.run_name}-{label(stage, t)}"

    def _manifest(self, stage: str, t: int | None) -> dict[str, Any]:
        return manifest.parse(
            (artifacts.folder(self.recipe, stage, t) / manifest.NAME).read_bytes()
        )

    def _seconds(self, stage: str, t: int | None) -> float:
        return float(self._manifest(stage, t)["seconds"])

    def _estimate(self, stage: str, t: int | None) -> float | None:
        return stage_cost(self.recipe, stage, t).seconds if self._estimates else None

    def _corrected(self, entry: Entry, ratios: Mapping[str, float]) -> float | None:
        """The plan's estimate times what stages of its kind took, measured by theirs."""
        estimate = self._estimate(*entry)
        ratio = ratios.get(describe(entry[0]).script, ratios.get("", 1.0))
        return None if estimate is None else estimate * ratio

    def _done(self, stage: str, t: int | None, seconds: float) -> Standing:
        return Standing(stage, t, "done", f"{self._manifest(stage, t)['rows']:,} rows", seconds)

    def _unfinished(
        self, stage: str, t: int | None, found: artifacts.State, expected: float | None
    ) -> Standing:
        named, where = label(stage, t), self.folder / "logs"
        lock = self._lock(stage, t)
        logs = sorted(where.glob(f"{named}.*.log"), key=_attempt)
        if logs and holder(lock) is not None:
            elapsed = time.time() - lock.stat().st_mtime  # when it was locked
            text, left = _now(logs[-1], None if expected is None else max(0, expected - elapsed))
            return Standing(stage, t, "running", text, elapsed, left)
        kept = self._kept(stage, t)
        if found.why != "missing":
            return Standing(stage, t, "stale", found.why, left=expected)
        tail = _tail(logs[-1]) if logs else ()
        deleted = any(_WRITTEN in line for line in tail)  # after an attempt that was complete
        if not kept and (deleted or not logs):
            return Standing(stage, t, "not begun", left=expected)
        failed = any(line.startswith(_FAILURES) for line in tail)
        return Standing(stage, t, "failed" if failed else "stopped", kept, None, expected, tail)

    def _kept(self, stage: str, t: int | None) -> str:
        """What an attempt left that has ended."""
        partial = artifacts.partial_path(self.recipe, stage, t)
        saves = partial.glob("steps/checkpoint-*/trainer_state.json")
        steps = max((int(path.parent.name.rpartition("-")[2]) for path in saves), default=0)
        if steps:
            return f"saved at step {steps:,}"
        rows = rows_in(partial)
        if not rows:
            return ""
        total = f"/{stage_cost(self.recipe, stage, t).rows:,}" if self._estimates else ""
        return f"{rows:,}{total} rows are kept"


def _ratios(
    done: Mapping[Entry, float], estimates: Mapping[Entry, float | None]
) -> dict[str, float]:
    """Measured seconds over estimated ones, by script; under "" of all stages together.

    >>> _ratios({("answers", 0): 32.0, ("report", None): 4.0},
    ...         {("answers", 0): 10.0, ("report", None): 8.0, ("answers", 1): 10.0})
    {'answer': 3.2, '': 2.0, 'report': 0.5}
    """
    took, planned = defaultdict[str, float](float), defaultdict[str, float](float)
    for entry, seconds in done.items():
        for kind in (describe(entry[0]).script, ""):
            took[kind] += seconds
            planned[kind] += estimates[entry] or 0
    return {kind: took[kind] / planned[kind] for kind in took if planned[kind] > 0}


def _now(log: Path, by_plan: float | None) -> tuple[str, float | None]:
    """What the stage of a log is doing, and how many seconds it still takes.

    Rows and steps are the whole of a stage, so their speed tells; the reference's log-probs are
    only the first part of a training.
    """
    note = progress.noted(log)
    if note is None:
        return "", by_plan
    count = f"{note['done']:,}/{note['total']:,} {progress.plural(note['unit'])}"
    text = f"{note['what'].rpartition(': ')[2]}, {count}"
    here = note["done"] - note["began_with"]
    if here <= 0 or note["seconds"] <= 0:
        return text, by_plan
    text += f", {progress.speed(here / note['seconds'], note['unit'])}"
    left = (note["total"] - note["done"]) * note["seconds"] / here
    return text, left if note["unit"] in ("row", "step") else by_plan


def _attempt(log: Path) -> int:
    number = log.name.split(".")[-2]
    return int(number) if number.isdecimal() else 0


def _tail(log: Path) -> tuple[str, ...]:
    """The last lines; of long ones the beginning."""
    text = log.read_bytes()[-10_000:].decode("utf-8", errors="replace")
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return tuple(hide(one_line(line))[:TAIL_WIDTH] for line in lines[-TAIL_LINES:])


def table(status: Status) -> list[str]:
    """The lines to print."""
    standings, rows = status.standings, [["stage", "iteration", "state", "time", "left", ""]]
    for each in standings:
        iteration = "" if each.t is None else str(each.t)
        times = ["" if s is None else time_text(s) for s in (each.seconds, each.left)]
        rows.append([describe(each.stage).script, iteration, each.kind, *times, each.text])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    for each in standings:
        if each.tail:
            lines += [f"{label(each.stage, each.t)} ended with:", *(f"  {s}" for s in each.tail)]
    return [f"{status.folder}:", *lines, _summary(status)]


def _summary(status: Status) -> str:
    """`4 of 12 stages are done, in 20 min; about 40 min left`"""
    standings = status.standings
    done = [each for each in standings if each.kind == "done"]
    others = [each for each in standings if each.kind != "done"]
    said = f"{len(done)} of {len(standings)} stages are done, "
    said += f"in {time_text(sum(each.seconds or 0 for each in done))}"
    if not others:
        return said
    left = [each.left for each in others]
    known = [seconds for seconds in left if seconds is not None]
    if len(known) == len(left):
        said += f"; about {time_text(sum(known))} left"
    if not status.is_at_work():
        said += "; no stage is at work"
    return said
