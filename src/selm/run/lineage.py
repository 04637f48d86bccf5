"""What an artifact depends on: its input artifacts and a part of the recipe.

A changed recipe makes an artifact stale exactly if this part or an input changes.
"""

from typing import Any

from selm.evaluation.kinds import BENCHMARKS
from selm.generation.kinds import KINDS
from selm.home import relative
from selm.ranking.kinds import deciding_keys, files
from selm.recipe.roles import deciding
from selm.recipe.schema import SELECTION_KEYS, Generation, Ranking, Recipe
from selm.recipe.trl_keys import is_execution
from selm.run import fingerprint
from selm.run.stages import benchmark_of, stages
from selm.training.objective import initial_explores

# Raise a stage's when the content of its artifacts changes meaning: all older ones become stale.
FORMAT, FORMATS = 3, {"evaluation": 4, "report": 4}


def inputs(recipe: Recipe, stage: str, t: int | None) -> list[tuple[str, int]]:
    """The artifacts that a stage reads."""
    if stage == "report" or t is None:
        return [(each, i) for each, i in stages(recipe) if i is not None]
    read: list[tuple[str, int]] = []
    name = benchmark_of(stage)
    if name is not None:
        return _inputs_of_benchmark(recipe, name, stage, t)
    if stage == "preferences":
        read.append(("responses", t))
        read += [("initial_responses", t)] if initial_explores(recipe, t) else []
    if stage == "checkpoint" and recipe.iteration(t).objective != "dpo":
        read.append(("preferences", t))
    if stage in ("responses", "checkpoint") and t > 1:
        read.append(("checkpoint", t - 1))
    if stage in ("answers", "logps") and t > 0:
        read.append(("checkpoint", t))
    if stage == "evaluation":
        read += [("answers", i) for i in dict.fromkeys((t, 0))]
    return read


def _inputs_of_benchmark(recipe: Recipe, name: str, stage: str, t: int) -> list[tuple[str, int]]:
    benchmark, answers = BENCHMARKS[name], f"benchmarks/{name}/answers"
    if stage == answers or benchmark.asks_policy:
        return [("checkpoint", t)] if t > 0 else []
    return benchmark.reads(recipe, t) if benchmark.reads is not None else [(answers, t)]


def recipe_part(recipe: Recipe, stage: str, t: int | None) -> dict[str, Any]:
    """The settings that decide the content of this artifact, as JSON values.

    The files that selm brings have the same names wherever it is installed; their content counts.
    """
    return _as_shipped(_recipe_part(recipe, stage, t))


def _as_shipped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _as_shipped(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_shipped(each) for each in value]
    return relative(value) if isinstance(value, str) else value


def _recipe_part(recipe: Recipe, stage: str, t: int | None) -> dict[str, Any]:
    part: dict[str, Any] = {"format": FORMATS.get(stage, FORMAT)}
    if stage == "report" or t is None:
        return part | {"run_name": recipe.run_name}
    if stage == "logps":
        return part | _logps(recipe)
    part["seed"] = recipe.seed
    if stage == "evaluation":
        return part | {"ranking": _scoring(recipe.held_out_ranking())}
    benchmark = benchmark_of(stage)
    if benchmark is not None:
        return part | _benchmark(recipe, benchmark, stage)
    part["model"] = _model(recipe)
    generates = stage in ("responses", "initial_responses")
    offline = stage == "checkpoint" and recipe.iteration(t).objective == "dpo"
    if generates or offline:
        part["data"] = _data(recipe, "train") | {"limit": recipe.data.limit}
        part["data"] |= {"split": recipe.data.train_split, "portions": len(recipe.iterations)}
    if generates:
        part["generation"] = _generation(recipe.generation)
    if stage == "initial_responses":
        del part["generation"]["num_samples"]  # always one
    if stage == "preferences":
        part["ranking"] = _ranking(recipe.ranking)
    if stage == "checkpoint":
        part["iteration"] = deciding(recipe.iteration(t))
        part["training"] = _training(recipe, t)
    if stage == "answers":
        part |= _answers(recipe)
    return part


def _model(recipe: Recipe) -> dict[str, Any]:
    model, found = recipe.model, deciding(recipe.model)
    found["content"] = fingerprint.of_model(model.name_or_path, model.trust_remote_code)
    if model.chat_template is not None:
        found["chat_template.content"] = fingerprint.of_file(model.chat_template)
    return found


def _benchmark(recipe: Recipe, name: str, stage: str) -> dict[str, Any]:
    """The settings that decide a benchmark's answers, or what its results add to them."""
    benchmark, answers = BENCHMARKS[name], stage.endswith("/answers")
    files = {**benchmark.files(recipe), **({} if answers else benchmark.references(recipe))}
    own = dict(benchmark.settings(recipe)) | {"revision": benchmark.revision}
    own["limit"] = recipe.benchmarks.limit
    own |= {f"{key}.content": fingerprint.of_file(str(path)) for key, path in files.items()}
    part: dict[str, Any] = {"benchmarks": {name: own}}
    if answers or benchmark.asks_policy:
        part |= {"model": _model(recipe), "generation": _greedy(recipe.generation)}
    if benchmark.judged and not answers:
        part["benchmarks"]["judge"] = _scoring(recipe.benchmark_judge())
    return part


def _greedy(generation: Generation) -> dict[str, Any]:
    sampled = ("num_samples", "temperature", "top_p")
    return {key: value for key, value in _generation(generation).items() if key not in sampled}


def _answers(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the held-out prompts and their greedy answers."""
    return _held_out(recipe) | {"generation": _greedy(recipe.generation)}


def _logps(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the log-probs of the held-out pairs; nothing is drawn: no seed."""
    training = {"max_length": recipe.training.max_length, "weights": recipe.trained_dtype()}
    return _held_out(recipe) | {"model": _model(recipe), "training": training}


def _held_out(recipe: Recipe) -> dict[str, Any]:
    """The settings that decide the held-out rows."""
    data = _data(recipe, "test") | {"split": recipe.data.test_split}
    if "[" in recipe.data.train_split:  # the tenth that is held out may be a tenth of it
        data["train_split"] = recipe.data.train_split
    return {"data": data, "evaluation": {"limit": recipe.evaluation.limit}}


def _scoring(ranking: Ranking) -> dict[str, Any]:
    """The settings of a ranking that decide scores, without those of the selection."""
    return {k: value for k, value in _ranking(ranking).items() if k not in SELECTION_KEYS}


def _training(recipe: Recipe, t: int) -> dict[str, Any]:
    """The settings of training; a term that is not there, or is SELM's, is left out."""
    settings = deciding(recipe.training) | {"alpha": recipe.alpha(t)}
    if recipe.alpha(t) == 0 or settings["optimism"] == "selm":
        del settings["optimism"]
    of_trl = recipe.training.trl_overrides()
    return {k: v for k, v in settings.items() if not (k in of_trl and is_execution(k))}


def _generation(generation: Generation) -> dict[str, Any]:
    """Settings of generation, with the options of the engine in use that change its answers."""
    settings, own = deciding(generation), KINDS[generation.engine].options
    for key in {key for kind in KINDS.values() for key in kind.options}:
        execution, given = own.get(key, frozenset()), settings.pop(key)
        options = {name: value for name, value in given.items() if name not in execution}
        if options and key in own:
            settings[key] = options
    return settings


def _data(recipe: Recipe, which: str) -> dict[str, Any]:
    data = recipe.data
    content = fingerprint.of_data(data, which)
    part = {"name_or_path": data.name_or_path, "revision": data.revision, "content": content}
    return part if data.subset is None else part | {"subset": data.subset}


def _ranking(ranking: Ranking) -> dict[str, Any]:
    """The keys that this kind reads, and the content of its files.

    `name_or_path` and `revision` are in it for all kinds, or older artifacts would be stale. A kind
    that does not read one of them refuses all values but the default.
    """
    read = deciding_keys(ranking) | {"name_or_path", "revision"}
    part = {key: value for key, value in deciding(ranking).items() if key in read}
    if ranking.rankers:
        part["rankers"] = {str(i): _ranking(member) for i, member in enumerate(ranking.rankers)}
    for key, path in files(ranking).items():
        section, _, name = key.rpartition(".")
        content = "content" if name == "name_or_path" else f"{name}.content"
        found = fingerprint.of_path(path, ranking.trust_remote_code)
        (part[section] if section else part)[content] = found
    return part


def differing_keys(old: Any, new: Any, prefix: str = "") -> list[str]:
    """Dotted names with short values: `training.alpha (0.001 -> 0.005)`.

    If the formats differ, nothing else is compared.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        found, keys = [], sorted(old.keys() | new.keys())
        if old.get("format") != new.get("format"):
            keys = ["format"]
        for key in keys:
            found += differing_keys(old.get(key), new.get(key), f"{prefix}.{key}".strip("."))
        return found
    if old == new:
        return []
    if prefix.endswith(".content"):
        return [f"the content of {prefix.removesuffix('.content')}"]
    return [f"{prefix} ({old} -> {new})"]
