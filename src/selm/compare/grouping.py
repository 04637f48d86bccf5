"""Which runs are one setting, and how settings are called."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from selm.compare.settings import FinishedRun, Setting
from selm.errors import UserError
from selm.escape import one_line
from selm.recipe.roles import EXECUTION, keys_with
from selm.recipe.schema import Recipe
from selm.recipe.section import Section
from selm.recipe.trl_keys import is_execution

# Keys that leave the policies as they are; of runs that differ in their seed alone, the seed, too.
_NEUTRAL = {"run_name", "seed", "output_dir", "hub", "estimate", "benchmarks", "data.train_rows"}

# Keys of the optimism term, which iterations of other objectives do not have.
_OF_OPTIMISM = ("training.alpha", "training.optimism")

MOST_PARTS = 3  # of a setting's name
LONGEST = 48  # characters of a setting's name

Keys = Mapping[str, Any]  # dotted key -> JSON value


def group(runs: Sequence[FinishedRun]) -> tuple[Setting, ...]:
    """The settings in the order of their first runs.

    Raises:
        UserError: a setting has the same seed twice.
    """
    alike: dict[str, list[FinishedRun]] = {}
    keys: dict[str, Keys] = {}
    for run in runs:
        found = deciding_keys(run.recipe)
        text = json.dumps(found, sort_keys=True)
        alike.setdefault(text, []).append(run)
        keys[text] = found
    differs = _differing(list(keys.values()))
    grouped = [tuple(sorted(found, key=lambda run: run.seed)) for found in alike.values()]
    names = _names(differs, grouped)
    for name, of_setting in zip(names, grouped, strict=True):
        _check_seeds(name, of_setting)
    return tuple(map(Setting, names, differs, grouped))


def deciding_keys(recipe: Recipe) -> dict[str, Any]:
    """Dotted key -> value, of all that decides a run's results but the seed.

    Iterations are two lists. Without an iteration of objective selm there is no optimism term, and
    alpha is 0, whatever the recipe says.
    """
    found = dict(_flat(recipe))
    for part in ("objective", "learning_rate"):
        found[f"iterations.{part}"] = [getattr(each, part) for each in recipe.iterations]
    if not any(recipe.alpha(t) for t in range(1, len(recipe.iterations) + 1)):
        found["training.alpha"] = 0.0
        found.pop("training.optimism", None)
    return found


def _flat(section: Section, prefix: str = "") -> list[tuple[str, Any]]:
    written = section.model_dump(mode="json")
    execution, found = keys_with(EXECUTION, type(section)), list[tuple[str, Any]]()
    for name, value in section:
        key = prefix + name
        of_trl = name in (section.model_extra or {})
        if name in execution or key in _NEUTRAL or key == "iterations":
            continue
        if of_trl and is_execution(name):
            continue
        if isinstance(value, Section):
            found += _flat(value, f"{key}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], Section):
            for i, each in enumerate(value):
                found += _flat(each, f"{key}.{i}.")
        else:
            found.append((key, written[name]))
    return found


def _differing(settings: Sequence[Keys]) -> list[dict[str, Any]]:
    """Of each setting the keys in which the settings differ; one that it lacks is None.

    Settings without an optimism term say nothing about which one it is.
    """
    every = dict.fromkeys(key for keys in settings for key in keys)

    def values(key: str) -> set[str]:
        having = [keys for keys in settings if key != "training.optimism" or key in keys]
        return {json.dumps(keys.get(key)) for keys in having}

    differ = [key for key in every if len(values(key)) > 1]
    return [{key: keys.get(key) for key in differ} for keys in settings]


def _names(differs: Sequence[Keys], grouped: Sequence[Sequence[FinishedRun]]) -> list[str]:
    """Short names that differ: by the keys, or else by the runs' names."""
    short = _short_keys(list(differs[0]))
    names = [_name(keys, short) for keys in differs]
    if all(0 < len(name) <= LONGEST for name in names) and len(set(names)) == len(names):
        return names
    names = [without_seed(runs[0].name) for runs in grouped]
    if len(set(names)) < len(names):
        names = [runs[0].name for runs in grouped]
    names = _without_what_is_common(names)
    twice = {name for name, count in Counter(names).items() if count > 1}
    return [f"{name} ({i})" if name in twice else name for i, name in enumerate(names, start=1)]


def _without_what_is_common(names: Sequence[str]) -> list[str]:
    """
    >>> _without_what_is_common(["zephyr-7b-dpo", "zephyr-7b-selm"])
    ['dpo', 'selm']
    """
    words = [name.split("-") for name in names]
    shared, most = 0, min(map(len, words)) - 1 if len(words) > 1 else 0
    while shared < most and len({each[shared] for each in words}) == 1:
        shared += 1
    return ["-".join(each[shared:]) for each in words]


def _name(keys: Keys, short: Mapping[str, str]) -> str:
    """`alpha 0.001`, `dpo`, `selm, alpha 0.01`; empty if it would be long."""
    parts = []
    for key, value in keys.items():
        objectives = keys.get("iterations.objective", ["selm"])
        if key == "iterations.objective":
            parts.insert(0, _listed(value))
        elif key not in _OF_OPTIMISM or ("selm" in objectives and value is not None):
            parts.append(f"{short[key]} {_listed(value)}")
    return ", ".join(parts) if len(parts) <= MOST_PARTS else ""


def _listed(value: Any) -> str:
    """A value in short; equal neighbours of a list are counted.

    >>> _listed(["dpo", "selm", "selm"]), _listed(0.001), _listed(None), _listed("a/long/path")
    ('dpo, 2 x selm', '0.001', 'none', 'path')
    """
    if isinstance(value, list):
        counted = Counter(map(_listed, value))
        in_order = list(dict.fromkeys(map(_listed, value)))
        if len(in_order) == 1:
            return in_order[0] if len(value) == 1 else f"{len(value)} x {in_order[0]}"
        return ", ".join(
            text if counted[text] == 1 else f"{counted[text]} x {text}" for text in in_order
        )
    if isinstance(value, float):
        return f"{value:g}"
    return one_line("none" if value is None else str(value).rstrip("/").rpartition("/")[-1])


def _short_keys(keys: Sequence[str]) -> dict[str, str]:
    """The last word of each key, or the whole key where two end alike; without underscores."""
    last = {key: key.rpartition(".")[-1] for key in keys}
    counts = Counter(last.values())
    return {
        key: (word if counts[word] == 1 else key).replace("_", " ") for key, word in last.items()
    }


def without_seed(run_name: str) -> str:
    """
    >>> without_seed("zephyr-alpha0.001-seed3"), without_seed("seed7-zephyr"), without_seed("seed1")
    ('zephyr-alpha0.001', 'zephyr', 'seed1')
    """
    return re.sub(r"[-_.]seed[-_]?\d+|^seed[-_]?\d+[-_.]", "", run_name) or run_name


def _check_seeds(name: str, runs: Sequence[FinishedRun]) -> None:
    for one, other in pairwise(runs):
        if one.seed == other.seed:
            raise UserError(
                one_line(
                    f"seed: {one.folder} and {other.folder} are both seed {one.seed} of one "
                    f"setting ({name}); leave one of them out"
                )
            )
