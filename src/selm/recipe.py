"""The schema of a recipe: YAML in, one frozen tree of settings out. Imports no torch.

    recipe = load_recipe("recipes/zephyr-7b-sft/selm.yaml", ["training.alpha=0.005"])

Unknown keys, wrong types and missing files are `UserError`s that name the key and a fix.
"""

import difflib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from selm import accelerate_config, yaml_tree
from selm.errors import UserError
from selm.paths import escape, expand
from selm.secrets import hide, names_a_secret, refuse_secrets
from selm.section import Section
from selm.steps import untrained
from selm.trl_keys import (
    TRACKER_PACKAGES,
    check_together,
    optimizer_package,
    refuse_key,
    trl_keys,
    trl_value,
    usable_keys,
)
from selm.vllm_keys import VLLM_DECIDED_ELSEWHERE, vllm_keys, vllm_value

# What the ranker pairrm loads if `ranking.name_or_path` is null.
PAIRRM = "llm-blender/PairRM"

# Keys of `ranking` that turn scores into a pair; the others are about the ranker.
SELECTION_KEYS = {"pool", "update_rule", "min_margin"}

# What a judge's template must hold, each in braces.
TEMPLATE_FIELDS = ("prompt", "response_a", "response_b")

Objective = Literal["dpo", "selm", "online_dpo"]
# Counts beyond these are slips of the hand, and arithmetic with them takes for ever.
MOST, MOST_ROWS = 10**9, 10**6

Count = Annotated[int, Field(ge=1, le=MOST)]
RowCount = Annotated[int, Field(ge=1, le=MOST_ROWS)]
AutoOrCount = Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_ROWS)]


class Model(Section):
    """The base model: where iteration 1 starts."""

    name_or_path: str
    revision: str = "main"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attn_implementation: str = "sdpa"
    chat_template: str | None = None
    trust_remote_code: bool = False


class Data(Section):
    """The preference dataset D, or prompts only; `train_rows` lets the plan count offline.

    `subset` is what `datasets` calls a config's name.
    """

    name_or_path: str
    revision: str = "main"
    subset: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    train_rows: Count | None = None
    limit: Count | None = None


class Iteration(Section):
    """One pass over one portion of D."""

    objective: Objective
    learning_rate: float = Field(gt=0, le=1000)


class Generation(Section):
    """How the policy answers prompts. Temperature 0 is greedy decoding."""

    engine: Literal["vllm", "transformers"] = "vllm"
    num_samples: RowCount = 1
    temperature: float = Field(default=0.0, ge=0, le=1000)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: Count = 1024
    batch_size: RowCount = 32
    tensor_parallel_size: RowCount = 1
    workers: AutoOrCount = "auto"
    shard_size: RowCount = 256
    vllm: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _only_vllm_keys(self) -> "Generation":
        known = vllm_keys() if self.vllm else {}
        for key, value in self.vllm.items():
            if known and key not in {*known, *VLLM_DECIDED_ELSEWHERE}:
                raise UserError(_unknown_key(("generation", "vllm", key), list(known)))
            self.vllm[key] = vllm_value(key, value)
        return self


class Judge(Section):
    """How an LLM is asked, over an OpenAI-compatible endpoint, which of two responses is better.

    The key of a hosted endpoint stands in an environment variable, never in a recipe.
    """

    base_url: str = "http://localhost:8000/v1"
    api_key_env: str | None = None
    template: str = "recipes/judge.txt"
    json_schema: bool = True
    max_tokens: Count = 64
    temperature: float | None = Field(default=0.0, ge=0, le=1000)
    concurrency: RowCount = 16
    requests_per_minute: Count | None = None
    timeout_seconds: float = Field(default=120.0, gt=0, le=1_000_000)

    @model_validator(mode="after")
    def _no_secrets(self) -> "Judge":
        """UserErrors, because pydantic's own would print the value."""
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.hostname:
            raise UserError("ranking.judge.base_url: wanted a URL such as http://localhost:8000/v1")
        if "@" in url.netloc:
            raise UserError("ranking.judge.base_url: no user or password here; see api_key_env")
        if self.api_key_env and not re.fullmatch("[A-Z_][A-Z0-9_]*", self.api_key_env):
            raise UserError(
                "ranking.judge.api_key_env: wanted the name of an environment variable, in "
                "capitals, such as OPENAI_API_KEY; not the key itself"
            )
        return self


class Ranking(Section):
    """Who judges the responses, and how the judgement becomes a pair."""

    ranker: Literal["pairrm", "reward_model", "judge", "function", "random", "ensemble"] = "pairrm"
    name_or_path: str | None = None
    revision: str = "main"
    output_key: str | None = None
    trust_remote_code: bool = False
    judge: Judge = Field(default_factory=Judge)
    rankers: tuple["Ranking", ...] = ()
    pool: Literal["dataset_and_samples", "samples"] = "dataset_and_samples"
    update_rule: Literal["best_worst", "replace"] = "best_worst"
    min_margin: float | None = Field(default=None, ge=0, le=MOST)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tokens_per_batch: AutoOrCount = "auto"
    workers: AutoOrCount = "auto"
    shard_size: RowCount = 256


class Lora(Section):
    """An adapter is trained instead of all weights. Keys of `peft.LoraConfig`, and `load_in_4bit`.

    `load_in_4bit` is QLoRA: the weights below the adapter are held in 4 bits while it is trained.
    """

    r: RowCount = 16
    lora_alpha: RowCount = 32
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    use_rslora: bool = False
    load_in_4bit: bool = False

    @field_validator("target_modules", mode="after")
    @classmethod
    def _a_name_is_a_list_of_one(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Text is a pattern of a module's whole name to peft, which `q_proj` alone never is."""
        if isinstance(value, str) and value != "all-linear":
            if value.isidentifier():
                return (value,)
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"Not a pattern of names ({error})") from error
        return value


class Training(Section):
    """SELM's own keys; every other key of TRL's DPOConfig is accepted beside them."""

    model_config = ConfigDict(extra="allow")

    accelerate_config: str = "accelerate_configs/single.yaml"
    num_processes: Annotated[int, Field(ge=1, le=100_000)] | None = None
    global_batch_size: RowCount = 256
    per_device_train_batch_size: RowCount = 8
    tokens_per_micro_batch: Count | None = None
    alpha: float = Field(default=0.001, ge=0, le=1e6)
    beta: float = Field(default=0.01, ge=1e-9, le=1e6)
    max_length: int = Field(default=1024, ge=2, le=MOST)
    reference: Literal["previous", "initial"] = "previous"
    forward: Literal["auto", "shared", "padded"] = "auto"
    lora: Lora | None = None

    @model_validator(mode="after")
    def _only_trl_keys(self) -> "Training":
        extra = self.model_extra or {}
        for key, value in extra.items():
            refuse_key(key)
            if key not in trl_keys():
                names = [*type(self).model_fields, *usable_keys()]
                raise UserError(_unknown_key(("training", key), names))
            extra[key] = trl_value(key, value)
        extra.update(check_together(extra))
        return self

    def trl_overrides(self) -> dict[str, Any]:
        """The keys that go to TRL's DPOConfig as they are."""
        return dict(self.model_extra or {})


class Evaluation(Section):
    """Greedy answers to the held-out split; `ranking` null means: judged by the recipe's ranker."""

    every_iteration: bool = True
    limit: Count | None = 500
    ranking: Ranking | None = None


class Estimate(Section):
    """What the plan's estimates take for granted (`cost.py`); it changes nothing that is run.

    `device` names a row of `cost.DEVICES`, and the numbers below it replace that row's. Lengths are
    means in tokens, a prompt's with its template; the defaults are UltraFeedback's (arXiv
    2310.01377, table 1).
    """

    device: Literal["a100", "h100", "h200", "l40s", "rtx4090", "rtx3090", "cpu"] = "a100"
    memory_gb: float | None = Field(default=None, gt=0, le=MOST)
    tflops: float | None = Field(default=None, gt=0, le=MOST)
    mfu: float | None = Field(default=None, ge=1e-6, le=1)
    prompt_tokens: Count = 185
    response_tokens: Count = 305


class Hub(Section):
    """Where finished artifacts are pushed, and missing ones pulled from."""

    push: bool = False
    namespace: str | None = None
    private: bool = True
    every_save: bool = False


class Recipe(Section):
    """Everything a run depends on."""

    run_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: int = Field(default=42, ge=0, le=4_000_000_000)  # numpy takes 2**32 - 1
    model: Model
    data: Data
    iterations: tuple[Iteration, ...] = Field(min_length=1)
    generation: Generation = Field(default_factory=Generation)
    ranking: Ranking = Field(default_factory=Ranking)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    hub: Hub = Field(default_factory=Hub)
    estimate: Estimate = Field(default_factory=Estimate)
    output_dir: str = "runs"

    def iteration(self, t: int) -> Iteration:
        """Iteration t = 1..T (0 is the base model and has no settings)."""
        return self.iterations[t - 1]

    def alpha(self, t: int) -> float:
        """The optimism coefficient of iteration t: 0 for dpo and online_dpo."""
        return self.training.alpha if self.iteration(t).objective == "selm" else 0.0

    def judge(self) -> Ranking:
        """The ranking section that scores held-out responses."""
        return self.evaluation.ranking or self.ranking

    def as_yaml(self) -> str:
        """The resolved recipe, as it is saved beside the run."""
        written = _with_paths(self, lambda key, path: escape(path))
        return yaml.safe_dump(written.model_dump(mode="json"), sort_keys=False)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override, check. Raises UserError on anything that is not as it should be."""
    if not os.path.isfile(path):
        raise UserError(f"{path}: no such recipe file (try: ls recipes/*/*.yaml)")
    tree = yaml_tree.read(path)
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a recipe is a mapping of sections (run_name, model, data, ...)")
    for override in overrides:
        _apply(tree, override)
    refuse_secrets(tree)
    try:
        recipe = Recipe.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{path}: {_explain(error)}") from error
    recipe = _with_paths(recipe, expand)
    _check_files(recipe)
    _check_sense(recipe)
    return recipe


def _with_paths(recipe: Recipe, change: Callable[[str, str], str]) -> Recipe:
    """The recipe with every path of it changed by `change(key, path)`."""

    def changed(key: str, section: Section, *names: str) -> dict[str, Any]:
        values = {name: getattr(section, name) for name in names}
        return {
            name: change(f"{key}{name}", value)
            for name, value in values.items()
            if value is not None
        }

    def with_changes(key: str, section: Any, *names: str) -> Any:
        return section.model_copy(update=changed(f"{key}.", section, *names))

    def ranking(key: str, section: Ranking) -> Ranking:
        names = [] if section.ranker == "judge" else ["name_or_path"]
        update = changed(f"{key}.", section, *names)
        update["judge"] = with_changes(f"{key}.judge", section.judge, "template")
        members = enumerate(section.rankers)
        update["rankers"] = tuple(ranking(f"{key}.rankers.{i}", each) for i, each in members)
        return section.model_copy(update=update)

    judged = recipe.evaluation.ranking
    evaluation = {} if judged is None else {"ranking": ranking("evaluation.ranking", judged)}
    return recipe.model_copy(
        update={
            **changed("", recipe, "output_dir"),
            "model": with_changes("model", recipe.model, "name_or_path", "chat_template"),
            "data": with_changes("data", recipe.data, "name_or_path"),
            "training": with_changes("training", recipe.training, "accelerate_config"),
            "ranking": ranking("ranking", recipe.ranking),
            "evaluation": recipe.evaluation.model_copy(update=evaluation),
        }
    )


def _apply(tree: dict[str, Any], override: str) -> None:
    """Put one `section.key=value` into the tree; the value is YAML, split at the first '='."""
    key, equals, text = override.partition("=")
    if not equals or not re.fullmatch(r"[\w-]+(\.[\w-]+)*", key):
        raise UserError(
            f"{hide(override)!r}: an override is key.sub=value, as in training.alpha=0.005"
        )
    try:
        value = yaml_tree.parse_value(text)
    except UserError as error:
        shown = "***" if names_a_secret(key.split(".")[-1]) else hide(text)
        raise UserError(
            f"{key}: {shown!r} is {str(error).removeprefix('line 1: ')}; text with such "
            f"characters wants quotes: {key}='\"...\"'"
        ) from error
    *parents, last = key.split(".")
    node: Any = tree
    for parent in parents:
        node = _child(node, parent, key)
    if isinstance(node, list):
        node[_index(node, last, key)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"{key}: {'.'.join(parents)} is a single value, it has no keys of its own")


def _child(node: Any, name: str, key: str) -> Any:
    if isinstance(node, list):
        return node[_index(node, name, key)]
    if isinstance(node, dict):
        if node.get(name) is None:
            node[name] = {}
        return node[name]
    return None


def _index(items: list[Any], name: str, key: str) -> int:
    if not name.isdigit() or int(name) >= len(items):
        raise UserError(f"{key}: {name!r} is not an index into {len(items)} entries (0 is first)")
    return int(name)


def _explain(error: ValidationError) -> str:
    """One line for the first thing wrong."""
    first = error.errors()[0]
    location, value = first["loc"], first.get("input")
    if location[-1] == "literal['auto']":  # pydantic's name for one half of AutoOrCount
        return f"{_dotted(location[:-1])}: must be auto or a whole number above 0, got {value!r}"
    dotted = _dotted(location)
    if first["type"] == "extra_forbidden":
        return _unknown_key(location, _siblings(location))
    if first["type"] == "missing":
        return f"{dotted}: missing, please add it"
    if first["type"] == "literal_error":
        near = difflib.get_close_matches(str(value), first["ctx"]["expected"].split("'"), n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{dotted}: {value!r} is not one of {first['ctx']['expected']}{hint}"
    message = first["msg"].removeprefix("Value error, ")
    return f"{dotted}: {message[0].lower()}{message[1:]}, got {value!r}"


def _unknown_key(location: tuple[int | str, ...], names: Sequence[str]) -> str:
    """`training.alhpa: unknown key in training; did you mean alpha?`"""
    section = _dotted(location[:-1]) or "the recipe"
    name = str(location[-1])
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    elsewhere = [key for key in _section_keys(Recipe) if key.split(".")[-1] == name]
    prefixed = [key for key in names if key == f"lora_{name}"]
    if prefixed:
        hint = f"; did you mean {prefixed[0]}?"
    elif elsewhere:
        hint = f"; did you mean {elsewhere[0]}?"
    elif near:
        hint = f"; did you mean {near[0]}?"
    else:
        hint = f"; known keys: {', '.join(list(names)[:20])}"
    return f"{_dotted(location)}: unknown key in {section}{hint}"


def _siblings(location: tuple[int | str, ...]) -> list[str]:
    model: Any = Recipe
    for part in location[:-1]:
        if part == "iterations":
            model = Iteration
        elif isinstance(part, str):
            optional = {"ranking": Ranking, "rankers": Ranking, "lora": Lora}
            model = optional.get(part) or model.model_fields[part].annotation
    return list(model.model_fields)


def _section_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key of the schema: run_name, model.name_or_path, ..."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _section_keys(field.annotation, f"{prefix}{name}.")
    return keys


def _dotted(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)


_DATA_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".parquet", ".arrow"}


def is_local_path(name_or_path: str) -> bool:
    """True for what must exist on this disk: anything but a Hub id (`name` or `owner/name`)."""
    path = Path(name_or_path)
    looks_local = name_or_path.startswith((".", "/", "~")) or len(path.parts) > 2
    is_data = path.suffix in _DATA_SUFFIXES
    return looks_local or is_data or os.path.exists(path)  # also where a folder may not be read


def _check_files(recipe: Recipe) -> None:
    """Every file that the recipe names is there before the first stage starts."""
    wanted = {
        "training.accelerate_config": recipe.training.accelerate_config,
        "model.chat_template": recipe.model.chat_template,
    }
    if is_local_path(recipe.data.name_or_path):
        wanted["data.name_or_path"] = recipe.data.name_or_path
    for section, ranking in rankings(recipe):
        if ranking.ranker == "function":
            wanted[f"{section}.name_or_path"] = _function_file(section, ranking)
        if ranking.ranker in _NAME_WANTED and not ranking.name_or_path:
            raise UserError(f"{section}.name_or_path: missing ({_NAME_WANTED[ranking.ranker]})")
        name = ranking.name_or_path or ""
        if ranking.ranker in ("pairrm", "reward_model") and name and is_local_path(name):
            wanted[f"{section}.name_or_path"] = name
        if ranking.ranker == "judge":
            wanted[f"{section}.judge.template"] = ranking.judge.template
    _check_hub_ids(recipe)
    for key, path in wanted.items():
        if path is not None and not os.path.exists(path):
            raise UserError(f"{key}: no such file: {path} (looked from {Path.cwd().name}/)")
    for section, ranking in rankings(recipe):
        if ranking.ranker == "judge":
            read_template(f"{section}.judge.template", ranking.judge.template)


def _check_hub_ids(recipe: Recipe) -> None:
    """What is no path must be a name that the Hub can have."""
    names = {"model.name_or_path": recipe.model.name_or_path}
    names["data.name_or_path"] = recipe.data.name_or_path
    for section, ranking in rankings(recipe):
        if ranking.ranker in ("pairrm", "reward_model") and ranking.name_or_path:
            names[f"{section}.name_or_path"] = ranking.name_or_path
    for key, name in names.items():
        if not is_hub_id(name) and not is_local_path(name):
            raise UserError(f"{key}: no such path, and no name of the Hub (owner/name): {name!r}")


def is_hub_id(name: str) -> bool:
    """
    >>> [is_hub_id(name) for name in ("gpt2", "me/my-model", "a--b", "-x", "a/b/c")]
    [True, True, False, False, False]
    """
    return bool(_HUB_ID.fullmatch(name)) and not re.search(r"--|\.\.|\.git$", name)


_HUB_ID = re.compile(r"(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)


def read_template(key: str, path: str) -> str:
    """What a judge is asked: text in UTF-8 that says where prompt and responses shall stand."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {path} cannot be read as text in UTF-8: {error}") from error
    missing = [f"{{{name}}}" for name in TEMPLATE_FIELDS if f"{{{name}}}" not in text]
    if missing:
        raise UserError(f"{key}: {path} does not say where {' and '.join(missing)} shall stand")
    return text


_NAME_WANTED = {
    "reward_model": "a model with one output, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B",
    "judge": "the model's name at ranking.judge.base_url",
}


def rankings(recipe: Recipe) -> Iterator[tuple[str, Ranking]]:
    """Every ranker that the recipe names, with its key: the members of ensembles too."""
    named = {"ranking": recipe.ranking, "evaluation.ranking": recipe.evaluation.ranking}
    for section, ranking in named.items():
        if ranking is None:
            continue
        yield section, ranking
        if ranking.ranker == "ensemble":
            _check_members(section, ranking)
            for i, member in enumerate(ranking.rankers):
                yield f"{section}.rankers.{i}", member


def _check_members(section: str, ensemble: Ranking) -> None:
    if len(ensemble.rankers) < 2:
        raise UserError(f"{section}.rankers: an ensemble is of two rankers or more")
    for i, member in enumerate(ensemble.rankers):
        if member.ranker == "ensemble":
            raise UserError(f"{section}.rankers.{i}.ranker: no ensembles in an ensemble")
        keys = {*SELECTION_KEYS, "workers", "shard_size"}
        misplaced = {
            key for key in keys if getattr(member, key) != Ranking.model_fields[key].default
        }
        if misplaced:
            key = min(misplaced)
            raise UserError(f"{section}.rankers.{i}.{key}: belongs to {section}.{key}")


def _function_file(section: str, ranking: Ranking) -> str:
    file, colon, function = (ranking.name_or_path or "").rpartition(":")
    if not colon or not file or not function:
        raise UserError(
            f"{section}.name_or_path: the function ranker wants path/to/file.py:function, "
            f"got {ranking.name_or_path!r}"
        )
    return file


def _check_batch(recipe: Recipe) -> None:
    if recipe.training.tokens_per_micro_batch is None:
        gradient_accumulation_steps(recipe, num_processes(recipe))
        return
    rows_per_process(recipe, num_processes(recipe))
    order = recipe.training.trl_overrides().get("train_sampling_strategy", "random")
    if order != "random":
        raise UserError(
            f"training.tokens_per_micro_batch: cuts steps of random rows; set it to null, or take "
            f"training.train_sampling_strategy: {order} away"
        )


def _check_sense(recipe: Recipe) -> None:
    """Combinations that no single key can refuse."""
    training = recipe.training
    accelerate_config.check_config(
        training.accelerate_config, recipe.model.dtype, training.num_processes
    )
    _check_batch(recipe)
    _check_steps(recipe)
    _check_kernels(recipe.model)
    _check_lora(recipe.training)
    generation = recipe.generation
    if generation.num_samples > 1 and generation.temperature == 0:
        raise UserError(
            f"generation.num_samples: {generation.num_samples} greedy samples are identical; "
            "set generation.temperature above 0 (0.7 is usual)"
        )
    if recipe.hub.push and recipe.hub.namespace is None:
        raise UserError(
            "hub.namespace: missing; hub.push=true needs your name on the Hub or an "
            "organisation's, as in hub.namespace=me"
        )
    if recipe.hub.push and not is_hub_id(f"{recipe.hub.namespace}/{recipe.run_name}-preferences"):
        raise UserError(
            f"run_name: the Hub has no such names as {recipe.hub.namespace}/{recipe.run_name}-*; "
            "letters, digits and single - _ . make one (see hub.namespace)"
        )
    if recipe.ranking.pool == "samples":
        _check_pool_of_samples(recipe)


def _check_steps(recipe: Recipe) -> None:
    """Each iteration trains, as far as its rows are known."""
    rows, last = train_rows(recipe), len(recipe.iterations)
    if not rows:  # that a file is empty is said by who reads it
        return
    if rows < last:
        raise UserError(f"iterations: {last} iterations want {last} rows, the data have {rows}")
    for t in range(1, last + 1):
        own = len(portion(rows, t, last))
        training = recipe.training
        why = untrained(own, training.global_batch_size, training.trl_overrides())
        if why is not None:
            raise UserError(f"{why} (iteration {t})")


def _check_kernels(model: Model) -> None:
    """`owner/name` is code from the Hub, which runs on this machine."""
    if "/" in model.attn_implementation and not model.trust_remote_code:
        raise UserError(
            f"model.attn_implementation: {model.attn_implementation} is code from the Hub; it "
            "wants model.trust_remote_code=true as well, or sdpa"
        )


def _check_lora(training: Training) -> None:
    lora = training.lora
    if lora is None:
        return
    if lora.lora_dropout > 0 and training.trl_overrides().get("disable_dropout", True):
        raise UserError(
            "training.lora.lora_dropout: without effect, for TRL switches dropout off; set "
            "training.disable_dropout=false as well, or lora_dropout to 0"
        )
    sharded = accelerate_setting(training, "distributed_type") in ("DEEPSPEED", "FSDP")
    if lora.load_in_4bit and sharded:
        raise UserError(
            f"training.lora.load_in_4bit: 4-bit weights cannot be sharded as "
            f"{training.accelerate_config} would; use accelerate_configs/ddp.yaml, or single.yaml"
        )


def check_packages(recipe: Recipe) -> None:
    """Packages that only some recipes need. Asked where stages run, not where a plan is made."""
    training = recipe.training
    wanted = {}
    for tracker in training.trl_overrides().get("report_to", ["tensorboard"]):
        if tracker not in ("none", "all"):
            wanted[f"training.report_to: {tracker}"] = (TRACKER_PACKAGES.get(tracker, tracker),)
    optimizer = training.trl_overrides().get("optim", "adamw_torch_fused")
    package = optimizer_package(optimizer)
    if package is not None:
        wanted[f"training.optim: {optimizer}"] = (package,)
    if training.lora is not None and training.lora.load_in_4bit:
        wanted["training.lora.load_in_4bit"] = ("bitsandbytes",)
    if accelerate_setting(training, "distributed_type") == "DEEPSPEED":
        wanted[f"training.accelerate_config: {training.accelerate_config}"] = ("deepspeed",)
    if recipe.model.attn_implementation == "flash_attention_2":
        wanted["model.attn_implementation: flash_attention_2"] = ("flash_attn", "kernels")
    for key, packages in wanted.items():
        if not any(importlib.util.find_spec(package) for package in packages):
            names = " or ".join(name.replace("_", "-") for name in packages)
            raise UserError(
                f"{key}: the package {names} is not installed (.venv/bin/pip install "
                f"{packages[0].replace('_', '-')}), or choose another value"
            )


def _check_pool_of_samples(recipe: Recipe) -> None:
    if recipe.generation.num_samples < 2:
        raise UserError(
            "ranking.pool: samples leaves the dataset's responses out, so that the policy's own "
            "form the pool: set generation.num_samples to 2 or more, with a temperature above 0"
        )
    if recipe.ranking.update_rule == "replace":
        raise UserError(
            "ranking.update_rule: replace is about the dataset's pair, which ranking.pool: samples "
            "leaves out; use best_worst"
        )


def portion(num_rows: int, t: int, num_iterations: int) -> range:
    """The rows of iteration t = 1..T: contiguous, sizes differ by one at most, nothing left over.

    >>> [portion(10, t, 3) for t in (1, 2, 3)]
    [range(0, 3), range(3, 6), range(6, 10)]
    """
    return range(num_rows * (t - 1) // num_iterations, num_rows * t // num_iterations)


def train_rows(recipe: Recipe) -> int | None:
    """Rows of the training split after `data.limit`, if they can be told without loading it."""
    rows = recipe.data.train_rows or _local_rows(recipe.data, "train")
    return None if rows is None else min(rows, recipe.data.limit or rows)


def held_out_rows(recipe: Recipe) -> int:
    """Rows that an evaluation answers; 1,000 are assumed where nothing says how many there are."""
    limit = recipe.evaluation.limit
    rows = _local_rows(recipe.data, "test") or limit or 1000
    return min(rows, limit or rows)


def _local_rows(data: Data, which: str) -> int | None:
    """Rows of local .jsonl files, split as `data.py` does it; None where that takes a reader."""
    from selm import data_files  # it imports this module

    if not is_local_path(data.name_or_path) or any(
        sign in spec for spec in (data.train_split, data.test_split) for sign in "[+"
    ):
        return None
    splits = data_files.local_splits(data)
    whole = data_files.root(data).is_file()
    test = None if whole else splits.get(data.test_split)
    if which == "test" and test is not None:
        return _lines_of(test)
    rows = _lines_of(splits.get("train" if whole else data.train_split, []))
    if rows is None or test is not None:
        return rows
    held_out = -(-rows // 10)
    return rows - held_out if which == "train" else held_out


def _lines_of(files: list[Path]) -> int | None:
    counts = [_lines(file) for file in files]
    found = [count for count in counts if count is not None]
    return sum(found) if files and len(found) == len(counts) else None


@lru_cache
def _lines(path: Path) -> int | None:
    if path.suffix != ".jsonl" or not path.is_file():
        return None
    with path.open("rb") as file:
        return sum(1 for line in file if line.strip())


def num_processes(recipe: Recipe) -> int:
    """How many training processes the plan starts: the recipe's number, else the config's."""
    if recipe.training.num_processes is not None:
        return recipe.training.num_processes
    return int(accelerate_setting(recipe.training, "num_processes"))


def accelerate_setting(training: Training, key: str) -> Any:
    """What the accelerate config that the recipe names says under `key`; UserError: nothing."""
    return accelerate_config.setting(training.accelerate_config, key)


def rows_per_process(recipe: Recipe, world_size: int) -> int:
    """Of a step; raises UserError where the global batch cannot be shared out equally."""
    wanted = recipe.training.global_batch_size
    if wanted % world_size == 0:
        return wanted // world_size
    raise UserError(
        f"training.global_batch_size: {wanted} rows cannot be shared out equally; make it "
        f"a multiple of the {world_size} processes"
    )


def gradient_accumulation_steps(recipe: Recipe, world_size: int) -> int:
    """global = processes x per device x accumulation; raises UserError where that has no answer."""
    per_device = recipe.training.per_device_train_batch_size
    rows = rows_per_process(recipe, world_size)
    if rows % per_device == 0:
        return rows // per_device
    valid = [str(b) for b in range(1, rows + 1) if rows % b == 0]
    raise UserError(
        f"training.global_batch_size: {recipe.training.global_batch_size} is not {world_size} "
        f"processes x {per_device} rows x a whole number of accumulation steps; "
        f"valid training.per_device_train_batch_size: {', '.join(valid)}"
    )
