"""A policy whose weights are no numbers is not saved, nor gone on from; one line says why."""

import json
import shutil
from pathlib import Path
from typing import Any

import dpo_rows
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel

from selm import cli
from selm.errors import OutsideError, SharedError, UserError
from selm.model.finite import all_finite, first_not_finite, require_finite_files
from selm.training.resume import FILES, last_complete_checkpoint, seal
from selm.training.trainer import SELMTrainer

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def policy(tiny_model: str) -> PreTrainedModel:
    return LlamaForCausalLM.from_pretrained(tiny_model)


@pytest.fixture
def trainer_of(tiny_model: str, tmp_path: Path) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)

    def make(policy: PreTrainedModel, **settings: Any) -> SELMTrainer:
        data = dpo_rows.rows(8, 200, roles=(0, 1, 2))
        return dpo_rows.selm(policy, tokenizer, data, tmp_path / "steps", **settings)

    return make


def saved_steps(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "steps").glob("checkpoint-*"))


@pytest.mark.parametrize("forward", ["shared", "padded"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_no_number_ends_the_training(
    forward: str, accumulation: int, trainer_of: Any, policy: Any
) -> None:
    """transformers would log it as the mean of those before, and go on to the last step."""
    trainer = trainer_of(
        policy,
        forward=forward,
        alpha=0.01,
        max_steps=6,
        learning_rate=1e18,
        per_device_train_batch_size=4 // accumulation,
        gradient_accumulation_steps=accumulation,
    )
    with pytest.raises(UserError, match=r"the (loss|gradient) of step \d is not .* 1e"):
        trainer.train()
    assert trainer.state.global_step < 6


@pytest.mark.parametrize(("weight", "finite"), [(1e-3, True), (INF, False), (NAN, False)])
def test_a_save_holds_numbers_or_is_not_made(
    weight: float, finite: bool, trainer_of: Any, policy: Any, tmp_path: Path
) -> None:
    """The last step's weights are those of no loss that is computed any more."""
    trainer = trainer_of(policy, save_strategy="steps", save_steps=1)

    class Spoil(dpo_rows.Gradients):
        def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            policy.lm_head.weight.data[0, 0] = weight

    trainer.add_callback(Spoil())
    if finite:
        trainer.train()
        assert saved_steps(tmp_path) == ["checkpoint-1"]
    else:
        with pytest.raises(SharedError, match="a weight or the optimizer's state of step 1"):
            trainer.train()
        assert saved_steps(tmp_path) == []


def test_an_optimizers_state_that_overflowed_is_not_saved(
    trainer_of: Any, policy: Any, tmp_path: Path
) -> None:
    """A gradient of 1e25 squared: the weight stays a number, and would never move again."""
    trainer = trainer_of(policy, save_strategy="steps", save_steps=1, optim="adamw_torch")

    class Spoil(dpo_rows.Gradients):
        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kw: Any) -> None:
            policy.lm_head.weight.grad[0, 0] = 1e25

    trainer.add_callback(Spoil())
    with pytest.raises(SharedError, match="optimizer's state of step 1 is not finite"):
        trainer.train()
    assert all_finite(policy.parameters())
    assert saved_steps(tmp_path) == []


def test_a_reference_that_gives_no_numbers_is_named_before_the_first_step(
    trainer_of: Any, policy: Any
) -> None:
    policy.model.layers[0].mlp.up_proj.weight.data[3, 3] = NAN
    with pytest.raises(UserError, match=r"ref_chosen_logps of the reference, row 0 \(8 of 8\)"):
        trainer_of(policy)


@pytest.mark.parametrize(
    ("weight", "dtype", "kept"),
    [
        (1.0, torch.float32, True),
        (1e5, torch.bfloat16, True),
        (1e5, torch.float16, False),  # finite in training, not in the recipe's dtype
        (NAN, torch.float32, False),
        (-INF, torch.bfloat16, False),
    ],
)
def test_what_lies_on_the_disk_decides(
    weight: float, dtype: torch.dtype, kept: bool, tmp_path: Path
) -> None:
    tensors = {"a": torch.ones(4, dtype=dtype), "b": torch.tensor([1.0, weight]).to(dtype)}
    save_file(tensors, tmp_path / "model.safetensors")
    if kept:
        require_finite_files(tmp_path)
    else:
        with pytest.raises(UserError, match="b of the trained policy is not finite in model"):
            require_finite_files(tmp_path)


def test_whole_numbers_and_nothing_are_finite() -> None:
    assert all_finite([torch.ones(3, dtype=torch.uint8), torch.empty(0), torch.zeros(())])
    assert not all_finite([torch.zeros(3), torch.tensor([0.0, NAN])])


@pytest.fixture
def saved(trainer_of: Any, policy: Any, tmp_path: Path) -> Path:
    """The folder of two saves of a training with Adam."""
    trainer_of(
        policy,
        save_strategy="steps",
        save_steps=1,
        max_steps=2,
        optim="adamw_torch",
        save_total_limit=None,
    ).train()
    assert saved_steps(tmp_path) == ["checkpoint-1", "checkpoint-2"]
    return tmp_path / "steps"


def spoil_optimizer(save: Path) -> None:
    state = torch.load(save / "optimizer.pt")
    state["state"][0]["exp_avg_sq"].view(-1)[5] = NAN
    torch.save(state, save / "optimizer.pt")


def spoil_weights(save: Path) -> None:
    weights = load_file(save / "model.safetensors")
    weights["lm_head.weight"][0, 0] = INF
    save_file(weights, save / "model.safetensors", metadata={"format": "pt"})


def truncate(name: str) -> Any:
    def cut(save: Path) -> None:
        whole = (save / name).read_bytes()
        (save / name).write_bytes(whole[: len(whole) // 2])

    return cut


def empty(name: str) -> Any:
    return lambda save: (save / name).write_bytes(b"")


DAMAGED = "damaged: its files have changed since they were written"
SPOILT = {
    "optimizer": (spoil_optimizer, DAMAGED),
    "cut optimizer": (truncate("optimizer.pt"), DAMAGED),
    "empty weights": (empty("model.safetensors"), DAMAGED),
    "empty state": (empty("trainer_state.json"), DAMAGED),
    "empty list": (empty(FILES), DAMAGED),
    "a file too many": (lambda save: (save / "more").write_bytes(b""), DAMAGED),
    "no list": (lambda save: (save / FILES).unlink(), "it is incomplete"),
}
DIVERGED = {
    "optimizer": (spoil_optimizer, "its optimizer's state is not finite: the policy had diverged"),
    "weights": (spoil_weights, "lm_head.weight is not finite: the policy had diverged"),
}


def test_a_save_that_is_no_good_is_passed_over(saved: Path, tmp_path: Path, capsys: Any) -> None:
    for step in (1, 2):
        seal(saved / f"checkpoint-{step}")
    assert last_complete_checkpoint(saved) == saved / "checkpoint-2"
    assert capsys.readouterr().out == ""
    shutil.copytree(saved / "checkpoint-2", tmp_path / "whole")
    for kinds in (SPOILT, DIVERGED):
        for spoil, said in kinds.values():
            spoil(saved / "checkpoint-2")
            if kinds is DIVERGED:
                seal(saved / "checkpoint-2")
            assert last_complete_checkpoint(saved) == saved / "checkpoint-1", said
            assert f"checkpoint-2: skipped, {said}" in capsys.readouterr().out
            shutil.rmtree(saved / "checkpoint-2")
            shutil.copytree(tmp_path / "whole", saved / "checkpoint-2")
    assert last_complete_checkpoint(saved) == saved / "checkpoint-2"


def test_of_equal_lines_the_main_process_alone_says_its_own(monkeypatch: Any, capsys: Any) -> None:
    def fail(error: Exception) -> str:
        def main() -> None:
            raise error

        with pytest.raises(SystemExit) as ended:
            cli.run_main(main)
        assert ended.value.code == (1 if isinstance(error, OutsideError) else 2)
        return capsys.readouterr().err

    assert fail(SharedError("all of us")) == "error: all of us\n"
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(cli, "GIVE_WAY_SECONDS", 0.0)
    assert fail(SharedError("all of us")) == ""
    assert fail(UserError("mine alone")) == "error: mine alone\n"
    assert fail(OutsideError("mine alone")) == "error: mine alone\n"


def test_the_log_of_a_training_is_json(saved: Path) -> None:
    """NaN is no JSON: what is logged is finite."""
    text = (saved / "checkpoint-2" / "trainer_state.json").read_text(encoding="utf-8")
    json.loads(text, parse_constant=pytest.fail)
    assert first_not_finite(saved / "checkpoint-2") is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("shape", [(), (7,), (33, 65), (2, 3, 500)])
def test_one_bad_value_anywhere_is_found(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    for bad in (NAN, INF, -INF):
        for place in (0, -1):
            tensor = torch.ones(shape, dtype=dtype, requires_grad=True)
            assert all_finite([tensor])
            tensor.data.view(-1)[place] = bad
            assert not all_finite([tensor])
