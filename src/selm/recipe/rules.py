"""What must fit together in a recipe, and the files that it names."""

import os
from pathlib import Path

from selm.data.counting import portion, train_rows
from selm.errors import UserError
from selm.generation.kinds import KINDS
from selm.recipe import accelerate_config
from selm.recipe.names import not_one_of
from selm.recipe.places import is_hub_id, is_local_path
from selm.recipe.schema import SELECTION_KEYS, Model, Ranking, Recipe, Training
from selm.training.batch import (
    accelerate_setting,
    gradient_accumulation_steps,
    num_processes,
    rows_per_process,
)
from selm.training.steps import untrained

# What a judge's template must hold, each in braces.
TEMPLATE_FIELDS = ("prompt", "response_a", "response_b")


def check(recipe: Recipe) -> None:
    """Raises UserError for what no single key can refuse."""
    if recipe.generation.engine not in KINDS:
        raise UserError(not_one_of("generation.engine", recipe.generation.engine, list(KINDS)))
    _check_files(recipe)
    _check_sense(recipe)


def _check_files(recipe: Recipe) -> None:
    """Every file that the recipe names is there before the first stage starts."""
    wanted = {
        "training.accelerate_config": recipe.training.accelerate_config,
        "model.chat_template": recipe.model.chat_template,
    }
    if is_local_path(recipe.data.name_or_path):
        wanted["data.name_or_path"] = recipe.data.name_or_path
    for section, ranking in recipe.rankings():
        if ranking.ranker == "ensemble":
            _check_members(section, ranking)
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
    for section, ranking in recipe.rankings():
        if ranking.ranker == "judge":
            read_template(f"{section}.judge.template", ranking.judge.template)


def _check_hub_ids(recipe: Recipe) -> None:
    """What is no path must be a name that the Hub can have."""
    names = {"model.name_or_path": recipe.model.name_or_path}
    names["data.name_or_path"] = recipe.data.name_or_path
    for section, ranking in recipe.rankings():
        if ranking.ranker in ("pairrm", "reward_model") and ranking.name_or_path:
            names[f"{section}.name_or_path"] = ranking.name_or_path
    for key, name in names.items():
        if not is_hub_id(name) and not is_local_path(name):
            raise UserError(
                f"{key}: neither an existing path nor a name on the Hub (owner/name): {name!r}"
            )


def read_template(key: str, path: str) -> str:
    """What a judge is asked: text in UTF-8 that says where prompt and responses shall stand."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{key}: {path} cannot be read as text in UTF-8: {error}") from error
    missing = [f"{{{name}}}" for name in TEMPLATE_FIELDS if f"{{{name}}}" not in text]
    if missing:
        raise UserError(f"{key}: {path} must contain {' and '.join(missing)}")
    return text


_NAME_WANTED = {
    "reward_model": "a model with one output, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B",
    "judge": "the model's name at ranking.judge.base_url",
}


def _check_members(section: str, ensemble: Ranking) -> None:
    if len(ensemble.rankers) < 2:
        raise UserError(f"{section}.rankers: an ensemble needs two rankers or more")
    for i, member in enumerate(ensemble.rankers):
        if member.ranker == "ensemble":
            raise UserError(
                f"{section}.rankers.{i}.ranker: an ensemble cannot be a member of an ensemble"
            )
        keys = {*SELECTION_KEYS, "workers", "shard_size"}
        misplaced = {
            key for key in keys if getattr(member, key) != Ranking.model_fields[key].default
        }
        if misplaced:
            key = min(misplaced)
            raise UserError(
                f"{section}.rankers.{i}.{key}: cannot be set for a member; set {section}.{key}"
            )


def _function_file(section: str, ranking: Ranking) -> str:
    file, colon, function = (ranking.name_or_path or "").rpartition(":")
    if not colon or not file or not function:
        raise UserError(
            f"{section}.name_or_path: the function ranker needs path/to/file.py:function, "
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
            "training.tokens_per_micro_batch: needs rows in random order; set it to null, or "
            f"remove training.train_sampling_strategy: {order}"
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
            "hub.namespace: missing; hub.push=true needs the name of your account or "
            "organisation on the Hub, as in hub.namespace=me"
        )
    if recipe.hub.push and not is_hub_id(f"{recipe.hub.namespace}/{recipe.run_name}-preferences"):
        raise UserError(
            f"run_name: the Hub does not allow {recipe.hub.namespace}/{recipe.run_name}-*; "
            "use letters, digits and single - _ . (see hub.namespace)"
        )
    if recipe.ranking.pool == "samples":
        _check_pool_of_samples(recipe)


def _check_steps(recipe: Recipe) -> None:
    """Each iteration trains, as far as its rows are known."""
    rows, last = train_rows(recipe), len(recipe.iterations)
    if not rows:  # that a file is empty is said by who reads it
        return
    if rows < last:
        raise UserError(
            f"iterations: {last} iterations need at least {last} rows, but the data have {rows}"
        )
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
            f"model.attn_implementation: {model.attn_implementation} is code from the Hub; set "
            "model.trust_remote_code=true as well, or use sdpa"
        )


def _check_lora(training: Training) -> None:
    lora = training.lora
    if lora is None:
        return
    if lora.lora_dropout > 0 and training.trl_overrides().get("disable_dropout", True):
        raise UserError(
            "training.lora.lora_dropout: no effect, because TRL switches dropout off; set "
            "training.disable_dropout=false as well, or lora_dropout to 0"
        )
    sharded = accelerate_setting(training, "distributed_type") in ("DEEPSPEED", "FSDP")
    if lora.load_in_4bit and sharded:
        raise UserError(
            f"training.lora.load_in_4bit: 4-bit weights cannot be sharded as "
            f"{training.accelerate_config} would; use accelerate_configs/ddp.yaml, or single.yaml"
        )


def _check_pool_of_samples(recipe: Recipe) -> None:
    if recipe.generation.num_samples < 2:
        raise UserError(
            "ranking.pool: with samples the pool holds only the policy's own responses; set "
            "generation.num_samples to 2 or more, with a temperature above 0"
        )
    if recipe.ranking.update_rule == "replace":
        raise UserError(
            "ranking.update_rule: replace needs the dataset's pair, which ranking.pool: samples "
            "leaves out; use best_worst"
        )
