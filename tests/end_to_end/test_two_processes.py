"""Two processes on a CPU take the same steps as one: DDP, and ZeRO-3 with every weight sharded."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from patience import PATIENCE
from transformers import AutoModelForCausalLM

from selm.errors import UserError
from selm.run import artifacts
from selm.training.resume import check_resumable

pytestmark = pytest.mark.slow

# Losses of a few steps in fp32 whose sums are added up in another order.
LOSS = 1e-4
# Weights after steps of Adam whose epsilon is the learning rate, see the tiny recipe: each moves a
# weight by no more than its gradient is off by. Those are parts of a whole of norm 1, so 1e-6 is
# ten times fp32's rounding; with Adam's own epsilon it would be whole steps of 1e-3.
WEIGHTS = {"rtol": 0.0, "atol": 4e-6}
# Log-probs in fp32 of up to 128 tokens.
LOGPS = 1e-4

CONFIGS = Path(__file__).parents[2] / "accelerate_configs"

# Twice 12 rows in steps of 8: every second step is filled up with rows that were there before.
WAYS = {
    "shared": ["training.forward=shared", "training.tokens_per_micro_batch=300"],
    "padded": [
        *("training.forward=padded", "training.reference=initial"),
        "training.gradient_checkpointing=true",
    ],
    "lora": [
        *("training.lora.r=4", "training.reference=initial"),
        "training.gradient_checkpointing=true",
    ],
}


# One step over all rows, whose chosen tokens differ between the processes.
SFT = {
    "sft": [
        *("training.loss_type=[sigmoid, sft]", "training.global_batch_size=12"),
        *("training.num_train_epochs=1", "training.optim=sgd", "iterations.1.learning_rate=0.1"),
    ]
}
# Weight decay multiplies the weights by -1e5 at every step, until attention overflows.
DIVERGES = {
    "diverges": [
        *("iterations.1.learning_rate=1000", "training.weight_decay=100"),
        *("training.lr_scheduler_type=constant", "training.num_train_epochs=4"),
    ]
}


@pytest.fixture(scope="module")
def sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """accelerate_configs/zero3.yaml, but no weight is so small that every process keeps it."""
    folder = tmp_path_factory.mktemp("zero3")
    config = yaml.safe_load((CONFIGS / "zero3.yaml").read_text(encoding="utf-8"))
    given = config["deepspeed_config"]
    deepspeed = {
        "zero_optimization": {
            "stage": given["zero_stage"],
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": given["zero3_save_16bit_model"],
        },
        "bf16": {"enabled": "auto"},
        **dict.fromkeys(("train_batch_size", "train_micro_batch_size_per_gpu"), "auto"),
        **dict.fromkeys(("gradient_accumulation_steps", "gradient_clipping"), "auto"),
    }
    (folder / "deepspeed.json").write_text(json.dumps(deepspeed), encoding="utf-8")
    config["deepspeed_config"] = {
        "deepspeed_config_file": str(folder / "deepspeed.json"),
        "zero3_init_flag": given["zero3_init_flag"],
    }
    del config["mixed_precision"]  # accelerate wants it in the one file or in the other
    (folder / "zero3.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder / "zero3.yaml"


@pytest.fixture(scope="module")
def trained(
    finished: Any, sharded: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Folders of the trainings in WAYS: by one process, by two with DDP, by two with ZeRO-3."""
    launches = {
        "one": (CONFIGS / "single.yaml", 1, WAYS | SFT),
        "ddp": (CONFIGS / "ddp.yaml", 2, DIVERGES | WAYS | SFT),
        "zero3": (sharded, 2, DIVERGES | WAYS | SFT | {"bf16": ["model.dtype=bfloat16"]}),
    }
    folders = {}
    for name, (config, processes, ways) in launches.items():
        folders[name] = tmp_path_factory.mktemp(name)
        (folders[name] / "ways.json").write_text(json.dumps(ways), encoding="utf-8")
        launch(finished, config, processes, folders[name])
    return folders


def launch(finished: Any, config: Path, processes: int, out: Path) -> None:
    """In a copy of the finished run: a training leaves its reference log-probs there."""
    shutil.copytree(finished.output_dir, out / "runs")
    done = subprocess.run(
        [
            *("accelerate", "launch", "--config_file", config, "--num_processes", str(processes)),
            *("--log_dir", os.devnull),
            *(Path(__file__).parent / "several_trainings.py", out / "ways.json", out),
            *(*finished.words, f"training.accelerate_config={config}"),
            *(f"training.num_processes={processes}", "training.save_steps=3"),
            *("training.global_batch_size=8", "training.num_train_epochs=2"),
            *("training.warmup_steps=0", "training.report_to=none", f"output_dir={out / 'runs'}"),
        ],
        env=finished.all_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def facts(folder: Path, way: str) -> dict[str, Any]:
    return json.loads((folder / way / "facts.json").read_text(encoding="utf-8"))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    model, loading = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not loading["missing_keys"] and not loading["unexpected_keys"]
    return model.state_dict()


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
@pytest.mark.parametrize("way", WAYS)
def test_the_same_losses_reference_and_policy_as_one_process(
    way: str, strategy: str, trained: dict[str, Path]
) -> None:
    one, two = facts(trained["one"], way), facts(trained[strategy], way)
    assert one["shared"] == two["shared"] == (way != "padded")
    assert len(set(one["losses"])) == 4
    for found in (one, two):
        by_tokens = len(set(found["rows_of_micro_batches"])) > 1
        assert by_tokens == (way == "shared"), found["rows_of_micro_batches"]
    for key in ("ref_chosen_logps", "ref_rejected_logps", "ref_explored_logps"):
        assert len(set(one[key])) > 8, "rows in another order would not be noticed"
        assert two[key] == pytest.approx(one[key], abs=LOGPS), key
    assert two["losses"] == pytest.approx(one["losses"], abs=LOSS)
    policies = [weights(folder / way / "policy") for folder in (trained["one"], trained[strategy])]
    torch.testing.assert_close(policies[1], policies[0], **WEIGHTS)
    assert [path.name for path in (trained[strategy] / way / "policy").glob("*.safetensors")] == [
        "model.safetensors"
    ]


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_sft_is_the_mean_over_the_tokens_of_all_processes(
    strategy: str, trained: dict[str, Path]
) -> None:
    """After one step of SGD: a step of 0.1 times what gradients of norm 1 are off by."""
    one, two = (trained[name] / "sft" / "policy" for name in ("one", strategy))
    torch.testing.assert_close(weights(two), weights(one), **WEIGHTS)
    assert facts(trained[strategy], "sft")["losses"] == pytest.approx(
        facts(trained["one"], "sft")["losses"], abs=LOSS
    )


@pytest.mark.parametrize("strategy", ["ddp", "zero3"])
def test_a_policy_that_diverges_ends_the_training_in_every_process(
    strategy: str, trained: dict[str, Path]
) -> None:
    """They went on to the next way together; nothing that is not finite was saved."""
    folder = trained[strategy] / "diverges"
    said = [(folder / f"error-{rank}.txt").read_text(encoding="utf-8") for rank in range(2)]
    assert said[0] == said[1]
    assert re.match(
        r"training: the (loss|gradient) of step [2-8] is not finite at a learning rate", said[0]
    )
    assert not (folder / "policy").exists()


def test_the_script_of_a_policy_that_diverges_says_one_line(project_copy: Any) -> None:
    two = project_copy.with_overrides(
        *DIVERGES["diverges"],
        "iterations.0.learning_rate=1000",
        f"training.accelerate_config={CONFIGS / 'ddp.yaml'}",
        "training.num_processes=2",
    )
    done = two.stage("train", 1)
    assert done.returncode == 1
    # The progress bar has no line end: the error may stand behind it.
    said = re.findall(r"error: training: .*", done.stderr)
    assert len(said) == 1 and "the policy diverged and is not saved; lower" in said[0]
    assert done.stderr.count("Traceback") <= 1, "more than the launcher's own"
    assert artifacts.state(two.recipe, "checkpoint", 1).why != "missing"  # the old recipe's
    assert not artifacts.state(two.recipe, "checkpoint", 1).current


def test_the_reference_is_the_one_of_the_recipe(trained: dict[str, Path]) -> None:
    """The policy is the reference at the first step; `initial` is another model."""
    assert facts(trained["ddp"], "shared")["losses"][0] == pytest.approx(0.6931, abs=1e-4)
    assert abs(facts(trained["ddp"], "padded")["losses"][0] - 0.6931) > 1e-2
    assert abs(facts(trained["zero3"], "lora")["losses"][0] - 0.6931) > 1e-2


def test_bf16_under_zero3_starts_at_its_reference(trained: dict[str, Path]) -> None:
    """Log 2 exactly: log-probs that were rounded to bf16 on their way would be off by up to 1."""
    assert facts(trained["zero3"], "bf16")["losses"][0] == pytest.approx(0.693147, abs=1e-5)


def test_an_optimizer_sharded_by_zero3_goes_on_as_it_was_or_not_at_all(
    trained: dict[str, Path],
) -> None:
    saved = next((trained["zero3"] / "shared" / "steps").glob("checkpoint-*"))
    assert saved.name == "checkpoint-3", "and none after the last step, the fourth"
    check_resumable(saved, "DeepSpeed", 2)
    with pytest.raises(UserError, match="sharded by DeepSpeed over 2 processes"):
        check_resumable(saved, "DeepSpeed", 4)
    with pytest.raises(UserError, match="launch it as before, or delete"):
        check_resumable(saved, "none", 2)
    whole = next((trained["ddp"] / "shared" / "steps").glob("checkpoint-*"))
    check_resumable(whole, "none", 7)


def test_a_training_of_one_process_goes_on_with_two(project_copy: Any, finished: Any) -> None:
    """Killed after a saved step; the real script, and the same weights as without."""
    often = project_copy.with_overrides("training.save_steps=1")
    checkpoint = often.folder / "iter-2" / "checkpoint"
    shutil.rmtree(checkpoint)
    often.killed_at("save", 1, "train", 2)
    two = often.with_overrides(
        f"training.accelerate_config={CONFIGS / 'ddp.yaml'}", "training.num_processes=2"
    )
    done = two.stage("train", 2)
    assert done.returncode == 0, done.stderr
    assert "resuming from" in done.stdout
    assert artifacts.state(two.recipe, "checkpoint", 2).current
    wanted = weights(finished.folder / "iter-2" / "checkpoint")
    torch.testing.assert_close(weights(checkpoint), wanted, **WEIGHTS)
