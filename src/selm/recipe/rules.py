"""Checks keys that must fit together, and the files that a recipe names."""

from selm.data.counting import portion, train_rows
from selm.errors import UserError
from selm.evaluation.kinds import BENCHMARKS
from selm.generation.kinds import KINDS
from selm.ranking.kinds import check_ranking
from selm.recipe import accelerate_config
from selm.recipe.names import not_one_of
from selm.recipe.places import check_file, check_name, is_hub_id, is_local_path
from selm.recipe.schema import Model, Recipe, Training
from selm.training.batch import (
    accelerate_setting,
    gradient_accumulation_steps,
    num_processes,
    rows_per_process,
)
from selm.training.objective import initial_explores
from selm.training.steps import untrained


def check(recipe: Recipe) -> None:
    """Raises UserError for mistakes that no single key shows."""
    if recipe.generation.engine not in KINDS:
        raise UserError(not_one_of("generation.engine", recipe.generation.engine, list(KINDS)))
    _check_files(recipe)
    for ranking in recipe.rankings():
        check_ranking(ranking)
    _check_sense(recipe)
    _check_benchmarks(recipe)


def _check_benchmarks(recipe: Recipe) -> None:
    section, last = recipe.benchmarks, len(recipe.iterations)
    for name in section.names:
        if name not in BENCHMARKS:
            raise UserError(not_one_of("benchmarks.names", name, list(BENCHMARKS)))
        if section.names.count(name) > 1:
            raise UserError(f"benchmarks.names: {name} stands there twice; remove one")
    if not isinstance(section.iterations, str):
        for t in section.iterations:
            if not 0 <= t <= last:
                raise UserError(f"benchmarks.iterations: {t} is not one of 0..{last}")
    if section.judge is not None:
        check_ranking(section.judge)
    if section.data is not None:
        check_file("benchmarks.data", section.data)
    for name in section.names:
        BENCHMARKS[name].check(recipe)


def _check_files(recipe: Recipe) -> None:
    """Check that every file that the recipe names exists."""
    check_name("model.name_or_path", recipe.model.name_or_path)
    check_name("data.name_or_path", recipe.data.name_or_path)
    check_file("training.accelerate_config", recipe.training.accelerate_config)
    if recipe.model.chat_template is not None:
        check_file("model.chat_template", recipe.model.chat_template)
    if is_local_path(recipe.data.name_or_path):
        check_file("data.name_or_path", recipe.data.name_or_path)


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
    """Refuse combinations of keys that do not work."""
    training = recipe.training
    accelerate_config.check_config(
        training.accelerate_config, recipe.model.dtype, training.num_processes
    )
    _check_batch(recipe)
    _check_steps(recipe)
    _check_kernels(recipe.model)
    _check_lora(recipe.training)
    _check_optimism(recipe)
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


def _check_optimism(recipe: Recipe) -> None:
    last, training = len(recipe.iterations), recipe.training
    later = any(initial_explores(recipe, t) for t in range(1, last + 1))
    if later and training.reference != "initial":
        raise UserError(
            f"training.optimism: {training.optimism} with several iterations explores with the "
            "initial policy, which must be the reference too; set training.reference=initial"
        )


def _check_steps(recipe: Recipe) -> None:
    """Check that each iteration trains, if the number of its rows is known."""
    rows, last = train_rows(recipe), len(recipe.iterations)
    if not rows:  # an empty file is refused by the code that reads it
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
    """Refuse an attention kernel `owner/name`, code from the Hub, unless the recipe trusts it."""
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
