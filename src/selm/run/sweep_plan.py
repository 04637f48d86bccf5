"""The plan of a sweep: a bash script with the commands of all its runs, and of their comparison."""

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from selm import home
from selm.cost.estimate import stage_cost, unknown
from selm.cost.quantities import model_shape
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run.plan import (
    GOES_ON,
    Run,
    comment,
    devices,
    size_text,
    stage_lines,
    stop_at_failure,
    time_text,
    warnings,
)
from selm.run.stages import Entry, stages
from selm.run.sweep import Member, Sweep, all_listed, chosen, in_words, shared

SHARED = "shared"  # --only shared: what several runs share

# run_name -> its finished stages, each with the line to print in place of its command
Done = Mapping[str, Mapping[Entry, str]]


def script(sweep: Sweep, done: Done | None = None, only: str | None = None) -> str:
    """The whole plan as a bash script that stops at the first failure and says what to repeat.

    Args:
        done: finished stages to leave out.
        only: the name or number of one run, or `shared` for what several runs share.
    """
    members = planned(sweep, only)
    wanted = _entries(sweep, only)
    checks = _checks(members, wanted, done)
    lines = _header(sweep, only)
    lines += ["", "# the first look at each recipe", *checks] if checks else []
    for member in members:
        entries = wanted[member.name]
        if entries:
            lines += [
                "",
                *_run(sweep, member, entries, None if done is None else done[member.name]),
            ]
    if not any(wanted[member.name] for member in members):
        lines += ["", "echo 'no two runs of the sweep share an artifact'"]
    if only is None:
        lines += ["", "# the comparison of all runs", *_comparison(sweep)]
    return "\n".join(lines) + "\n"


def planned(sweep: Sweep, only: str | None) -> Sequence[Member]:
    """The runs of which the plan has commands."""
    return sweep.members if only in (None, SHARED) else [chosen(sweep, only or "")]


def _entries(sweep: Sweep, only: str | None) -> dict[str, list[Entry]]:
    """run_name -> the stages that the plan has commands for."""
    if only != SHARED:
        return {member.name: stages(member.run.recipe) for member in sweep.members}
    taken = shared(sweep.members)
    several = {m.keys[entry] for m in sweep.members for entry in m.keys if (m.name, entry) in taken}
    return {
        m.name: [e for e, key in m.keys.items() if key in several and (m.name, e) not in taken]
        for m in sweep.members
    }


def _is_finished(entries: Collection[Entry], done: Mapping[Entry, str] | None) -> bool:
    return done is not None and all(entry in done for entry in entries)


def _checks(
    members: Sequence[Member], wanted: Mapping[str, Collection[Entry]], done: Done | None
) -> list[str]:
    """A first look at each recipe: with the overrides of its first run that is not finished."""
    first: dict[str, Run] = {}
    for member in members:
        entries = wanted[member.name]
        if entries and not _is_finished(entries, None if done is None else done[member.name]):
            first.setdefault(member.run.path, member.run)
    return [_command("check", run, "--quick") for run in first.values()]


def _command(name: str, run: Run, *options: str) -> str:
    return shlex.join([*home.words(name), *options, run.path, *run.overrides])


def _run(
    sweep: Sweep, member: Member, entries: Sequence[Entry], done: Mapping[Entry, str] | None
) -> list[str]:
    """The commands of one run; a single line if it is finished."""
    number = sweep.members.index(member) + 1
    differs = f" ({in_words(member.differs)})" if member.differs else ""
    head = comment(f"run {number} of {len(sweep.members)}: {member.name}{differs}")
    if _is_finished(entries, done):
        folder = sweep.folder / member.name
        return [head, shlex.join(["echo", f"{folder}: already done, {len(entries)} stages"])]
    notes = {
        entry: f"shared with {other}"
        for (name, entry), other in shared(sweep.members).items()
        if name == member.name
    }
    return [head, _command("link", member.run), *stage_lines(member.run, entries, done, notes)]


def _comparison(sweep: Sweep) -> list[str]:
    """The comparison of this sweep's runs and the finished runs of earlier ones in its folder."""
    own = {member.name for member in sweep.members}
    names = [run["name"] for run in all_listed(sweep)]
    left_out = [n for n in names if n not in own and not (sweep.folder / n / "report").is_dir()]
    folders = [str(sweep.folder / name) for name in names if name not in left_out]
    line = [*home.words("compare"), *folders, "--out", str(sweep.folder / "compare")]
    said = [comment(f"without runs that are not finished: {', '.join(left_out)}")]
    return [*(said if left_out else []), shlex.join(line)]


def _header(sweep: Sweep, only: str | None) -> list[str]:
    values = [f"{key}={','.join(given)}" for key, given in sweep.values.items()]
    runs = f"{len(sweep.members)} run{'s' if len(sweep.members) > 1 else ''}"
    about = f"sweep of {runs}: {' '.join(values) or 'one combination'}; "
    again = [*home.run_words(), "--sweep", *sweep.words]
    parts = {None: [], SHARED: ["this part: what several of them share"]}
    repeated = [
        f"left out, since all artifacts would be those of {maker}: "
        + ", ".join(name for name, other in sweep.repeated.items() if other == maker)
        for maker in dict.fromkeys(sweep.repeated.values())
    ]
    every_warning = (line for member in sweep.members for line in warnings(member.run))
    said = [
        f"{about}all output in {sweep.folder}/",
        *parts.get(only, [f"this part: run {only}"]),
        *repeated,
        *_estimate(sweep),
        *dict.fromkeys(every_warning),
    ]
    return [
        "#!/usr/bin/env bash",
        *map(comment, said),
        *stop_at_failure([*again, *([] if only is None else ["--only", only])]),
        GOES_ON,
    ]


def _estimate(sweep: Sweep) -> list[str]:
    """What all runs take together, and what they save by sharing."""
    taken = shared(sweep.members)
    total = sum(len(member.keys) for member in sweep.members)
    saves = f"sharing: {len(taken)} of {total} artifacts are made by an earlier run and linked"
    recipes = [member.run.recipe for member in sweep.members]
    why = next(filter(None, map(unknown, recipes)), None)
    if why is not None:
        return [f"no estimates: {why}", saves]
    costs = {(m.name, e): stage_cost(m.run.recipe, *e) for m in sweep.members for e in m.keys}
    reports = [stage_cost(recipe, "report", None) for recipe in recipes]
    disk = sum(each.disk_bytes for each in costs.values()) + _downloads(recipes)
    disk += max(each.scratch_bytes for each in costs.values())
    seconds = sum(each.seconds for each in [*costs.values(), *reports])
    saved_seconds = sum(costs[each].seconds for each in taken)
    saved_disk = sum(costs[each].disk_bytes for each in taken)
    where = ", ".join(dict.fromkeys(map(devices, recipes)))
    return [
        f"estimate: {time_text(seconds - saved_seconds)}, {size_text(disk - saved_disk)} of disk "
        f"for all runs, on {where}; what is shared counts once",
        f"{saves}, which saves {time_text(saved_seconds)} and {size_text(saved_disk)} of disk",
    ]


def _downloads(recipes: Sequence[Recipe]) -> float:
    """The bytes of the base models that are fetched from the Hub, each once."""
    models = {(r.model.name_or_path, r.model.revision): r for r in recipes}
    return sum(
        2 * model_shape(recipe).parameters
        for (name, _), recipe in models.items()
        if not is_local_path(name)
    )


def run_folders(sweep: Sweep) -> list[Path]:
    """The folders of this sweep's runs; a run of an earlier sweep stands in for the same one."""
    names = [*(member.name for member in sweep.members), *sweep.repeated.values()]
    return [sweep.folder / name for name in dict.fromkeys(names)]
