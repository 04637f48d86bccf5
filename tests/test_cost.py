"""The model of cost against independent counts: PyTorch's, peft's, and a finished quickstart."""

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest
import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from selm.cost import training
from selm.cost.devices import DEVICES, device_of
from selm.cost.estimate import ESTIMATES, fits, stage_cost, unknown
from selm.cost.quantities import Cost, longest_of
from selm.model.shape import SHAPES, Shape, shape_of
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Estimate, Ranking, Recipe
from selm.run.plan import Run, script, warnings
from selm.run.stages import stages
from selm.training.flex import block_mask, positions
from selm.training.layout import lay_out
from selm.training.shared_prefix import prepare

REPOSITORY = Path(__file__).resolve().parents[1]
ZEPHYR = "recipes/zephyr-7b-sft/selm.yaml"
DEVICES_YAML = REPOSITORY / "src/selm/cost/devices.yaml"
QUICKSTART = "recipes/smollm2-135m-instruct/selm.yaml"
BY_ROWS = ("training.tokens_per_micro_batch=null", "training.gradient_checkpointing=true")
SMOLLM2 = Shape(30, 576, 1536, 9, 3, 64, 49152, tied=True)
ROUND = Shape(10, 1000, 2000, 10, 10, 100, 1000)  # 10 x 10M in layers, 2M in embedding and head


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def zephyr(*overrides: str) -> Recipe:
    return load_recipe(ZEPHYR, overrides)


def with_strategy(name: str, *overrides: str) -> Recipe:
    config = f"training.accelerate_config=accelerate_configs/{name}.yaml"
    return zephyr(config, *overrides)


# As their pages on the Hub count them.
PUBLISHED = {
    "HuggingFaceH4/mistral-7b-sft-beta": 7_241_732_096,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "microsoft/Phi-3-mini-4k-instruct": 3_821_079_552,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_known_models_have_their_published_size(name: str) -> None:
    assert SHAPES[name].parameters == pytest.approx(PUBLISHED[name], rel=1e-3)


@pytest.mark.parametrize("shape", [SMOLLM2, replace(SMOLLM2, tied=False, kv_heads=9)])
def test_parameters_are_those_that_pytorch_counts(shape: Shape) -> None:
    assert shape.parameters == sum(p.numel() for p in llama(shape, "meta").parameters())


def llama(shape: Shape, device: str) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )
    with torch.device(device):
        return LlamaForCausalLM(config)


def test_adapter_parameters_are_those_that_peft_trains() -> None:
    from peft import LoraConfig, get_peft_model

    shape = Shape(2, 64, 96, 2, 1, 32, 100)
    settings = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    trained, _ = get_peft_model(llama(shape, "cpu"), settings).get_nb_trainable_parameters()
    assert shape.adapter_parameters(4) == trained


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_layer_keeps_for_its_backward_what_pytorch_saves(dtype: str) -> None:
    """Within 3 %: the small tensors (masks, variances, sums of exponents) are left out."""
    recipe = load_recipe(QUICKSTART, [f"model.dtype={dtype}"])
    shape = Shape(2, 96, 256, 3, 1, 32, 200)
    saved = [saved_bytes(replace(shape, layers=n), dtype == "bfloat16") for n in (2, 6)]
    per_layer = (saved[1] - saved[0]) / 4
    assert training.layer_bytes(recipe, shape) == pytest.approx(per_layer, rel=0.03)


def saved_bytes(shape: Shape, autocast: bool) -> float:
    """Bytes per token that the shared forward saves for its backward, weights left out."""
    model = llama(shape, "cpu")
    prepare(model)
    row, positions, layout = lay_out([list(range(40))], [[list(range(60)), list(range(50))]])
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    matrices = {tuple(p.shape) for p in model.parameters()}
    matrices |= {tuple(reversed(shape)) for shape in matrices}
    seen: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own and tuple(tensor.shape) not in matrices:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = model(
            input_ids=torch.tensor([row]),
            position_ids=torch.tensor([positions]),
            examples=layout,
            scored=torch.tensor([len(row) - 1]),
            targets=torch.tensor([1]),
        )
    assert output["log_probs"].requires_grad
    return sum(seen.values()) / len(row)


# Bytes per parameter of weights, gradients, optimizer. ROUND has 82M matrix elements of 83M: the
# copies of autocast are those of `multiplied`, and all of it is gathered under ZeRO-3.
# ZeRO-3 also keeps its own shard in bf16.
def test_training_takes_16_bytes_per_parameter_divided_as_the_strategy_does() -> None:
    def per_parameter(recipe: Recipe) -> list[float]:
        memory = training.memory(recipe, ROUND, explores=True)
        parts = (memory.weights, memory.gradients, memory.optimizer)
        return [part / ROUND.parameters for part in parts]

    copies = 2 * ROUND.multiplied / ROUND.parameters
    one = "training.num_processes=1"
    assert per_parameter(with_strategy("single")) == pytest.approx([4 + copies, 4, 8])
    assert per_parameter(with_strategy("single", "model.dtype=float32")) == [4, 4, 8]
    assert per_parameter(with_strategy("ddp")) == pytest.approx([4 + copies, 8, 8])
    for sharded, own in (("zero3", 2), ("fsdp2", 0)):
        parts = per_parameter(with_strategy(sharded))
        assert parts == pytest.approx([(4 + own) / 8 + 2, 4 / 8, 8 / 8])
    assert per_parameter(with_strategy("zero3", one)) == pytest.approx([4 + 2 + 2, 4, 8])


def test_lora_trains_the_adapter_beside_frozen_weights() -> None:
    recipe = with_strategy("single", "training.lora={r: 16}")
    memory, adapter = training.memory(recipe, ROUND, True), ROUND.adapter_parameters(16)
    assert memory.optimizer == 8 * adapter
    assert memory.gradients == 4 * adapter
    assert memory.weights == 2 * ROUND.parameters + 4 * adapter
    in_4_bits = with_strategy("ddp", "training.lora={r: 16, load_in_4bit: true}")
    assert training.memory(in_4_bits, ROUND, True).weights < 0.35 * memory.weights


def test_activations_grow_with_the_batch_and_shrink_with_checkpointing() -> None:
    def activations(*overrides: str) -> float:
        recipe = with_strategy("single", *BY_ROWS, *overrides)
        return training.memory(recipe, SHAPES[recipe.model.name_or_path], True).activations

    eight, one = (activations(f"training.per_device_train_batch_size={n}") for n in (8, 1))
    assert one < eight < 8 * one + 1
    assert eight < activations("training.gradient_checkpointing=false") / 5
    assert activations("training.max_length=400") < eight


def test_the_mask_and_the_sum_of_the_head_are_counted() -> None:
    """The bytes of a real mask of 21,608 tokens, and of the weight's gradient in fp32 and bf16."""
    _, _, layout = lay_out([[1] * 185] * 8, [[[1] * 839] * 3] * 8)
    mask = block_mask(tuple(layout), torch.device("cpu"))
    tensors = [part for part in mask.as_tuple() if isinstance(part, torch.Tensor)]
    held = sum(tensor.nbytes for tensor in {id(t): t for t in tensors}.values())
    held += sum(ids.nbytes for ids in positions(layout))
    tokens = mask.seq_lengths[0]
    adapter = with_strategy("single", "training.lora={r: 16}")
    assert training.shared_bytes(adapter, ROUND, tokens) == pytest.approx(held, rel=0.02)
    whole = training.shared_bytes(with_strategy("single"), ROUND, tokens)
    assert whole - training.shared_bytes(adapter, ROUND, tokens) == 6 * ROUND.vocab * ROUND.hidden


@pytest.mark.parametrize("forward", ["shared", "padded"])
def test_activations_grow_with_the_tokens_of_a_micro_batch_down_to_one_row(forward: str) -> None:
    def activations(*overrides: str) -> float:
        recipe = with_strategy("single", *BY_ROWS, f"training.forward={forward}", *overrides)
        return training.memory(recipe, SHAPES[recipe.model.name_or_path], True).activations

    of = {n: activations(f"training.tokens_per_micro_batch={n}") for n in (1, 8000, 16000)}
    assert of[1] == activations("training.per_device_train_batch_size=1")
    assert of[1] < of[8000] < of[16000] < 2.001 * of[8000]


def test_a_budget_of_tokens_that_does_not_fit_is_taken_away() -> None:
    overrides = (*BY_ROWS, "training.num_processes=2", "training.tokens_per_micro_batch=500000")
    (warning,) = warnings(Run(zephyr(*overrides), ZEPHYR, overrides))
    ways = [shlex.split(way) for way in warning.split("this would fit: ")[1].split(" | ")]
    assert [
        "training.tokens_per_micro_batch=null",
        "training.per_device_train_batch_size=1",
    ] in ways


def test_more_gpus_take_less_time_and_under_zero3_less_memory_each() -> None:
    costs = [
        stage_cost(zephyr(f"training.num_processes={n}"), "checkpoint", 2) for n in (1, 2, 4, 8, 16)
    ]
    for fewer, more in pairwise(costs):
        assert more.seconds < fewer.seconds
        assert more.memory.total < fewer.memory.total
        assert (more.rows, more.tokens) == (fewer.rows, fewer.tokens)


# Each save of the adapter or the model is weights, gradients' moments: 12 bytes of each parameter.
# The run folder holds one of them, and the next until it is whole.
@pytest.mark.parametrize(
    ("settings", "saves"),
    [
        ((), 2),  # 15 steps: after 6 and 12
        (("training.save_steps=0.25",), 3),  # after 4, 8, 12
        (("training.save_steps=0.6",), 1),
        (("training.save_steps=5",), 2),
        (("training.save_strategy=epoch",), 0),
        (("training.save_strategy=epoch", "training.num_train_epochs=3"), 2),
        (("training.save_strategy=no",), 0),
        (("training.save_strategy=no", "training.save_steps=2"), 0),
    ],
)
def test_as_many_resume_points_are_written_as_the_trainer_saves(
    settings: tuple[str, ...], saves: int
) -> None:
    never = [each for each in settings if "epochs" in each] + ["training.save_strategy=no"]
    base, with_saves = (
        stage_cost(load_recipe(QUICKSTART, ["training.save_steps=0.34", *given]), "checkpoint", 1)
        for given in (never, settings)
    )
    size = 12 * SMOLLM2.parameters
    assert base.scratch_bytes == 0
    assert with_saves.scratch_bytes == min(saves, 2) * size
    assert with_saves.seconds - base.seconds == pytest.approx(saves * size / 1e9)


def test_max_steps_bounds_tokens_and_saves() -> None:
    all_steps, some = (
        stage_cost(load_recipe(QUICKSTART, overrides), "checkpoint", 1)
        for overrides in ((), ("training.max_steps=5", "training.save_strategy=no"))
    )
    assert some.tokens == pytest.approx(all_steps.tokens / 3)
    assert some.seconds < all_steps.seconds


def test_the_longest_of_more_texts_is_longer() -> None:
    assert longest_of(100, 1) == 100
    assert longest_of(100, 8) == pytest.approx(204, abs=1)


def test_a_warning_names_overrides_under_which_the_run_fits() -> None:
    given = (*BY_ROWS, "training.forward=padded", "training.num_processes=1")
    run = Run(zephyr(*given), ZEPHYR, given)
    (warning,) = warnings(run)
    assert warning.startswith("WARNING: train will not fit: about 162 GB where a100 has 80 GB")
    ways = [shlex.split(way) for way in warning.split("this would fit: ")[1].split(" | ")]
    assert ["training.num_processes=2", "training.per_device_train_batch_size=1"] in ways
    for way in ways:
        overrides = (*given, *way)
        assert warnings(Run(zephyr(*overrides), ZEPHYR, overrides)) == []
    text = script(run)
    assert f"# {warning}" in text.splitlines()[:6]
    assert subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_generation_that_does_not_fit_wants_tensor_parallelism() -> None:
    overrides = ("estimate.memory_gb=12",)
    lines = warnings(Run(zephyr(*overrides), ZEPHYR, overrides))
    (generate,) = [line for line in lines if line.startswith("WARNING: generate")]
    assert "this would fit: generation.tensor_parallel_size=2" in generate


@pytest.mark.parametrize("processes", [4, 8, 16])
def test_zephyr_fits_on_four_gpus_and_more(processes: int) -> None:
    recipe = zephyr(f"training.num_processes={processes}")
    assert all(fits(recipe, *stage) for stage in stages(recipe))


def test_every_stage_but_the_report_has_a_line_and_the_commands_stay() -> None:
    recipe = zephyr()
    text = script(Run(recipe, ZEPHYR))
    lines = text.splitlines()
    commands = [i for i, line in enumerate(lines) if line.startswith(("python ", "accelerate "))]
    commands = [i for i in commands if "--so-far" not in lines[i]]  # no stage of its own
    assert len(commands) == len(stages(recipe))
    names = ("generate", "rank", "train", "answer", "evaluate")
    for i in commands[:-1]:
        assert lines[i - 1].startswith(tuple(f"# {name}: " for name in names))
    assert "# train: 15,284 rows, " in text
    assert "# estimate: " in lines[3]


def test_a_number_of_the_recipe_replaces_the_devices() -> None:
    slow, fast = (
        stage_cost(zephyr(f"estimate.tflops={n}", "estimate.mfu=0.5"), "checkpoint", 2).seconds
        for n in (50, 100)
    )
    assert 1.8 < slow / fast < 2.0  # starting and saving do not change
    assert device_of(zephyr("estimate.memory_gb=40")).memory_gb == 40


def test_a_folders_config_counts_and_a_mixture_of_experts_has_no_estimate(tmp_path: Path) -> None:
    config = llama(ROUND, "meta").config
    config.save_pretrained(tmp_path)
    assert shape_of(str(tmp_path)) == ROUND
    written = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    other = tmp_path / "experts"
    other.mkdir()
    (other / "config.json").write_text(
        json.dumps(written | {"num_local_experts": 8}), encoding="utf-8"
    )
    assert shape_of(str(other)) is None
    recipe = zephyr(f"model.name_or_path={other}")
    assert "no estimates: the size of" in script(Run(recipe, ZEPHYR))


def test_a_model_that_nobody_knows_has_no_estimate_until_its_config_is_in_the_cache(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "scripts/plan.py", ZEPHYR, "model.name_or_path=some/model"]
    environment = os.environ | {"HF_HOME": str(tmp_path), "PYTHONPATH": "src"}
    environment.pop("HF_HUB_CACHE", None)
    before = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "unknown (`hf download some/model config.json`" in before.stdout
    cache = tmp_path / "hub" / "models--some--model"
    (cache / "refs").mkdir(parents=True)
    (cache / "refs" / "main").write_text("abc", encoding="utf-8")
    llama(SMOLLM2, "meta").config.save_pretrained(cache / "snapshots" / "abc")
    after = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "# train: 15,284 rows" in after.stdout


def test_rows_of_a_local_file_are_counted_and_of_others_asked_for(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    data.write_text('{"prompt": "Hi"}\n' * 25 + "\n", encoding="utf-8")
    own = [f"data.name_or_path={data}", "data.train_rows=null"]
    recipe = load_recipe(ZEPHYR, own)
    held_out = 3  # the last tenth, rounded up
    costs = [stage_cost(recipe, "checkpoint", t).rows for t in (1, 2, 3, 4)]
    assert sum(costs) == 25 - held_out
    assert stage_cost(recipe, "answers", 0).rows == held_out
    assert stage_cost(recipe, "evaluation", 0).rows == held_out
    assert unknown(zephyr("data.train_rows=null")) == (
        "the number of rows is unknown (data.train_rows says it)"
    )


# `python bench/plan_cost.py` measures them; the file names machine and versions. Beside a quarter,
# an estimate may be off by what the start of a process varies: a function as ranker loads no torch.
MEASURED = json.loads((REPOSITORY / "bench/plan_cost.json").read_text(encoding="utf-8"))
START_SECONDS, START_GB = 2, 0.25


@pytest.mark.parametrize("entry", MEASURED, ids=lambda entry: entry["case"])
def test_estimates_are_within_a_quarter_of_what_was_measured(entry: dict, tmp_path: Path) -> None:
    columns = yaml.safe_load(DEVICES_YAML.read_text(encoding="utf-8"))["cpu"]
    overrides = [*entry["overrides"], f"estimate.tflops={columns['tflops'] * entry['cores']}"]
    if entry["config"] is not None:
        (tmp_path / "config.json").write_text(
            json.dumps({"model_type": "llama"} | entry["config"]), encoding="utf-8"
        )
        overrides.append(f"model.name_or_path={tmp_path}")
    estimate = stage_cost(load_recipe(QUICKSTART, overrides), entry["stage"], entry["t"])
    seconds = pytest.approx(entry["seconds"], rel=0.25, abs=START_SECONDS)
    assert estimate.seconds == seconds
    memory_gb = pytest.approx(entry["memory_gb"], rel=0.25, abs=START_GB)
    assert estimate.memory.total / 1e9 == memory_gb


def test_an_evaluation_takes_what_generating_and_ranking_as_many_rows_take() -> None:
    recipe = load_recipe(QUICKSTART, ["data.train_rows=360", "evaluation.limit=120"])
    seconds = {stage: stage_cost(recipe, stage, 2).seconds for stage in ESTIMATES}
    assert {entry["stage"] for entry in MEASURED} == {"checkpoint", "responses", "preferences"}
    measured = seconds["responses"] + seconds["preferences"]
    evaluated = seconds.get("answers", 0) + seconds["evaluation"]
    assert evaluated == pytest.approx(measured, abs=device_of(recipe).start_seconds)


def test_an_ensemble_takes_what_its_members_take_together() -> None:
    base = zephyr()
    pairrm = base.ranking
    reward = Ranking(ranker="reward_model", name_or_path="Qwen/Qwen3-8B")
    function = Ranking(ranker="function", name_or_path="reward.py:f")

    def estimate(*members: Ranking) -> Cost:
        many = Ranking(ranker="ensemble", rankers=members)
        ranking = members[0] if len(members) == 1 else many
        return stage_cost(base.model_copy(update={"ranking": ranking}), "preferences", 2)

    start = estimate(function).seconds
    alone = [estimate(member).seconds - start for member in (pairrm, reward)]
    assert all(seconds > 1 for seconds in alone)
    together = estimate(pairrm, reward, function)
    assert together.seconds - start == pytest.approx(sum(alone))
    assert together.tokens == estimate(pairrm).tokens + estimate(reward).tokens


def test_a_recipe_may_name_any_device_of_the_table() -> None:
    devices = get_args(Estimate.model_fields["device"].annotation)
    assert set(devices) == set(DEVICES)
