"""Reading a recipe: overrides, and one helpful line for everything that can be wrong with it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from selm.check.installed import check_packages
from selm.data.counting import portion
from selm.errors import UserError
from selm.generation.vllm import EXECUTION_OPTIONS
from selm.recipe.loading import load_recipe
from selm.recipe.places import is_local_path
from selm.recipe.schema import Iteration, Recipe
from selm.recipe.trl_keys import DECIDED_ELSEWHERE, NEVER, trl_keys
from selm.recipe.vllm_keys import VLLM_DECIDED_ELSEWHERE, vllm_keys
from selm.run.plan import Run, script
from selm.run.stages import stages
from selm.training.batch import gradient_accumulation_steps, num_processes
from selm.training.config import training_arguments

REPOSITORY = Path(__file__).resolve().parents[1]
ZEPHYR = "recipes/zephyr-7b-sft/selm.yaml"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def load(*overrides: str) -> Recipe:
    return load_recipe(ZEPHYR, overrides)


def refusal(*overrides: str, path: str | Path = ZEPHYR) -> str:
    """The one line that refuses these overrides."""
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


def value_at(recipe: Recipe, key: str) -> Any:
    node: Any = recipe
    for part in key.split("."):
        if isinstance(node, dict):
            node = node[part]
        else:
            node = node[int(part)] if part.isdigit() else getattr(node, part)
    return node


# Overrides


@pytest.mark.parametrize(
    ("override", "value"),
    [
        ("seed=7", 7),
        ("training.alpha=0.005", 0.005),
        ("training.alpha=5e-3", 0.005),
        ("training.alpha=0", 0.0),
        ("iterations.0.learning_rate=5e-7", 5e-7),
        ("iterations.3.learning_rate=2.0E-6", 2e-6),
        ("iterations.1.objective=online_dpo", "online_dpo"),
        ("evaluation.every_iteration=false", False),
        ("evaluation.limit=null", None),
        ("evaluation.limit=", None),
        ("generation.workers=4", 4),
        ("generation.workers=auto", "auto"),
        ("generation.shard_size=auto", "auto"),
        ("ranking.shard_size=7", 7),
        ("training.lora.r=4", 4),
        ("training.lora.use_rslora=true", True),
        ("run_name=2024", "2024"),
        ("data.name_or_path=someone/data", "someone/data"),
        ("training.logging_steps=5", 5.0),
        ("training.weight_decay=1e-2", 0.01),
        ("training.max_steps=3", 3),
        ("training.gradient_checkpointing=false", False),
        ("training.optim=sgd", "sgd"),
    ],
)
def test_override_becomes_a_typed_value(override: str, value: Any) -> None:
    key = override.partition("=")[0]
    found = value_at(load(override), key)
    assert found == value
    assert type(found) is type(value)


def test_override_changes_its_key_and_nothing_else() -> None:
    before, after = load().model_dump(), load("training.alpha=0.005").model_dump()
    assert before["training"].pop("alpha") == 0.001
    assert after["training"].pop("alpha") == 0.005
    assert before == after


def test_override_of_a_section_leaves_its_yaml_alias_alone(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "run_name: a\nmodel: {name_or_path: m/m}\ndata: {name_or_path: d/d}\n"
        "iterations: [{objective: selm, learning_rate: 1e-6}]\n"
        "ranking: &judge {ranker: random}\nevaluation: {ranking: *judge}\n",
        encoding="utf-8",
    )
    recipe = load_recipe(path, ["ranking.ranker=pairrm", "ranking.name_or_path=p/p"])
    assert (recipe.ranking.ranker, recipe.held_out_ranking().ranker) == ("pairrm", "random")


def test_no_name_breaks_out_of_the_plans_comments() -> None:
    assert "line breaks" in refusal("model.name_or_path=a/b\nrm -rf ~")
    assert "line breaks" in refusal('model.name_or_path="a/b\\nrm -rf ~"')


def test_later_override_wins() -> None:
    assert load("seed=1", "seed=2").seed == 2


@pytest.mark.parametrize("text", ["a=b", "a=b=c", "=", "x=1 y=2", "a==b"])
def test_override_is_split_at_the_first_equals_sign(text: str) -> None:
    assert load(f"data.train_split={text!r}").data.train_split == text
    assert load(f"model.revision=refs={text}").model.revision == f"refs={text}"


def test_iterations_may_be_a_flow_list() -> None:
    recipe = load("iterations=[{objective: selm, learning_rate: 5e-7}]")
    assert recipe.iterations == (Iteration(objective="selm", learning_rate=5e-7),)
    text = script(Run(recipe, ZEPHYR))
    assert "rows 0..61134 of 61,135" in text


def test_section_that_the_file_leaves_out_can_be_overridden() -> None:
    recipe = load("evaluation.ranking.ranker=random", "hub.namespace=me")
    assert recipe.held_out_ranking().ranker == "random"
    assert recipe.ranking.ranker == "pairrm"
    assert recipe.hub.namespace == "me"


def test_loaded_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load().seed = 3  # type: ignore[misc]


def test_no_override_runs_code(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    for text in (
        f"!!python/object/apply:os.system ['touch {trace}']",
        f"__import__('os').system('touch {trace}')",
        f"$(touch {trace})",
        f"`touch {trace}`",
    ):
        refusal(f"training.alpha={text}")
    assert not trace.exists()


def test_plan_quotes_overrides_for_the_shell() -> None:
    override = "data.train_split=$(touch /tmp/x) 'a'"
    text = script(Run(load("seed=1"), ZEPHYR, (override,)))
    line = next(line for line in text.splitlines() if line.startswith("python "))
    echoed = subprocess.run(
        ["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
    )
    assert echoed.stdout.splitlines()[-1] == override


# Mistakes


@pytest.mark.parametrize(
    ("override", "named", "hint"),
    [
        ("trainign.alpha=1", "trainign", "did you mean training?"),
        ("sed=1", "sed", "did you mean seed?"),
        ("alpha=1", "alpha", "did you mean training.alpha?"),
        ("max_tokens=1", "max_tokens", "did you mean generation.max_tokens?"),
        ("training.alhpa=1", "training.alhpa", "did you mean alpha?"),
        ("training.logging_step=1", "training.logging_step", "did you mean logging_steps?"),
        ("training.temperature=1", "training.temperature", "did you mean generation.temperature?"),
        ("generation.num_sample=1", "generation.num_sample", "did you mean num_samples?"),
        ("ranking.rankr=random", "ranking.rankr", "did you mean ranker?"),
        ("evaluation.ranking.rankr=random", "evaluation.ranking.rankr", "did you mean ranker?"),
        ("iterations.0.objectiv=dpo", "iterations.0.objectiv", "did you mean objective?"),
        ("iterations.2.lr=1", "iterations.2.lr", "known keys: objective, learning_rate"),
        ("generation.auto_size=1", "generation.auto_size", "did you mean batch_size?"),
        ("data.zzz=1", "data.zzz", "known keys: name_or_path, revision"),
    ],
)
def test_unknown_key_is_named_with_a_suggestion(override: str, named: str, hint: str) -> None:
    message = refusal(override)
    assert f"{named}: unknown key" in message
    assert hint in message


def test_a_key_that_is_proposed_is_one_that_a_recipe_may_set() -> None:
    refused = {*DECIDED_ELSEWHERE, *NEVER}
    for key in refused:
        proposed = refusal(f"training.{key}x=1").partition("did you mean ")[2].rstrip("?")
        assert proposed not in refused, key
    assert "known keys" in refusal("training.precision=bf16")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.alpha=high", "training.alpha"),
        ("training.alpha=true", "training.alpha"),
        ("training.alpha=.inf", "training.alpha"),
        ("training.alpha=.nan", "training.alpha"),
        ("training.alpha=-0.1", "training.alpha"),
        ("training.alpha=[0.1]", "training.alpha"),
        ("training.beta=0", "training.beta"),
        ("training.global_batch_size=1.5", "training.global_batch_size"),
        ("training.lora=16", "training.lora"),
        ("training.lora.r=0", "training.lora.r"),
        ("training.lora.lora_dropout=1", "training.lora.lora_dropout"),
        ("training.logging_steps=often", "training.logging_steps"),
        ("training.logging_steps=true", "training.logging_steps"),
        ("training.weight_decay=.inf", "training.weight_decay"),
        ("training.max_steps=5.5", "training.max_steps"),
        ("training.gradient_checkpointing=1", "training.gradient_checkpointing"),
        ("training.ddp_timeout=two", "training.ddp_timeout"),
        ("iterations.0.learning_rate=0", "iterations.0.learning_rate"),
        ("iterations=3", "iterations"),
        ("iterations=[]", "iterations"),
        ("generation.num_samples=true", "generation.num_samples"),
        ("generation.top_p=1.5", "generation.top_p"),
        ("generation.workers=many", "generation.workers"),
        ("generation.workers=0", "generation.workers"),
        ("evaluation.every_iteration=sometimes", "evaluation.every_iteration"),
        ("data.limit=0", "data.limit"),
        ("model=null", "model"),
        ("model.dtype=int8", "model.dtype"),
        ("run_name=a/b", "run_name"),
        ("seed=-1", "seed"),
    ],
)
def test_wrong_value_is_named_with_its_key(override: str, named: str) -> None:
    message = refusal(override)
    assert f"{named}: " in message
    assert "pydantic" not in message
    assert "literal[" not in message


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("ranking.ranker=pairmr", "pairrm"),
        ("ranking.ranker=randon", "random"),
        ("evaluation.ranking.ranker=functoin", "function"),
        ("generation.engine=transformer", "transformers"),
        ("iterations.0.objective=slem", "selm"),
        ("ranking.update_rule=bestworst", "best_worst"),
    ],
)
def test_unknown_choice_names_the_valid_ones_and_the_nearest(override: str, near: str) -> None:
    key, _, value = override.partition("=")
    message = refusal(override)
    assert f"{key}: {value!r} is not one of " in message
    assert message.endswith(f"did you mean {near!r}?")


@pytest.mark.parametrize("override", ["seed.x=1", "training.alpha.x=1", "training.alpha.x.y=1"])
def test_key_below_a_single_value_is_refused(override: str) -> None:
    assert "is a single value" in refusal(override)


@pytest.mark.parametrize("override", ["seed", "=1", ""])
def test_override_without_key_or_value_is_refused(override: str) -> None:
    assert "wanted an override such as" in refusal(override)


@pytest.mark.parametrize("index", ["4", "-1", "first"])
def test_index_beyond_the_iterations_is_refused(index: str) -> None:
    assert "not the number of an entry; there are 4" in refusal(
        f"iterations.{index}.learning_rate=1"
    )


@pytest.mark.parametrize(("key", "where"), sorted(DECIDED_ELSEWHERE.items()))
def test_key_that_another_part_decides_says_which(key: str, where: str) -> None:
    assert refusal(f"training.{key}=1") == f"training.{key}: decided by {where}"


def test_keys_decided_elsewhere_are_keys_of_trl() -> None:
    assert set(DECIDED_ELSEWHERE) - {"group_by_length"} <= set(trl_keys())  # an older one
    assert not set(DECIDED_ELSEWHERE) & set(NEVER)


def test_missing_recipe_file_is_named() -> None:
    assert "recipes/nowhere.yaml: no such recipe file" in refusal(path="recipes/nowhere.yaml")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("training.accelerate_config=nowhere.yaml", "training.accelerate_config"),
        ("model.chat_template=nowhere.jinja", "model.chat_template"),
        ("data.name_or_path=./nowhere.jsonl", "data.name_or_path"),
    ],
)
def test_missing_file_is_named_with_its_key(override: str, named: str) -> None:
    message = refusal(override)
    assert message.startswith(f"{named}: no such file: ")
    assert "nowhere" in message


def test_function_ranker_needs_a_file_and_a_function() -> None:
    base = "ranking.ranker=function"
    assert "path/to/file.py:function" in refusal(base)
    assert "path/to/file.py:function" in refusal(base, "ranking.name_or_path=reward.py")
    missing = refusal(base, "ranking.name_or_path=nowhere.py:reward")
    assert missing.startswith("ranking.name_or_path: no such file: nowhere.py")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1\n- 2\n", "a recipe is a mapping"),
        ("", "a recipe is a mapping"),
        ("run_name: x\n", "model: missing; add it"),
    ],
)
def test_broken_recipe_file_is_named(text: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    message = refusal(path=path)
    assert message.startswith(f"{path}: ")
    assert what in message


def test_several_greedy_samples_are_refused() -> None:
    assert "generation.temperature" in refusal("generation.num_samples=2")
    assert load("generation.num_samples=2", "generation.temperature=0.7")


def test_a_pool_of_samples_wants_several_and_no_rule_about_the_datasets_pair() -> None:
    several = ("ranking.pool=samples", "generation.num_samples=2", "generation.temperature=1")
    assert load(*several).ranking.pool == "samples"
    assert "generation.num_samples" in refusal("ranking.pool=samples")
    assert "use best_worst" in refusal(*several, "ranking.update_rule=replace")
    assert "ranking.min_margin" in refusal("ranking.min_margin=-1")


# Batch arithmetic


@pytest.mark.parametrize("world_size", [1, 2, 4, 8, 16, 32])
def test_global_batch_is_kept_on_any_number_of_processes(world_size: int) -> None:
    recipe = load(f"training.num_processes={world_size}")
    assert num_processes(recipe) == world_size
    assert gradient_accumulation_steps(recipe, world_size) * world_size * 8 == 256


def test_batch_that_does_not_divide_lists_the_sizes_that_do() -> None:
    by_rows = "training.tokens_per_micro_batch=null"
    message = refusal(by_rows, "training.per_device_train_batch_size=5")
    assert "256 is not 8 processes x 5 rows" in message
    assert message.endswith("valid training.per_device_train_batch_size: 1, 2, 4, 8, 16, 32")
    for size in (1, 2, 4, 8, 16, 32):
        load(by_rows, f"training.per_device_train_batch_size={size}")


def test_tokens_of_a_micro_batch_replace_its_rows(tmp_path: Path) -> None:
    """By tokens the global batch need not be a multiple of per_device_train_batch_size."""
    recipe = load("training.per_device_train_batch_size=5", "training.tokens_per_micro_batch=90")
    lengths = [60, 40, 30, 20] * 100
    arguments = training_arguments(recipe, 1, tmp_path, world_size=2, lengths=lengths)
    assert 2 * arguments.rows_per_step == recipe.training.global_batch_size
    # of 128 rows 32 are alone, 32 in twos, 32 in threes, 32 in fours: 67, and steps are random
    assert 67 <= arguments.gradient_accumulation_steps <= 75
    with pytest.raises(UserError, match=r"training\.global_batch_size: .* multiple of 3"):
        training_arguments(recipe, 1, tmp_path, world_size=3, lengths=lengths)


def test_tokens_of_a_micro_batch_want_random_steps() -> None:
    overrides = "training.tokens_per_micro_batch=90", "training.train_sampling_strategy=sequential"
    assert refusal(*overrides).startswith("training.tokens_per_micro_batch: needs rows in random")


def test_batch_that_no_size_divides_says_what_would() -> None:
    assert "a multiple of 3" in refusal("training.num_processes=3")
    assert "a multiple of 8" in refusal("training.global_batch_size=100")


def test_accelerate_config_without_processes_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("distributed_type: MULTI_GPU\n", encoding="utf-8")
    assert "no num_processes" in refusal(f"training.accelerate_config={config}")
    assert load(f"training.accelerate_config={config}", "training.num_processes=8")


# Portions, iterations, paths


@pytest.mark.parametrize("num_iterations", [1, 2, 3, 4, 5, 7, 16])
@pytest.mark.parametrize("num_rows", [1, 2, 3, 10, 16, 97, 360, 61_135])
def test_portions_cover_everything_once_in_almost_equal_sizes(
    num_rows: int, num_iterations: int
) -> None:
    portions = [portion(num_rows, t, num_iterations) for t in range(1, num_iterations + 1)]
    assert [row for rows in portions for row in rows] == list(range(num_rows))
    sizes = [len(rows) for rows in portions]
    assert max(sizes) - min(sizes) <= 1


def test_portion_of_a_worked_example() -> None:
    assert [portion(10, t, 3) for t in (1, 2, 3)] == [range(0, 3), range(3, 6), range(6, 10)]


def test_limit_shortens_what_the_plan_counts() -> None:
    assert "rows 75..99 of 100 (25 rows, 1 optimizer steps)" in script(
        Run(load("data.limit=100"), ZEPHYR)
    )


def test_only_selm_iterations_have_optimism() -> None:
    recipe = load("iterations.2.objective=online_dpo")
    assert [recipe.alpha(t) for t in (1, 2, 3, 4)] == [0.0, 0.001, 0.0, 0.001]


def test_evaluation_may_be_kept_for_the_ends() -> None:
    order = stages(load("evaluation.every_iteration=false"))
    for kind in ("answers", "evaluation"):
        assert [t for name, t in order if name == kind] == [0, 4]


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("HuggingFaceH4/ultrafeedback_binarized", False),
        ("gpt2", False),
        ("./data", True),
        ("/data/x", True),
        ("~/data", True),
        ("data.jsonl", True),
        ("mine/data.parquet", True),
        ("a/b/c", True),
        ("recipes/smollm2-135m-instruct", True),  # it exists
    ],
)
def test_hub_ids_and_local_paths_are_told_apart(name: str, local: bool) -> None:
    assert is_local_path(name) is local


# The command line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((ZEPHYR, "training.alhpa=1"), ("training.alhpa", "alpha?")),
        ((ZEPHYR, "training.alpha=high"), ("training.alpha", "'high'")),
        ((ZEPHYR, "ranking.ranker=pairmr"), ("ranking.ranker", "'pairrm'?")),
        (("recipes/nowhere.yaml",), ("recipes/nowhere.yaml", "no such recipe file")),
    ],
)
def test_plan_script_refuses_in_one_line_with_exit_code_2(
    arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/plan.py", *arguments],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY / "src")},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in words)


# LoRA, and packages that only some recipes need


def test_lora_has_defaults_of_its_own() -> None:
    lora = load("training.lora={}").training.lora
    assert (lora.r, lora.lora_alpha, lora.target_modules) == (16, 32, "all-linear")
    assert load().training.lora is None
    assert load("training.lora.target_modules=[q_proj, v_proj]").training.lora.target_modules == (
        *("q_proj", "v_proj"),
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.lora.alpha=8"], "unknown key in training.lora; did you mean lora_alpha?"),
        (["training.lora.lora_dropout=0.1"], "set training.disable_dropout=false as well"),
        (["training.lora.load_in_4bit=true"], "4-bit weights cannot be sharded"),
    ],
)
def test_lora_that_would_not_work_is_refused(overrides: list[str], message: str) -> None:
    assert message in refusal(*overrides)


def test_lora_with_what_it_needs_is_taken() -> None:
    assert load("training.lora.lora_dropout=0.1", "training.disable_dropout=false")
    ddp = "training.accelerate_config=accelerate_configs/ddp.yaml"
    assert load("training.lora.load_in_4bit=true", ddp).training.lora.load_in_4bit


@pytest.mark.parametrize(
    ("override", "package"),
    [
        ("training.report_to=[tensorboard]", None),
        ("training.report_to=trackio", "trackio"),
        ("training.report_to=wandb", "wandb"),
        ("training.lora.load_in_4bit=true", "bitsandbytes"),
        ("model.attn_implementation=flash_attention_2", "flash-attn"),
    ],
)
def test_a_missing_package_is_named_with_the_key_that_wants_it(
    override: str, package: str | None
) -> None:
    recipe = load(override, "training.accelerate_config=accelerate_configs/ddp.yaml")
    if package is None:
        check_packages(recipe)
        return
    if importlib.util.find_spec(package.replace("-", "_")):
        pytest.skip(f"{package} is installed here")
    with pytest.raises(UserError) as caught:
        check_packages(recipe)
    key = override.partition("=")[0]
    assert str(caught.value).startswith(key)
    assert f"pip install {package}" in str(caught.value)


# vLLM's options


def test_options_of_vllm_are_typed_and_belong_to_it() -> None:
    options = load("generation.vllm={gpu_memory_utilization: 1, max_model_len: 4096.0}")
    assert options.generation.vllm == {"gpu_memory_utilization": 1.0, "max_model_len": 4096}
    assert load("generation.vllm.quantization=fp8").generation.vllm == {"quantization": "fp8"}
    for key in ("tensor_parallel_size", "dtype", "model", "seed"):
        assert f"generation.vllm.{key}: decided by" in refusal(f"generation.vllm.{key}=1")


@pytest.mark.parametrize("installed", [True, False])
@pytest.mark.parametrize("value", ["long", "{}", "[1]", "true", "-7", "1e300"])
def test_ranges_of_vllms_options_hold_without_vllm(
    value: str, installed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not installed:
        monkeypatch.setattr("selm.recipe.vllm_keys.vllm_keys", dict)
        monkeypatch.setattr("selm.recipe.loading.vllm_keys", dict)
    for key in ("gpu_memory_utilization", "max_model_len", "max_num_seqs"):
        assert f"generation.vllm.{key}: must be" in refusal(f"generation.vllm.{key}={value}")


@pytest.mark.skipif(not vllm_keys(), reason="needs vLLM: make setup VLLM=1")
def test_an_unknown_option_of_vllm_is_refused_with_the_right_one() -> None:
    said = refusal("generation.vllm.gpu_memory_utilisation=0.8")
    assert "unknown key in generation.vllm; did you mean gpu_memory_utilization?" in said
    said = refusal("generation.vllm.max_model_len=long")
    assert said.endswith("generation.vllm.max_model_len: must be a number, got 'long'")
    assert set(VLLM_DECIDED_ELSEWHERE) <= set(vllm_keys())
    assert set(vllm_keys()) >= EXECUTION_OPTIONS
