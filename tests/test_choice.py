"""The trainer, the plan and the docs name the same forward for every recipe and launcher."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen3Config,
)

from selm.cost.training import forward_of
from selm.errors import UserError
from selm.model.shape import SHAPES, shape_of
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe
from selm.run.plan import Run, script
from selm.training.choice import choose
from selm.training.policy import lora_config

REPOSITORY = Path(__file__).resolve().parents[1]
RECIPES = [p for p in sorted(REPOSITORY.glob("recipes/*/*.yaml")) if p.name != "paper.yaml"]
WAYS = {
    "single": "accelerate_configs/single.yaml",
    "ddp": "accelerate_configs/ddp.yaml",
    "zero3": "accelerate_configs/zero3.yaml",
    "fsdp2": "accelerate_configs/fsdp2.yaml",
    "LoRA": {"r": 16},
    "QLoRA": {"r": 16, "load_in_4bit": True},
}
# The smallest of each family, with the window of the recipes' models.
TINY = {
    "vocab_size": 32,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
}
MODELS = {
    "mistral": MistralConfig(**TINY, sliding_window=4096),
    "llama": LlamaConfig(**TINY),
    "phi3": Phi3Config(**TINY, sliding_window=2047, eos_token_id=1, bos_token_id=2),
    "qwen3": Qwen3Config(**TINY, head_dim=16),
}


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def spread(path: Path, way: str, *overrides: str) -> Recipe:
    """The recipe with a launcher of its own, or with an adapter on one GPU."""
    given = WAYS[way]
    if isinstance(given, dict):
        keys = [f"training.accelerate_config={WAYS['single']}", f"training.lora={given}"]
    else:
        keys = [f"training.accelerate_config={given}", "training.per_device_train_batch_size=1"]
    return load_recipe(str(path), [*keys, *overrides])


def as_launched(recipe: Recipe, device: str) -> tuple[SimpleNamespace, PreTrainedModel]:
    """What `choose` reads of the arguments, and a model that has no device yet (`meta`).

    Launchers differ in where the weights lie before the trainer moves them: on the CPU, or, under
    ZeRO-3 and in 4 bits, on the GPU. The rule must not depend on it.
    """
    arguments = SimpleNamespace(
        forward=recipe.training.forward,
        max_length=recipe.training.max_length,
        use_weighting=recipe.training.trl_overrides().get("use_weighting", False),
        device=torch.device(device),
    )
    with torch.device("meta"):
        family = SHAPES[recipe.model.name_or_path].family
        model = AutoModelForCausalLM.from_config(MODELS[family])
        if recipe.training.lora is not None:
            model = get_peft_model(model, lora_config(recipe.training.lora))
    return arguments, model


def of_docs() -> dict[str, dict[str, str]]:
    """The table in docs/performance.md."""
    page = (REPOSITORY / "docs/performance.md").read_text(encoding="utf-8")
    ((head, body),) = re.findall(r"^\| recipe \|(.*)\|\n\|[-|]+\n((?:\|.*\n)+)", page, re.MULTILINE)
    ways = [way.strip() for way in head.split("|")]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in body.splitlines()]
    return {name: dict(zip(ways, cells, strict=True)) for name, *cells in lines}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_trainer_plan_and_docs_name_the_same_forward(path: Path, way: str) -> None:
    recipe = spread(path, way, "estimate.device=a100")
    shared, _ = choose(*as_launched(recipe, "cuda"))
    assert forward_of(recipe)[0] == shared
    assert of_docs()[path.parent.name][way] == ("shared" if shared else "padded")
    named = re.findall(r", forward (shared|padded)", script(Run(recipe, str(path))))
    assert named == ["shared" if shared else "padded"]


def test_the_docs_have_all_recipes_and_launchers() -> None:
    table = of_docs()
    assert set(table) == {path.parent.name for path in RECIPES}
    assert all(set(ways) == set(WAYS) for ways in table.values())
    configs = {path.stem for path in REPOSITORY.glob("accelerate_configs/*.yaml")}
    assert configs <= set(WAYS)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["training.forward=padded"], "as the recipe says"),
        (["training.max_length=5000"], "max_length 5000 exceeds the sliding window of 4096"),
        (["training.use_weighting=true"], "use_weighting needs more than log-probs"),
    ],
)
def test_trainer_and_plan_give_the_same_reason_for_the_padded_path(
    overrides: list[str], why: str, device: str
) -> None:
    plans = "cpu" if device == "cpu" else "h100"
    path = REPOSITORY / "recipes/zephyr-7b-sft/selm.yaml"
    recipe = spread(path, "zero3", *overrides, f"estimate.device={plans}")
    assert choose(*as_launched(recipe, device)) == forward_of(recipe) == (False, why)


def test_a_plan_with_shared_for_a_model_that_cannot_is_refused() -> None:
    path = REPOSITORY / "recipes/zephyr-7b-sft/selm.yaml"
    recipe = spread(path, "zero3", "training.forward=shared", "training.max_length=5000")
    with pytest.raises(UserError, match=r"training.forward: shared does not work: max_length 5000"):
        script(Run(recipe, str(path)))


def test_a_device_that_nobody_tried_is_left_to_the_padded_path() -> None:
    arguments, model = as_launched(load_recipe("recipes/zephyr-7b-sft/selm.yaml"), "xpu")
    assert choose(arguments, model) == (False, "not tested on xpu")


@pytest.mark.parametrize("family", MODELS)
def test_the_plan_reads_of_a_folder_what_the_trainer_reads_of_the_model(
    family: str, tmp_path: Path
) -> None:
    config = MODELS[family]
    config.save_pretrained(tmp_path)
    shape = shape_of(str(tmp_path))
    assert shape is not None
    assert (shape.family, shape.window) == (family, getattr(config, "sliding_window", None))


def test_code_from_the_hub_is_padded_in_the_plan_if_it_is_trusted(tmp_path: Path) -> None:
    config = LlamaConfig(**TINY)
    config.auto_map = {"AutoModelForCausalLM": "code.py--Own"}
    config.save_pretrained(tmp_path)
    given = [f"model.name_or_path={tmp_path}"]
    path = "recipes/zephyr-7b-sft/selm.yaml"
    assert forward_of(load_recipe(path, given))[0]
    trusted = load_recipe(path, [*given, "model.trust_remote_code=true"])
    assert forward_of(trusted) == (False, "its code is on the Hub")
