"""A trial of the training: what libraries would refuse later is one line that names the key."""

from pathlib import Path

import pytest
from transformers import AutoConfig, MixtralConfig, PretrainedConfig

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.training.trial import try_training


@pytest.fixture(scope="module")
def config(tiny_model: str) -> PretrainedConfig:
    return AutoConfig.from_pretrained(tiny_model)


def refusal(recipe: str, config: PretrainedConfig, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        try_training(load_recipe(recipe, overrides), 1, config, rows=24)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        [
            "training.lr_scheduler_type=cosine_with_min_lr",
            "training.lr_scheduler_kwargs={min_lr: 1.0e-8}",
        ],
        ["training.lora={r: 4, target_modules: [q_proj, v_proj]}"],
        ["training.loss_type=ipo", "training.optim=adafactor"],
        ["training.tokens_per_micro_batch=64"],
        ["model.dtype=bfloat16", "training.gradient_checkpointing=true"],
        ["training.save_strategy=epoch", "training.max_steps=7"],
    ],
)
def test_what_trains_passes(
    tiny_recipe: str, config: PretrainedConfig, overrides, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    for t in (1, 2):
        try_training(load_recipe(tiny_recipe, overrides), t, config, rows=24)
    assert not list(tmp_path.iterdir()), "a trial leaves nothing behind"
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("overrides", "key", "hint"),
    [
        (
            ["training.lr_scheduler_type=cosin"],
            "training.lr_scheduler_type",
            "did you mean cosine?",
        ),
        (["training.optim=adamw8bit"], "training.optim", "did you mean adamw_8bit?"),
        (["training.loss_type=sigmod"], "training.loss_type", "did you mean sigmoid?"),
        (
            ["training.lora={r: 4, target_modules: [q_porj]}"],
            "training.lora.target_modules",
            "did you mean q_proj",
        ),
        (
            ["training.lora={r: 4, target_modules: [q_proj, v_porj]}"],
            "training.lora.target_modules",
            "did you mean v_proj",
        ),
        (
            ["training.lora={r: 4, target_modules: 'q_porj.*'}"],
            "training.lora.target_modules",
            "q_proj",
        ),
        (
            ["training.lora={r: 4, target_modules: [lm_head]}"],
            "training.lora.target_modules",
            "head",
        ),
        (
            [
                "training.lr_scheduler_type=cosine_with_min_lr",
                "training.lr_scheduler_kwargs={min_lr: tiny}",
            ],
            "training.lr_scheduler_kwargs",
            "",
        ),
        (["training.lr_scheduler_kwargs={no_such: 1}"], "training.lr_scheduler_kwargs", "no_such"),
        (["training.report_to=[tensorboard, wanbd]"], "training.report_to", "did you mean wandb?"),
    ],
)
def test_what_does_not_train_is_one_line_with_its_key(
    tiny_recipe: str, config: PretrainedConfig, overrides, key: str, hint: str
) -> None:
    text = refusal(tiny_recipe, config, *overrides)
    assert text.startswith(f"{key}"), text
    assert hint in text


def test_a_model_that_cannot_take_the_shared_path_is_refused_where_that_is_asked_for(
    tiny_recipe: str,
) -> None:
    gpt2 = AutoConfig.for_model("gpt2", n_embd=8, n_head=2, n_layer=1, vocab_size=16)
    assert refusal(tiny_recipe, gpt2, "training.forward=shared").startswith("training.forward: ")


def test_a_routers_loss_is_tried_on_the_models_own_type(
    tiny_recipe: str, config: PretrainedConfig
) -> None:
    """The stand-in that takes the steps is no mixture of experts."""
    mixture = MixtralConfig(
        vocab_size=config.vocab_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=2,
        sliding_window=None,
    )
    wanted = "training.router_aux_loss_coef=0.01"
    try_training(load_recipe(tiny_recipe, [wanted]), 1, mixture, rows=24)
    said = refusal(tiny_recipe, config, wanted)
    assert said.startswith("training.router_aux_loss_coef: a model of type llama returns no router")
