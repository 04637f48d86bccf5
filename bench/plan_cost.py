"""The plan's estimates beside what stages take: peak memory and seconds, on this CPU.

    python bench/plan_cost.py            # 5 to 10 minutes on two idle cores
    python bench/plan_cost.py 135M       # only the cases whose name holds this

Each case runs a stage's real command on the quickstart's data in a temporary folder, with
`scripts/cpu_settings.sh`. Memory is the largest resident set of the stage's processes. The tiny
model is the 135M model's architecture with random weights: 6 layers of 192 units.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selm.cost.estimate import stage_cost
from selm.recipe.loading import load_recipe

RECIPE = "recipes/smollm2-135m-instruct/selm.yaml"
MODEL = "models/smollm2-135m-instruct"
PAIRS = "iterations=[{objective: dpo, learning_rate: 1.0e-6}]"
EXPLORE = "iterations=[{objective: selm, learning_rate: 1.0e-6}]"
LORA = "training.lora={r: 16, target_modules: all-linear}"
ONE_ROW = "training.per_device_train_batch_size=1"

AS_IN_A_RUN = ["bash", "-c", 'source scripts/cpu_settings.sh; exec "$@"', "bash"]
LAUNCH = ["accelerate", "launch", "--config_file", "accelerate_configs/single.yaml"]

# (name, artifact, overrides)
CASES = [
    ("135M, 8 rows", "checkpoint", (PAIRS, "data.limit=120")),
    ("135M, 1 row", "checkpoint", (PAIRS, "data.limit=40", ONE_ROW)),
    ("135M, float32", "checkpoint", (PAIRS, "data.limit=40", "model.dtype=float32")),
    (
        *("135M, checkpointing", "checkpoint"),
        (PAIRS, "data.limit=40", "training.gradient_checkpointing=true"),
    ),
    ("135M, padded", "checkpoint", (PAIRS, "data.limit=40", "training.forward=padded")),
    ("135M, LoRA", "checkpoint", (PAIRS, "data.limit=40", LORA)),
    ("135M, generation", "responses", (EXPLORE, "data.limit=120")),
    ("tiny, 8 rows", "checkpoint", (PAIRS, "data.limit=360")),
    ("tiny, generation", "responses", (EXPLORE, "data.limit=360")),
]


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    print(f"{'':<22} {'memory, GB':>24} {'':>6} {'time, s':>22}")
    print(f"{'case':<22} {'estimate':>12} {'measured':>11} {'ratio':>6} {'estimate':>10} "
          f"{'measured':>11} {'ratio':>6}")  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny(Path(folder) / "tiny")
        for number, (name, kind, overrides) in enumerate(CASES):
            if wanted not in name:
                continue
            model = tiny if name.startswith("tiny") else MODEL
            settings = [*overrides, f"model.name_or_path={model}", f"output_dir={folder}/{number}"]
            estimated = stage_cost(load_recipe(RECIPE, settings), kind, 1)
            memory, seconds = measure(kind, settings)
            need = estimated.memory.total
            print(
                f"{name:<22} {need / 1e9:>12.2f} {memory / 1e9:>11.2f} {need / memory:>6.2f} "
                f"{estimated.seconds:>10.0f} {seconds:>11.0f} {estimated.seconds / seconds:>6.2f}",
                flush=True,
            )


def make_tiny(folder: Path) -> str:
    """Random weights; the first answers are as long as max_tokens allows."""
    config = AutoConfig.from_pretrained(MODEL)
    config.update(
        {"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6}
        | {"num_attention_heads": 3, "num_key_value_heads": 1, "layer_types": None}
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return str(folder)


def measure(kind: str, settings: list[str]) -> tuple[float, float]:
    """Peak resident bytes of the largest process of a stage, and the stage's seconds."""
    command = {
        "checkpoint": [*LAUNCH, "--quiet", "scripts/train.py"],
        "responses": ["python", "scripts/generate.py"],
    }[kind]
    started = time.monotonic()
    process = subprocess.Popen(
        [*AS_IN_A_RUN, *command, RECIPE, "--iteration", "1", *settings],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(output)
    return usage.ru_maxrss * 1024, time.monotonic() - started


def environment() -> dict[str, str]:
    """`python` and `accelerate` are those of this process."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


if __name__ == "__main__":
    main()
