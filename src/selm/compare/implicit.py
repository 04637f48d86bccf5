"""Implicit rewards of finished runs on held-out pairs, and how those of two runs differ.

The implicit reward of an answer after iteration t is beta * (log pi_t - log pi_0), where pi_0 is
the base model (Fig. 4 of arXiv 2405.19332). A run's folder has its recipe, and the log-probs that
`scripts/logps.py` writes. Imports no torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from selm.compare.settings import Setting
from selm.data.parquet import read_rows
from selm.data.schemas import LogpsRow
from selm.errors import UserError
from selm.home import SCRIPTS
from selm.recipe.loading import load_recipe
from selm.recipe.places import escape
from selm.run import artifacts
from selm.run.child import run_to_end
from selm.run.lineage import differing_keys, recipe_part
from selm.run.linking import link
from selm.run.plan import Run, command

SCRIPT = SCRIPTS / "logps.py"


@dataclass(frozen=True)
class ImplicitRewards:
    """Implicit rewards of one policy on the chosen and on the rejected answers of P prompts."""

    prompts: tuple[str, ...]
    chosen_P: np.ndarray
    rejected_P: np.ndarray


@dataclass(frozen=True)
class Differences:
    """Implicit rewards of one setting's policies minus those of another's on the same pairs.

    Attributes:
        names: of the settings.
        chosen_SN, rejected_SN: for the two answers, of each pair of seeds and each held-out pair.
    """

    names: tuple[str, str]
    chosen_SN: np.ndarray
    rejected_SN: np.ndarray


def of_settings(setting: Setting, other: Setting, t: int) -> Differences:
    """The rewards of a setting minus those of another, both after iteration t.

    Missing log-probs are made first. Runs are paired in the order of their seeds; each run's
    rewards have its own beta.

    Raises:
        UserError: a run is not a folder here, has no such iteration, or differs in the base model
            or the held-out pairs.
    """
    pairs = list(zip(setting.runs, other.runs, strict=False))
    for run in dict.fromkeys(run.folder for pair in pairs for run in pair):
        check_comparable(pairs[0][0].folder, run)
        ensure(run, t)
    found = [_difference(one.folder, two.folder, t) for one, two in pairs]
    chosen_SN, rejected_SN = (np.array(each) for each in zip(*found, strict=True))
    return Differences((setting.name, other.name), chosen_SN, rejected_SN)


def ensure(run_folder: Path, t: int) -> None:
    """Make the log-probs of the base model and of iteration t of a run, unless they are current.

    Where another run of the same folder has them, they are linked. Otherwise `scripts/logps.py`
    makes them in a process of its own; if that fails, its message is on stderr already, and this
    process exits with its code.
    """
    run = run_of(run_folder)
    last = len(run.recipe.iterations)
    if not 0 < t <= last:
        raise UserError(f"--implicit {t}: {run_folder} has iterations 1..{last}")
    for i in (0, t):
        if artifacts.state(run.recipe, "logps", i).current or link(run.recipe, "logps", i):
            continue
        run_to_end([str(SCRIPT), run.path, "--iteration", str(i), *run.overrides])


def run_of(run_folder: Path) -> Run:
    """The run of a folder by its saved recipe, also where the folder was moved to another place."""
    path = run_folder / "recipe.yaml"
    if not path.is_file():
        raise UserError(f"{run_folder}: it has no recipe.yaml, so it is not the folder of a run")
    recipe, there = load_recipe(path), run_folder.resolve()
    overrides = []
    if Path(recipe.output_dir).resolve() != there.parent:
        overrides.append(f"output_dir={json.dumps(escape(str(there.parent)))}")
    if recipe.run_name != there.name:
        overrides.append(f"run_name={json.dumps(there.name)}")
    return Run(load_recipe(path, overrides), str(path), tuple(overrides))


def implicit_rewards(run_folder: Path, t: int) -> ImplicitRewards:
    """The rewards after iteration t, for the prompts with log-probs under both policies.

    Raises:
        UserError: log-probs are missing or not current; see `ensure`.
    """
    run = run_of(run_folder)
    base, policy = (_log_probs(run, i) for i in (0, t))
    prompts = tuple(prompt for prompt in base if prompt in policy)
    beta = run.recipe.training.beta
    chosen_P, rejected_P = (
        beta * np.array([policy[prompt][key] - base[prompt][key] for prompt in prompts])
        for key in ("chosen_logps", "rejected_logps")
    )
    return ImplicitRewards(prompts, chosen_P, rejected_P)


def _difference(folder: Path, other: Path, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Of the chosen and of the rejected answers, (P,) each, for the prompts of both."""
    first, second = (implicit_rewards(each, t) for each in (folder, other))
    place = {prompt: i for i, prompt in enumerate(second.prompts)}
    shared = [(i, place[p]) for i, p in enumerate(first.prompts) if p in place]
    if not shared:
        raise UserError(f"{folder} and {other}: they share no held-out prompt")
    of_first, of_second = map(list, zip(*shared, strict=True))
    return (
        first.chosen_P[of_first] - second.chosen_P[of_second],
        first.rejected_P[of_first] - second.rejected_P[of_second],
    )


def check_comparable(run_folder: Path, other: Path) -> None:
    """UserError if the runs' log-probs are not of the same answers, relative to the same base.

    Adapters may be compared with full weights, although bf16 rounds these weights otherwise.
    """
    parts = []
    for folder in (run_folder, other):
        part = recipe_part(run_of(folder).recipe, "logps", 0)
        parts.append(part | {"training": {"max_length": part["training"]["max_length"]}})
    changed = differing_keys(*parts)
    if changed:
        raise UserError(
            f"{run_folder} and {other}: implicit rewards compare only with the same base model and "
            f"held-out pairs, but the runs differ in {', '.join(changed)}; choose other runs"
        )


def _log_probs(run: Run, t: int) -> Mapping[str, LogpsRow]:
    """prompt_id -> row of a current artifact."""
    found = artifacts.state(run.recipe, "logps", t)
    if not found.current:
        where = artifacts.folder(run.recipe, "logps", t)
        raise UserError(f"{where}: {found.why}; run: {command(run, 'logps', t)}")
    path = artifacts.file(run.recipe, "logps", t, "test.parquet")
    return {row["prompt_id"]: row for row in read_rows(path)}
