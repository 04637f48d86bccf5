"""The runs of a sweep: recipes times all combinations of the keys that have several values.

of(["selm.yaml", "training.alpha=0.005,0.001", "seed=1,2"])  ->  four runs in one folder
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from selm.errors import UserError
from selm.home import recipe_file
from selm.recipe.loading import load_recipe
from selm.recipe.places import escape
from selm.recipe.schema import Recipe
from selm.run import linking
from selm.run.plan import Run
from selm.run.stages import Entry, stages

LIST = "sweep.json"  # in the sweep's folder: the runs of all sweeps into it
LONGEST_NAME = 80  # run_name in recipe/schema.py

_OVERRIDE = re.compile(r"[\w-]+(\.[\w-]+)*=")
_OPENING, _CLOSING = "[{", "]}"


@dataclass(frozen=True)
class Member:
    """One run of a sweep.

    Attributes:
        differs: key -> value as it was written, for the keys with several values; `recipe` -> its
            path, if there are several recipes.
        keys: what decides each of its artifacts (`linking.key`), in the order of its stages.
    """

    run: Run
    differs: Mapping[str, str]
    keys: Mapping[Entry, str]

    @property
    def name(self) -> str:
        return self.run.recipe.run_name


@dataclass(frozen=True)
class Sweep:
    """All runs of a sweep.

    Attributes:
        words: recipes and overrides as they were typed.
        folder: the output_dir of all its runs.
        values: key -> its values, for the keys that have several.
        repeated: run_name -> another run, of this sweep or of an earlier one into the folder, that
            makes the same artifacts; such a combination is left out, e.g. DPO with another alpha.
    """

    words: tuple[str, ...]
    folder: Path
    values: Mapping[str, Sequence[str]]
    members: tuple[Member, ...]
    repeated: Mapping[str, str]


def of(words: Sequence[str]) -> Sweep:
    """The sweep that these recipes and `key=value[,value ...]` describe.

    Its seeds are outermost: stopped early, it has all settings of the first seeds.

    Raises:
        UserError: no recipe, a mistake in a word, a recipe that refuses a combination, or two
            combinations that are the same or would have the same name.
    """
    recipes = [word for word in words if not _OVERRIDE.match(word)]
    for word in recipes:
        if not word.endswith((".yaml", ".yml")) and not recipe_file(word).is_file():
            raise UserError(
                f"{word!r}: wanted a recipe (a file that ends in .yaml), key=value or "
                "key=value1,value2"
            )
    if not recipes:
        raise UserError("a sweep needs a recipe, e.g. recipes/smollm2-135m-instruct/selm.yaml")
    given = _values(word for word in words if _OVERRIDE.match(word))
    several = {key: values for key, values in given.items() if len(values) > 1}
    firsts = [f"{key}={values[0]}" for key, values in given.items()]
    bases = {path: load_recipe(path, firsts) for path in recipes}
    folder = Path(bases[recipes[0]].output_dir)
    if "output_dir" not in given:
        folder = folder / f"{bases[recipes[0]].run_name}-sweep"
    if len(recipes) > 1:
        several = {"recipe": recipes} | several
    names = {path: base.run_name for path, base in bases.items()}
    order = sorted({"recipe": recipes, **given}.items(), key=lambda item: item[0] != "seed")
    found = [
        _member(dict(zip(dict(order), values, strict=True)), names, folder, list(several))
        for values in product(*(values for _, values in order))
    ]
    _refuse_the_same(found)
    kept, repeated = _without_repetitions(found, _earlier(folder, found))
    if not kept:
        raise UserError(f"{folder}: it has these runs as {', '.join(set(repeated.values()))}")
    return Sweep(tuple(words), folder, several, kept, repeated)


def _values(overrides: Iterator[str]) -> dict[str, list[str]]:
    """Key -> its values, in the order of the command line."""
    found: dict[str, list[str]] = {}
    for override in overrides:
        key, _, text = override.partition("=")
        values = split(text)
        if key in found:
            raise UserError(f"{key}: given twice; give all its values at once: {key}=value1,value2")
        if len(values) > 1 and "" in values:
            raise UserError(f"{key}: an empty value between commas; write null if it is meant")
        if key == "run_name" or (key == "output_dir" and len(values) > 1):
            raise UserError(
                f"{key}: the runs of a sweep are named after what differs and lie in one folder, "
                "which output_dir=FOLDER sets"
            )
        found[key] = values
    return found


def split(text: str) -> list[str]:
    """The values between commas; commas in brackets and quotes do not separate.

    >>> split("0.005,0.001"), split("[sigmoid, sft],sigmoid"), split("'a,b'")
    (['0.005', '0.001'], ['[sigmoid, sft]', 'sigmoid'], ["'a,b'"])
    """
    values, depth, quote = [""], 0, ""
    for character in text:
        starts_word = not values[-1].strip() or values[-1].rstrip()[-1] in "[{,:"
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and starts_word:  # elsewhere it is an apostrophe
            quote = character
        elif character in _OPENING:
            depth += 1
        elif character in _CLOSING:
            depth = max(depth - 1, 0)
        elif character == "," and depth == 0:
            values.append("")
            continue
        values[-1] += character
    return [value.strip() for value in values]


def _member(
    values: Mapping[str, str], names: Mapping[str, str], folder: Path, several: Sequence[str]
) -> Member:
    """The run of one combination.

    Args:
        values: `recipe` and every key that was given -> its value.
        names: recipe -> its run_name.
        several: the keys that have several values, `recipe` among them.
    """
    differs = {key: values[key] for key in several}
    short = short_keys([key for key in several if key != "recipe"])
    name = name_of(names[values["recipe"]], {short[key]: differs[key] for key in short})
    overrides = [f"{k}={value}" for k, value in values.items() if k not in ("recipe", "output_dir")]
    overrides += [f"output_dir={escape(str(folder))}", f"run_name={name}"]
    try:
        recipe = load_recipe(values["recipe"], overrides)
    except UserError as error:
        where = f" (in the combination {in_words(differs)})" if differs else ""
        raise UserError(f"{error}{where}") from error
    return Member(Run(recipe, values["recipe"], tuple(overrides)), differs, keys_of(recipe))


def keys_of(recipe: Recipe) -> dict[Entry, str]:
    """What decides each artifact of a run, but for the report, which belongs to one run alone."""
    entries = [(stage, t) for stage, t in stages(recipe) if t is not None]
    return {entry: linking.key(recipe, *entry) for entry in entries}


def in_words(differs: Mapping[str, str]) -> str:
    """
    >>> in_words({"training.alpha": "0.001", "seed": "2"})
    'training.alpha=0.001 seed=2'
    """
    return " ".join(f"{key}={value}" for key, value in differs.items())


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """Key -> the last words of it that tell it from the others, for names.

    >>> short_keys(["training.alpha", "iterations.0.objective", "iterations.1.objective"])
    {'training.alpha': 'alpha', 'iterations.0.objective': 'iterations.0.objective', ...}
    """
    return {key: next(filter(_is_alone_in(keys), _endings(key)), key) for key in keys}


def _endings(key: str) -> list[str]:
    """`a.b.c` -> `c`, `b.c`, `a.b.c`, without those that start with the number of an entry."""
    parts = key.split(".")
    endings = [parts[i:] for i in reversed(range(len(parts)))]
    return [".".join(ending) for ending in endings if not ending[0].isdigit()]


def _is_alone_in(keys: Sequence[str]) -> Any:
    return lambda ending: sum(f".{key}".endswith(f".{ending}") for key in keys) == 1


def name_of(recipe_name: str, differs: Mapping[str, str]) -> str:
    """The run_name of a combination; a long one ends in a hash instead.

    >>> name_of("selm", {"alpha": "0.001", "loss_type": "[sigmoid, sft]"})
    'selm-alpha0.001-loss_typesigmoid-sft'
    """
    parts = [f"{key}{_as_name(value)}" for key, value in differs.items()]
    name = "-".join([recipe_name, *parts])
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(json.dumps([recipe_name, differs]).encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"


def _as_name(value: str) -> str:
    return "-".join(re.sub(r"[^A-Za-z0-9._-]+", " ", value).split())


def _refuse_the_same(members: Sequence[Member]) -> None:
    """UserError if two combinations are one, as with `seed=1,01`, or have one name."""
    for i, one in enumerate(members):
        for other in members[:i]:
            same = one.run.recipe.model_copy(update={"run_name": other.name}) == other.run.recipe
            pair = f"{in_words(other.differs)} and {in_words(one.differs)}"
            if same:
                raise UserError(f"sweep: {pair} are the same combination; leave one out")
            if one.name == other.name:
                raise UserError(
                    f"sweep: {pair} would both have the run_name {one.name}; give the recipes "
                    "other run_names, or sweep them in folders of their own (output_dir=FOLDER)"
                )


def _earlier(folder: Path, members: Sequence[Member]) -> dict[tuple[str, ...], str]:
    """The artifacts of the runs of earlier sweeps into the folder -> the name of the run."""
    own = {member.name for member in members}
    found = {}
    for run in listed(folder):
        if run["name"] not in own:
            with suppress(UserError):  # its recipe is gone or has changed
                keys = keys_of(load_recipe(run["recipe"], run["overrides"]))
                found[tuple(keys.values())] = run["name"]
    return found


def _without_repetitions(
    members: Sequence[Member], earlier: Mapping[tuple[str, ...], str]
) -> tuple[tuple[Member, ...], dict[str, str]]:
    """The runs that make anything of their own, and for the others the run that makes the same.

    A comparison would refuse them: they are the same setting with the same seed.
    """
    maker = dict(earlier)
    kept, repeated = [], {}
    for member in members:
        made = tuple(member.keys.values())
        if made in maker:
            repeated[member.name] = maker[made]
        else:
            maker[made] = member.name
            kept.append(member)
    return tuple(kept), repeated


def shared(members: Sequence[Member]) -> dict[tuple[str, Entry], str]:
    """(run_name, stage) -> the earlier run that makes the same artifact."""
    maker: dict[str, str] = {}
    found = {}
    for member in members:
        for entry, key in member.keys.items():
            if key in maker:
                found[member.name, entry] = maker[key]
            maker.setdefault(key, member.name)
    return found


def chosen(sweep: Sweep, only: str) -> Member:
    """The run with that name, or with that number from 1 on; UserError if there is none."""
    members = sweep.members
    if only.isdecimal() and 1 <= int(only) <= len(members):
        return members[int(only) - 1]
    for member in members:
        if member.name == only:
            return member
    if only in sweep.repeated:
        raise UserError(f"--only {only}: it makes the same as {sweep.repeated[only]}; take that")
    raise UserError(
        f"--only {only}: the sweep has runs 1 to {len(members)}, from {members[0].name} to "
        f"{members[-1].name}; `shared` means what several of them share"
    )


_LISTED = ("name", "recipe", "overrides", "differs")


def listed(folder: Path) -> list[dict[str, Any]]:
    """The entries of sweep.json: name, recipe, overrides, differs; UserError if it is damaged."""
    path = folder / LIST
    if not path.is_file():
        return []
    try:
        runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
        return [{key: run[key] for key in _LISTED} for run in runs]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: damaged; delete it and repeat the sweeps into it") from error


def all_listed(sweep: Sweep) -> list[dict[str, Any]]:
    """The runs of earlier sweeps into the folder, then those of this one.

    Raises:
        UserError: an earlier sweep has another run of the same name, which would be lost.
    """
    mine = {member.name: member for member in sweep.members}
    before = listed(sweep.folder)
    for run in before:
        if run["name"] in mine:
            _refuse_another(run, mine[run["name"]], sweep.folder)
    entries = [
        {
            "name": member.name,
            "recipe": member.run.path,
            "overrides": list(member.run.overrides),
            "differs": dict(member.differs),
        }
        for member in sweep.members
    ]
    return [*(run for run in before if run["name"] not in mine), *entries]


def _refuse_another(before: Mapping[str, Any], now: Member, folder: Path) -> None:
    if (before["recipe"], tuple(before["overrides"])) == (now.run.path, now.run.overrides):
        return
    try:
        then = keys_of(load_recipe(before["recipe"], before["overrides"]))
    except UserError:  # its recipe is gone or has changed
        return
    if then != now.keys:
        raise UserError(
            f"{folder / now.name}: an earlier sweep made it from {before['recipe']} "
            f"{' '.join(before['overrides'][:-2])}; give both values (key=value1,value2), or "
            "another folder (output_dir=FOLDER)"
        )


def as_json(runs: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps({"runs": list(runs)}, indent=2) + "\n"
