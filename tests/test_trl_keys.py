"""Every key of TRL's config and of LoRA's: a value is refused when the recipe is loaded, in one
line, or a training with it runs to its end.
"""

import inspect
from collections.abc import Iterable
from pathlib import Path

import pytest
from transformers.trainer_utils import SchedulerType

from selm.check.installed import check_packages
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Recipe, Training
from selm.recipe.source_text import words
from selm.recipe.trl_keys import trl_keys, usable_keys
from selm.recipe.trl_values import LOSSES, SCHEDULES
from selm.training.examples import TokenRow
from selm.training.run import load_examples, make_trainer, refuse_what_fails, train

# What is tried for each kind of an annotation: good, at the border, of another kind, wrong.
VALUES = {
    "bool": ("true", "false", "1", "maybe", "null"),
    "int": ("1", "0", "-1", "2.5", "abc", "null", "99999999999999999999999"),
    "float": ("0.5", "0", "-1", "abc", "1e-8", "null", ".nan", "1e400", "3.5"),
    "str": ("no", "abc", "''", "1", "null", "[a]", '"a\\nb"'),
    "list": ("[a]", "[1]", "[]", "abc", "{a: 1}"),
    "dict": ("{}", "{a: 1}", "abc", "1", "[a]"),
}

# Words and numbers that mean something to a key, beside what its kind tells.
WORDS = {
    "lr_scheduler_type": [*words(Path(inspect.getfile(SchedulerType)), "SchedulerType"), "cosin"],
    "optim": [
        "sgd",
        "adafactor",
        "rmsprop",
        "adagrad",
        "adamw_torch",
        "adamw8bit",
        "lomo",
        "lion_8bit",
    ],
    "loss_type": [*LOSSES, "[sigmoid, sft]", "[]", "sigmod", "[sigmoid, [ipo]]"],
    "loss_weights": ["[1.0]", "[1e-8]", "[1.0, 2.0]", "1.0", "[a]", "[.nan]"],
    "f_divergence_type": ["forward_kl", "js_divergence", "alpha_divergence", "reverse"],
    "save_strategy": ["no", "false", "steps", "epoch", "best", "never"],
    "logging_strategy": ["no", "steps", "epoch", "off", "step"],
    "train_sampling_strategy": ["random", "sequential", "group_by_length"],
    "report_to": ["none", "tensorboard", "[tensorboard]", "tensorbord", "[none, tensorboard]"],
    "log_level": ["debug", "info", "passive", "loud"],
    "log_level_replica": ["warning", "loud"],
    "warmup_steps": ["0.5", "1", "2.5", "1000"],
    "max_steps": ["1", "-1", "0", "-2", "2.5"],
    "num_train_epochs": ["0.1", "2", "0", "1e9"],
    "gradient_checkpointing_kwargs": ["{use_reentrant: false}", "{use_reentrant: true}", "{x: 1}"],
    "lr_scheduler_kwargs": ["{num_cycles: 1}", "'{\"num_cycles\": 1}'", "{num_cycles: many}"],
    "optim_args": ["momentum=0.9", "a=b=c", "="],
    "label_smoothing": ["0.1", "0.5"],
}

# Settings that only mean something together.
TOGETHER = [
    *(
        [f"lr_scheduler_type={name}", f"lr_scheduler_kwargs={kwargs}"]
        for name in SCHEDULES
        for kwargs in (
            "{num_cycles: 2}",
            "{min_lr: 1e-8}",
            "{min_lr_rate: 0.1}",
            "{power: 2}",
            "{num_decay_steps: 2}",
            "{x: 1}",
            "{min_lr: 1e-8, min_lr_rate: 0.1}",
            "{timescale: 5}",
            "{num_decay_steps: 1, decay_type: 1-sqrt}",
        )
    ),
    *(
        [f"loss_type={loss}", "label_smoothing=0.1"]
        for loss in ("exo_pair", "robust", "aot", "ipo")
    ),
    *([f"loss_type={loss}", "f_divergence_type=js_divergence"] for loss in ("ipo", "bco_pair")),
    *([f"loss_type={loss}", "use_weighting=true"] for loss in ("sigmoid", "aot", "ipo")),
    ["loss_type=[sigmoid, sft]", "loss_weights=[1, 0.5]"],
    ["loss_type=discopop", "discopop_tau=0.1"],
    ["f_divergence_type=alpha_divergence", "f_alpha_divergence_coef=0.3"],
    ["f_divergence_type=alpha_divergence", "f_alpha_divergence_coef=1"],
    ["optim=sgd", "optim_args='momentum=0.9,nesterov=true'"],
    ["optim=sgd", "optim_args='nesterov=true'"],
    ["optim=sgd", "optim_args='momentum=abc'"],
    ["optim=rmsprop", "optim_args='alpha=0.9'"],
    ["optim=adagrad", "optim_args='lr_decay=0.1'"],
    ["optim=galore_adamw", "optim_target_modules=all-linear"],
    ["max_steps=3", "warmup_steps=3"],
    ["gradient_checkpointing=true", "gradient_checkpointing_kwargs={use_reentrant: false}"],
    ["train_sampling_strategy=sequential", "dataloader_num_workers=1"],
]

LORA = {
    "r": ["1", "64", "0", "abc", "1.5", "10000000"],
    "lora_alpha": ["1", "0", "x"],
    "lora_dropout": ["0.1", "1", "-1"],
    "target_modules": [
        *("all-linear", "[q_proj, v_proj]", "q_proj", "[]", "''", "[1]", "null", "{a: 1}"),
        *("'.*[qv]_proj'", "[q_porj]", "'(('", "lm_head"),
    ],
    "use_rslora": ["true", "maybe"],
    "load_in_4bit": ["false", "4"],
    "bias": ["all", "none"],
    "rank_pattern": ["{q_proj: 2}"],
}


def values_of(key: str) -> list[str]:
    kinds = [
        kind
        for kind in VALUES
        if kind in trl_keys()[key].replace("|", " ").replace("[", " ").split()
    ]
    tried = [value for kind in kinds or VALUES for value in VALUES[kind]]
    return list(dict.fromkeys([*WORDS.get(key, []), *tried]))


def cases_of(key: str) -> list[tuple[str, ...]]:
    return [(f"{key}={value}",) for value in values_of(key)]


KEYS = [key for key in trl_keys() if key not in Training.model_fields]
Settings = tuple[str, ...]
CASES: dict[str, list[Settings]] = {key: cases_of(key) for key in KEYS} | {
    "together": [tuple(settings) for settings in TOGETHER],
    "lora": [
        *((f"lora={{{key}: {value}}}",) for key in LORA for value in LORA[key]),
        *((f"lora={value}",) for value in ("{}", "null", "true", "1", "abc", "[]")),
    ],
}
FIXED = ["iterations.0.objective=dpo", "training.per_device_train_batch_size=4", "data.limit=16"]


def loaded(tiny_recipe: str, settings: Iterable[str], *more: str) -> Recipe | None:
    """None: refused, in one line that names the key."""
    try:
        recipe = load_recipe(
            tiny_recipe, [*FIXED, *more, *(f"training.{each}" for each in settings)]
        )
        check_packages(recipe)
        return recipe
    except UserError as error:
        assert len(str(error).splitlines()) == 1, error
        assert "training." in str(error), error
        return None


@pytest.mark.parametrize("key", CASES)
def test_a_value_is_taken_or_refused_in_one_line(tiny_recipe: str, key: str) -> None:
    taken = [settings for settings in CASES[key] if loaded(tiny_recipe, settings) is not None]
    if key in KEYS:
        alone = key not in ("f_alpha_divergence_coef", "discopop_tau")  # see TOGETHER
        assert bool(taken) == (key in usable_keys() and alone), taken
    assert len(CASES[key]) >= 3
    assert len(taken) < len(CASES[key])


def batches(tiny_recipe: str) -> list[list[Settings]]:
    """Every value that is taken, in as few recipes as go: one value for a key, all go together."""
    made: list[list[Settings]] = []
    for settings in (each for cases in CASES.values() for each in cases):
        if loaded(tiny_recipe, settings) is None:
            continue
        for batch in [] if alone(settings) else made:
            if alone(batch[0]) or names(settings) & names(flat(batch)):
                continue
            if loaded(tiny_recipe, [*flat(batch), *settings]):
                batch.append(settings)
                break
        else:
            made.append([settings])
    return made


def alone(settings: Settings) -> bool:
    """Whether the model, or this machine, may be why a training cannot take it."""
    elsewhere = {"tf32", "router_aux_loss_coef", "activation_offloading"}
    text = " ".join(settings)
    return (bool(names(settings) & elsewhere) and "null" not in text) or "target_modules" in text


def names(settings: Iterable[str]) -> set[str]:
    return {each.partition("=")[0] for each in settings}


def flat(batch: Iterable[Settings]) -> list[str]:
    return [each for settings in batch for each in settings]


def trained(tiny_recipe: str, batch: list[Settings], folder: Path, examples: list[TokenRow]) -> int:
    """How many of the settings a training ran with: none if its trial refuses them."""
    tracked = "report_to" in names(flat(batch))
    quiet = [] if tracked else ["training.report_to=none"]
    recipe = loaded(tiny_recipe, flat(batch), f"output_dir={folder}", *quiet)
    assert recipe is not None
    if alone(batch[0]):
        try:
            refuse_what_fails(recipe, 1, len(examples))
        except UserError as error:
            assert len(str(error).splitlines()) == 1, error
            assert str(error).startswith("training."), error
            return 0
    try:
        train(make_trainer(recipe, 1, examples, folder / "steps"))
    except Exception as error:
        raise AssertionError(f"taken, but it does not train: {flat(batch)}") from error
    return len(batch)


def test_with_every_value_that_is_taken_a_training_runs_to_its_end(
    tiny_recipe: str, tmp_path: Path
) -> None:
    """Or the trial before it says in a line why it cannot on this machine, with this model."""
    examples, _ = load_examples(load_recipe(tiny_recipe, FIXED), 1)
    taken = batches(tiny_recipe)
    ran = sum(
        trained(tiny_recipe, batch, tmp_path / str(i), examples[:8])
        for i, batch in enumerate(taken)
    )
    assert ran > 0.9 * sum(len(batch) for batch in taken)
