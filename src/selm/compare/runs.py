"""Reads the runs to compare: folders, folders of runs, or runs on the Hub.

Only the evaluations are read, and what shows that they belong to the recipe beside them. Models,
datasets and files that a recipe names may be gone: a run can be compared on another machine.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from selm.compare.grouping import deciding_keys, group
from selm.compare.places import Damaged, Place, place_of
from selm.compare.settings import Comparison, FinishedRun, Setting
from selm.data.schemas import EvaluationRow
from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.kinds import kind_of, label
from selm.recipe.schema import Recipe, Training
from selm.run.lineage import FORMATS, differing_keys
from selm.run.stages import evaluated_iterations, name


def load(paths: Sequence[str]) -> Comparison:
    """Read the runs and group them into settings.

    Args:
        paths: a run's folder, a folder of runs, or `namespace/run_name` on the Hub, each.

    Raises:
        UserError: one of them is no run, is damaged, or they cannot be compared.
    """
    every, shared = _without_shared([_run(place) for place in _every(paths)])
    _check_rankers([run for run in every if run.evaluations])
    settings, without = _finished(group(every))
    runs = [run for setting in settings for run in setting.runs]
    if not runs:
        raise UserError(one_line(f"nothing to compare: {without[0]}"))
    prompts, left_out = _common_prompts(runs)
    ranker = runs[0].recipe.held_out_ranking()
    return Comparison(
        settings,
        prompts,
        label(ranker),
        pairwise=kind_of(ranker).pairwise,
        left_out=left_out,
        without=(*shared, *without),
    )


def _without_shared(runs: Sequence[FinishedRun]) -> tuple[list[FinishedRun], list[str]]:
    """The runs, and a line for each that is left out because it shares all evaluations of another.

    Runs of a sweep do where the key that differs decides nothing, such as alpha without a term.
    """
    kept: dict[str, FinishedRun] = {}
    lines = []
    for run in runs:
        key = json.dumps([deciding_keys(run.recipe), run.manifests], sort_keys=True)
        first = kept.setdefault(key if run.manifests else str(run.folder), run)
        if first is not run:
            lines.append(f"{run.folder} is left out: its evaluations are those of {first.folder}")
    return list(kept.values()), lines


def _finished(settings: Sequence[Setting]) -> tuple[tuple[Setting, ...], list[str]]:
    """The settings with the runs that have their last iteration, and a line for each other run.

    Of a setting whose runs all lack the last iteration, those with the most are kept.
    """
    kept, without = [], []
    for setting in settings:
        last = max(max(run.evaluations, default=-1) for run in setting.runs)
        runs = tuple(run for run in setting.runs if last in run.evaluations)
        without += [
            f"{run.folder} is left out: {'; '.join(run.missing)}"
            for run in setting.runs
            if last not in run.evaluations
        ]
        if runs:
            kept.append(replace(setting, runs=runs))
    return tuple(kept), without


def _every(paths: Sequence[str]) -> list[Place]:
    found = [place for path in paths for place in place_of(path)]
    seen: dict[str, Place] = {}
    for place in found:
        if place.identity in seen:
            raise UserError(one_line(f"{place}: the same run twice; name it once"))
        seen[place.identity] = place
    return found


def _run(place: Place) -> FinishedRun:
    recipe = place.recipe
    evaluations: dict[int, Sequence[EvaluationRow]] = {}
    manifests: dict[int, dict[str, Any]] = {}
    missing = []
    for t in evaluated_iterations(recipe):
        artifact = name("evaluation", t)
        try:
            facts = place.manifest(artifact)
            why = "is not there" if facts is None else _why_stale(place, artifact)
            if facts is not None and not why:
                evaluations[t], manifests[t] = place.rows(artifact, facts), facts
        except Damaged as error:
            raise UserError(
                one_line(f"{place}/{artifact}: damaged: {error}; delete it and repeat the run")
            ) from error
        if why:
            missing.append(f"{artifact} {why}")
    folder = Path(str(place))
    return FinishedRun(recipe.run_name, folder, recipe, evaluations, manifests, tuple(missing))


def _why_stale(place: Place, artifact: str) -> str:
    """Why an artifact is not what the recipe asks for, as far as manifests tell; or empty.

    Inputs that were deleted, such as checkpoints, are taken to be what they were.
    """
    facts = place.manifest(artifact)
    if facts is None:
        return ""
    iteration, stage = facts["iteration"], facts["stage"]
    if stage == "evaluation" and facts["recipe"]["format"] != FORMATS[stage]:
        return "is from another version of selm"
    changed = _changed(place.recipe, stage, iteration, facts["recipe"])
    if changed:
        return f"is of another recipe: {', '.join(changed)}"
    for of_input, wanted in facts["inputs"].items():
        there = place.manifest_hash(of_input)
        if there is not None and there != wanted:
            return f"is not of the present {of_input}, which was written again"
        why = _why_stale(place, of_input)
        if why:
            return f"is of {of_input}, which {why}"
    return ""


def _changed(recipe: Recipe, stage: str, t: int, part: dict[str, Any]) -> list[str]:
    """Keys that a manifest has otherwise than the recipe; values of TRL's keys are not compared."""
    wanted: dict[str, Any] = {"seed": recipe.seed}
    if stage == "checkpoint":
        if t > len(recipe.iterations):
            return [f"iterations ({t} -> {len(recipe.iterations)})"]
        own = recipe.training.model_dump(mode="json") | {"alpha": recipe.alpha(t)}
        wanted["iteration"] = recipe.iteration(t).model_dump(mode="json")
        wanted["training"] = {
            key: own[key] for key in part["training"] if key in Training.model_fields
        }
    given = {key: part[key] for key in wanted if key in part}
    if "training" in given:
        given["training"] = {key: part["training"][key] for key in wanted["training"]}
    return differing_keys(given, wanted)


def _check_rankers(runs: Sequence[FinishedRun]) -> None:
    """UserError unless the same ranker gave all rewards."""
    for run in runs:
        first = next(iter(runs[0].manifests.values()))["recipe"]["ranking"]
        for manifest in run.manifests.values():
            other = manifest["recipe"]["ranking"]
            differing = differing_keys(_by_content(first), _by_content(other), "ranking")
            if differing:
                raise UserError(
                    one_line(
                        f"{run.folder}: its rewards are of another ranker than those of "
                        f"{runs[0].folder}: {', '.join(differing)}; rewards of one ranker can be "
                        "compared"
                    )
                )


def _by_content(ranking: Any) -> Any:
    """A ranking's part of a recipe without the names of files whose content is in it."""
    if not isinstance(ranking, dict):
        return ranking
    known = {key for key in ranking if f"{key}.content" in ranking}
    if "content" in ranking:
        known.add("name_or_path")
    return {key: _by_content(value) for key, value in ranking.items() if key not in known}


def _common_prompts(runs: Sequence[FinishedRun]) -> tuple[tuple[str, ...], int]:
    """Ids of the prompts that all evaluations have, in sorted order; how many others there are.

    Where two evaluations have different prompts under one id, neither counts.
    """
    evaluations = [rows for run in runs for rows in run.evaluations.values()]
    texts = [{row["prompt_id"]: json.dumps(row["prompt"]) for row in rows} for rows in evaluations]
    every = dict.fromkeys(prompt for of_one in texts for prompt in of_one)
    common = sorted(
        prompt for prompt in every if len({of_one.get(prompt) for of_one in texts}) == 1
    )
    if not common:
        raise UserError(
            "no held-out prompt is in all evaluations of all runs: compare runs of the same data "
            "and the same evaluation.limit"
        )
    return tuple(common), len(every) - len(common)
