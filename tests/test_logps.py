"""Log-probs of the held-out pairs: a training's own numbers, and implicit rewards made of them."""

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from dpo_rows import selm as trainer_of
from transformers import AutoModelForCausalLM, AutoTokenizer

from selm.compare import implicit
from selm.compare.settings import FinishedRun, Setting
from selm.data.parquet import save_rows
from selm.data.portions import held_out_portion
from selm.data.schemas import LogpsRow
from selm.errors import UserError
from selm.evaluation.logps import Scored, score_held_out
from selm.model import loading
from selm.model.probe import load_chat
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.schema import Recipe
from selm.run import artifacts
from selm.run.plan import Run
from selm.run.writing import writing
from selm.training.examples import as_pair, tokenize

KEYS = ("chosen_logps", "rejected_logps")


def scored(recipe: Recipe, folder: Path, policy: str | None = None) -> Scored:
    return score_held_out(recipe, policy or recipe.model.name_or_path, folder, "log-probs")


def numbers(rows: list[LogpsRow]) -> np.ndarray:
    return np.array([[row[key] for key in KEYS] for row in rows])


def of_a_training(recipe: Recipe, folder: Path) -> np.ndarray:
    """What a trainer computes for its reference on the same pairs."""
    chat = load_chat(recipe.model.name_or_path, recipe.model)
    pairs = [as_pair(row) for row in held_out_portion(recipe)[0]]
    examples, _ = tokenize(pairs, chat, recipe.training.max_length, with_explored=False)
    model = loading.load(recipe.model.name_or_path, recipe.model, dtype=torch.float32)
    bf16 = recipe.model.dtype == "bfloat16"
    rows = trainer_of(
        model, chat.tokenizer, examples, folder, forward="padded", bf16=bf16
    ).train_dataset
    return np.array([rows["ref_chosen_logps"], rows["ref_rejected_logps"]]).T


def test_the_numbers_are_those_of_a_trainings_reference(tiny_recipe: str, tmp_path: Path) -> None:
    """In fp32 to rounding. In bf16 they round by the batch, but are those of its autocast."""
    plain = load_recipe(tiny_recipe)
    exact = numbers(scored(plain, tmp_path / "fp32").rows)
    np.testing.assert_allclose(exact, of_a_training(plain, tmp_path), atol=1e-3, rtol=0)
    rounded = load_recipe(tiny_recipe, ["model.dtype=bfloat16"])
    found = numbers(scored(rounded, tmp_path / "bf16").rows)
    assert abs(found - exact).max() > 1e-2, "nothing was rounded"
    np.testing.assert_allclose(found, of_a_training(rounded, tmp_path), rtol=1e-3)


def test_a_truncated_pair_has_the_numbers_and_drops_of_a_training(
    tiny_recipe: str, tmp_path: Path
) -> None:
    recipe = load_recipe(tiny_recipe, ["training.max_length=86"])
    found = scored(recipe, tmp_path / "shards")
    lengths = [(row["chosen_tokens"], row["rejected_tokens"]) for row in found.rows]
    whole = scored(load_recipe(tiny_recipe), tmp_path / "whole").rows
    assert sum(map(sum, lengths)) == found.tokens
    assert found.tokens < sum(row["chosen_tokens"] + row["rejected_tokens"] for row in whole)
    expected = of_a_training(recipe, tmp_path)
    assert 0 < len(found.rows) < len(whole)
    assert found.dropped == {"prompt_longer_than_max_length": len(whole) - len(found.rows)}
    np.testing.assert_allclose(numbers(found.rows), expected, atol=1e-3, rtol=0)


def test_plain_transformers_computes_the_same(tiny_recipe: str, tmp_path: Path) -> None:
    """One sequence at a time, whole logits, tokens from the rendered template."""
    recipe = load_recipe(tiny_recipe)
    tokenizer = AutoTokenizer.from_pretrained(recipe.model.name_or_path)
    model = AutoModelForCausalLM.from_pretrained(recipe.model.name_or_path, dtype=torch.float32)
    found = scored(recipe, tmp_path)
    rows = held_out_portion(recipe)[0]
    assert [row["prompt_id"] for row in found.rows] == [row["prompt_id"] for row in rows]
    for row, got in zip(rows, found.rows, strict=True):
        for which in ("chosen", "rejected"):
            asked = tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            )
            prompt = tokenizer(asked, add_special_tokens=False)["input_ids"]
            ids = tokenizer(asked + row[which] + "<|im_end|>", add_special_tokens=False)
            ids = torch.tensor([ids["input_ids"]])
            with torch.no_grad():
                log_probs = model(input_ids=ids).logits.log_softmax(dim=-1)
            of_tokens = log_probs[0, :-1].gather(1, ids[0, 1:, None])[len(prompt) - 1 :]
            assert got[f"{which}_tokens"] == len(of_tokens)
            assert got[f"{which}_logps"] == pytest.approx(of_tokens.sum().item(), abs=1e-3)


def test_the_numbers_do_not_depend_on_batches_shards_or_order(
    tiny_recipe: str, tmp_path: Path
) -> None:
    found = []
    for tokens, size in ((1, 8), (150, 3), (100_000, 8)):
        how = [f"training.tokens_per_micro_batch={tokens}", f"generation.shard_size={size}"]
        found.append(scored(load_recipe(tiny_recipe, how), tmp_path / str(tokens)).rows)
    assert [row["prompt_id"] for row in found[0]] == [row["prompt_id"] for row in found[1]]
    for other in found[1:]:
        np.testing.assert_allclose(numbers(other), numbers(found[0]), atol=1e-3, rtol=0)


def test_prompts_without_pairs_are_refused(tiny_recipe: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "Hi"}\n{"prompt": "Who?"}\n' * 10, encoding="utf-8")
    recipe = load_recipe(tiny_recipe, [f"data.name_or_path={file}"])
    with pytest.raises(UserError, match=r"prompts only.*set data\.name_or_path"):
        scored(recipe, tmp_path)


def test_no_room_for_any_pair_is_refused(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = load_recipe(tiny_recipe, ["training.max_length=4"])
    with pytest.raises(UserError, match=r"training\.max_length: 4 leaves no held-out pair"):
        scored(recipe, tmp_path)


def test_weights_that_overflow_are_refused(tiny_recipe: str, tmp_path: Path) -> None:
    """They are finite themselves, so that loading them tells nothing."""
    recipe = load_recipe(tiny_recipe)
    policy = changed_model(recipe, tmp_path / "large", factor=1e38)
    with pytest.raises(UserError, match=r"model\.dtype: a log-prob .* is not finite"):
        scored(recipe, tmp_path / "shards", policy)


def changed_model(recipe: Recipe, folder: Path, factor: float = 1.0, seed: int = 0) -> str:
    """The tiny model with its head changed: by a factor, and a little at random."""
    model = AutoModelForCausalLM.from_pretrained(recipe.model.name_or_path)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = model.lm_head.weight
        weight += 0.03 * torch.empty_like(weight).normal_(generator=generator)
        weight *= factor
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(recipe.model.name_or_path).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def run_named(tiny_recipe: str, tmp_path: Path):
    """A name, a seed of weights and overrides in; a run of one DPO iteration with a policy out."""
    tree = yaml.safe_load(Path(tiny_recipe).read_text(encoding="utf-8"))
    tree["iterations"] = [{"objective": "dpo", "learning_rate": 1e-3}]
    tree["output_dir"] = str(tmp_path / "runs")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def make(name: str, seed: int, *overrides: str) -> Run:
        words = (f"run_name={name}", f"seed={seed}", *overrides)
        run = Run(load_recipe(path, words), str(path), words)
        with writing(run, "checkpoint", 1) as record:
            changed_model(run.recipe, record.folder, seed=seed)
        folder = artifacts.run_folder(run.recipe)
        (folder / "recipe.yaml").write_text(as_yaml(run.recipe), encoding="utf-8")
        return run

    return make


def score(run: Run) -> Path:
    """Make the log-probs of a run as the script does; its folder."""
    for t in (0, 1):
        partial = artifacts.partial_folder(run, "logps", t)
        found = scored(run.recipe, partial, artifacts.policy_path(run.recipe, t))
        with writing(run, "logps", t) as record:
            save_rows(found.rows, LogpsRow, record.folder / "test.parquet")
    return artifacts.run_folder(run.recipe)


def rewards_by_hand(run: Run) -> dict[str, np.ndarray]:
    """prompt_id -> beta (log pi_1 - log pi_0) of both answers, from the files."""
    read = implicit.read_rows
    of = [read(artifacts.folder(run.recipe, "logps", t) / "test.parquet") for t in (0, 1)]
    base, policy = ({row["prompt_id"]: numbers([row])[0] for row in rows} for rows in of)
    beta = run.recipe.training.beta
    return {prompt: beta * (policy[prompt] - base[prompt]) for prompt in base}


def test_rewards_and_their_differences(run_named) -> None:
    one, other = run_named("one", 1), run_named("other", 2, "training.beta=0.2")
    first, _second = score(one), score(other)
    mine, theirs = rewards_by_hand(one), rewards_by_hand(other)
    rewards = implicit.implicit_rewards(first, 1)
    assert set(rewards.prompts) == set(mine)
    for i, prompt in enumerate(rewards.prompts):
        assert (rewards.chosen_P[i], rewards.rejected_P[i]) == pytest.approx(mine[prompt])
    assert not implicit.implicit_rewards(first, 0).chosen_P.any()

    settings = [setting_of(run) for run in (one, other)]
    found = implicit.of_settings(*settings, 1)
    assert found.names == ("one", "other")
    for which, got in enumerate((found.chosen_SN, found.rejected_SN)):
        wanted = [mine[prompt][which] - theirs[prompt][which] for prompt in rewards.prompts]
        assert got[0].tolist() == pytest.approx(wanted)
        assert math.isfinite(got.sum()) and got.min() < got.max()
    back = implicit.of_settings(*reversed(settings), 1)
    np.testing.assert_allclose(back.chosen_SN, -found.chosen_SN)
    with pytest.raises(UserError, match=r"--implicit 3: .*one has iterations 1\.\.1"):
        implicit.of_settings(*settings, 3)


def setting_of(run: Run) -> Setting:
    folder, recipe = artifacts.run_folder(run.recipe), run.recipe
    return Setting(folder.name, {}, (FinishedRun(folder.name, folder, recipe, {}),))


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.dtype=bfloat16", "model.dtype (float32 -> bfloat16)"),
        ("evaluation.limit=4", "evaluation.limit (500 -> 4)"),
        ("training.max_length=64", "training.max_length (128 -> 64)"),
        ("data.test_split=train", "data.split (test -> train)"),
    ],
)
def test_runs_of_another_base_or_other_pairs_are_refused(
    run_named, override: str, said: str
) -> None:
    overrides = [override] + ["data.train_split=test"] * override.startswith("data")
    one, other = run_named("one", 1), run_named("other", 2, *overrides)
    with pytest.raises(UserError, match=re.escape(said)):
        implicit.of_settings(*map(setting_of, (one, other)), 1)


def test_runs_that_differ_in_the_training_alone_can_be_compared(run_named) -> None:
    one = run_named("one", 1)
    other = run_named("other", 2, "training.beta=0.5", "training.lora={r: 4}")
    implicit.check_comparable(*(artifacts.run_folder(run.recipe) for run in (one, other)))


def test_missing_log_probs_are_an_error_with_the_command(run_named, tmp_path: Path) -> None:
    folder = artifacts.run_folder(run_named("one", 1).recipe)
    with pytest.raises(UserError, match=r"logps: missing; run: python scripts/logps\.py .*yaml"):
        implicit.implicit_rewards(folder, 1)
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        implicit.implicit_rewards(tmp_path / "runs", 1)


@pytest.mark.slow
def test_what_is_missing_is_made_by_the_script_also_in_a_moved_folder(
    run_named, tmp_path: Path
) -> None:
    run = run_named("one", 1)
    moved = tmp_path / "else where" / "two"
    moved.parent.mkdir()
    artifacts.run_folder(run.recipe).rename(moved)
    implicit.ensure(moved, 1)
    manifests = [moved / f"iter-{t}" / "logps" / "manifest.json" for t in (0, 1)]
    written = [path.read_bytes() for path in manifests]
    assert json.loads(written[1])["command"].startswith("python scripts/logps.py")
    rewards = implicit.implicit_rewards(moved, 1)
    assert len(rewards.prompts) == 8 and abs(rewards.chosen_P).max() > 0
    implicit.ensure(moved, 1)
    assert [path.read_bytes() for path in manifests] == written
