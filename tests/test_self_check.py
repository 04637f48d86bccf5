"""A shared path that computes something else is noticed before the first step, and not taken."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dpo_rows
import pytest
import torch
from datasets import Dataset
from patience import PATIENCE
from test_forward import CONFIGS, make
from torch.nn.functional import scaled_dot_product_attention
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from selm.errors import UserError
from selm.training import forward as forward_module
from selm.training import shared_prefix
from selm.training import trainer as trainer_module
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, length
from selm.training.layout import lay_out
from selm.training.self_check import GRADIENTS, LOG_PROBS, TOKENS, pick, self_check, small_model
from selm.training.trainer import SELMTrainer


def later_tokens(prompt: Any, block: Any, settings: Any) -> torch.Tensor:
    key, value = (torch.cat([prompt[i], block[i]], dim=2) for i in (1, 2))
    return scaled_dot_product_attention(block[0], key, value, **settings)


def no_prompt(prompt: Any, block: Any, settings: Any) -> torch.Tensor:
    return shared_prefix._causal([part[:, :, :0] for part in prompt], block, settings)


def not_a_number(prompt: Any, block: Any, settings: Any) -> torch.Tensor:
    return block[0] * float("nan")


def does_not_compile(prompt: Any, block: Any, settings: Any) -> torch.Tensor:
    raise RuntimeError("no kernel\nfor this device")


def positions_go_on(prompts: Any, responses: Any) -> Any:
    row, _, layout = lay_out(prompts, responses)
    return row, list(range(len(row))), layout


DIFFER = r"log-probs differ by .* from the padded path's, more than 0.005 and 0.01"
# Where the fault is put, the fault, and what is said about it.
FAULTS = {
    "later tokens": (shared_prefix, "_block", later_tokens, DIFFER),
    "no prompt": (shared_prefix, "_block", no_prompt, DIFFER),
    "not a number": (shared_prefix, "_block", not_a_number, "log-probs differ by nan"),
    "positions": (forward_module, "lay_out", positions_go_on, DIFFER),
    "kernel": (shared_prefix, "_block", does_not_compile, "RuntimeError: no kernel for this"),
}


@pytest.fixture(params=FAULTS)
def said(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Puts a fault into the shared path; the pattern of the reason."""
    module, name, fault, said = FAULTS[request.param]
    monkeypatch.setattr(module, name, fault)
    return said


@pytest.fixture
def trainer_of(tiny_model: str, tmp_path: Path) -> Callable[..., SELMTrainer]:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def make_trainer(**settings: Any) -> SELMTrainer:
        policy = LlamaForCausalLM.from_pretrained(tiny_model)
        data = dpo_rows.rows(8, 90, roles=(0, 1, 2))
        given = {"alpha": 0.01, "max_steps": 2, "per_device_train_batch_size": 4} | settings
        return dpo_rows.selm(policy, tokenizer, data, tmp_path / "steps", **given)

    return make_trainer


def losses(trainer: SELMTrainer) -> list[float]:
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def test_a_fault_in_the_shared_path_leads_to_the_padded_one(
    said: str, trainer_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same training as if the recipe had said padded, and a warning that says why."""
    found = trainer_of()
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "WARNING" in line]
    assert not found.shared
    assert re.search(said, warning), warning
    assert "training takes the padded path" in warning
    assert losses(found) == losses(trainer_of(forward="padded"))


def test_a_recipe_that_asks_for_shared_ends_at_a_fault(said: str, trainer_of: Any) -> None:
    what = "training.forward: shared does not work: the self-check of shared failed: "
    with pytest.raises(UserError, match=f"{what}{said}.*; set it to padded"):
        trainer_of(forward="shared")


def test_a_recipe_that_says_padded_checks_nothing(said: str, trainer_of: Any) -> None:
    assert not trainer_of(forward="padded").shared


def test_the_line_names_differences_and_seconds(
    trainer_of: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trainer_of().shared
    out = capsys.readouterr().out
    pattern = (
        r"forward: shared \(each prompt once, no padding; self-check: "
        r"log-probs differ by \S+, gradients by \S+, \d+\.\d s\)"
    )
    assert len([line for line in out.splitlines() if line.startswith("forward: ")]) == 1
    assert re.search(pattern, out)


def test_the_training_is_the_same_with_and_without_the_check(
    trainer_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses, weights and the random numbers that follow, to the last bit."""
    found = []
    for check in (self_check, lambda *_: (None, "")):
        monkeypatch.setattr(trainer_module, "self_check", check)
        torch.manual_seed(7)
        trainer = trainer_of()
        after = torch.rand(3)
        weights = torch.cat([w.detach().flatten() for w in trainer.model.parameters()])
        found.append((after, weights, losses(trainer)))
    for one, other in zip(*found, strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize("family", CONFIGS)
def test_rounding_stays_far_below_the_tolerance(family: str, dtype: str, tmp_path: Path) -> None:
    """A quarter of it at most, so that no machine with other rounding takes the padded path."""
    policy = make(family)
    if dtype == "bfloat16":  # as DeepSpeed trains it
        policy.to(torch.bfloat16)
    given = dpo_rows.PLAIN | {"bf16": dtype == "autocast"}
    rows = Dataset.from_list(dpo_rows.rows(8, 90, roles=(0, 1, 2)))
    why_not, said = self_check(policy, SELMConfig(output_dir=str(tmp_path), **given), rows, 0)
    log_probs, gradients = (float(word.strip(",")) for word in said.split() if "e-" in word)
    which = 0 if dtype == "float32" else 1
    assert why_not is None
    assert 0 < log_probs < LOG_PROBS[which] / 4
    assert 0 < gradients < GRADIENTS[which] / 4


@pytest.mark.parametrize("family", CONFIGS)
def test_the_small_model_has_the_policys_widths_and_leaves_it_alone(family: str) -> None:
    policy = make(family)
    before = [weight.clone() for weight in policy.parameters()]
    model = small_model(policy, torch.device("cpu"))
    assert type(model) is type(policy)
    mine, theirs = (dict(each.named_parameters()) for each in (model, policy))
    assert {name: w.shape for name, w in mine.items()} == {n: w.shape for n, w in theirs.items()}
    trained = {name for name, weight in mine.items() if weight.requires_grad}
    assert trained == {name for name in mine if ".layers.1." in name}
    assert all(map(torch.equal, before, policy.parameters()))


def test_a_policy_that_another_trainer_has_prepared_is_checked_too(trainer_of: Any) -> None:
    first = trainer_of()
    rows, arguments = first.train_dataset, first.args
    assert self_check(first.model, arguments, rows, 0)[0] is None


def test_the_rows_fill_blocks_of_the_kernel_and_have_a_third_response() -> None:
    """Of 512 lengths; only the first 256 rows are looked at."""

    def row(tokens: int, role: str) -> dict[str, Any]:
        ids = {"chosen_ids": [5] * (tokens - 12), "rejected_ids": [6], "explored_ids": []}
        third = {"explored_ids": [7]} if role == "neither" else {}
        return {"prompt_ids": [4] * 10, "explored_role": ROLES[role]} | ids | third

    rows = [row(20 + i, "neither" if i % 50 == 0 else "chosen") for i in range(512)]
    first, second = pick(Dataset.from_list(rows))
    assert first["explored_role"] == ROLES["neither"]
    assert abs(length(first) - TOKENS) <= 50 and abs(length(second) - TOKENS) <= 50
    assert len(pick(Dataset.from_list(rows[:1]))) == 1


def test_all_processes_get_one_verdict(tiny_model: str, tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    script = Path(__file__).parent / "verdict_of_two.py"
    command = [*launcher, "--log_dir", os.devnull, script, tiny_model, tmp_path]
    subprocess.run(command, check=True, timeout=PATIENCE)
    zero, one = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    assert zero == one
    assert zero["none"] is None
    assert "log-probs differ" in zero["halved"]
    assert zero["fails"] == "RuntimeError: no kernel for this device"


def test_a_policy_of_one_layer_is_checked(tmp_path: Path) -> None:
    policy: PreTrainedModel = make("llama")
    policy.config.num_hidden_layers = 1
    assert len(small_model(policy, torch.device("cpu")).base_model.layers) == 1
