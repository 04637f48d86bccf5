"""The plan's estimates beside what stages take: peak memory and seconds, on this CPU.

    python bench/plan_cost.py            # 5 to 10 minutes on two idle cores
    python bench/plan_cost.py 135M       # only the cases whose name holds this

Each case runs a stage's real command on the quickstart's data in a temporary folder, with
`scripts/cpu_settings.sh`. Memory is the largest resident set of the stage's processes. The tiny
model is the 135M model's architecture with random weights: 6 layers of 192 units.

What was measured replaces the case's entry in bench/plan_cost.json, which the tests compare the
estimates with; the table in docs/results.md is made of that file.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from tables import between, rows
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from selm.cost.estimate import stage_cost
from selm.recipe.loading import load_recipe
from selm.run.stages import STAGES

RECIPE = "recipes/smollm2-135m-instruct/selm.yaml"
MODEL = "models/smollm2-135m-instruct"
TINY = {
    **{"hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6},
    **{"num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64, "vocab_size": 49152},
    "tie_word_embeddings": True,
}
PAIRS = "iterations=[{objective: dpo, learning_rate: 1.0e-6}]"
EXPLORE = "iterations=[{objective: selm, learning_rate: 1.0e-6}]"
LORA = "training.lora={r: 16, target_modules: all-linear}"
ONE_ROW = "training.per_device_train_batch_size=1"
FORTY = (PAIRS, "data.limit=40")

# (name, artifact, iteration, overrides); those of the same overrides share a run's folder.
CASES = [
    ("135M, training, 120 rows, 8 at a time", "checkpoint", 1, (PAIRS, "data.limit=120")),
    ("135M, training, 1 row at a time", "checkpoint", 1, (*FORTY, ONE_ROW)),
    ("135M, training in float32", "checkpoint", 1, (*FORTY, "model.dtype=float32")),
    (
        *("135M, training with gradient checkpointing", "checkpoint", 1),
        (*FORTY, "training.gradient_checkpointing=true"),
    ),
    ("135M, training, padded", "checkpoint", 1, (*FORTY, "training.forward=padded")),
    ("135M, training with LoRA", "checkpoint", 1, (*FORTY, LORA)),
    ("135M, generation, 120 prompts", "responses", 1, (EXPLORE, "data.limit=120")),
    ("135M, ranking, 120 prompts", "preferences", 1, (EXPLORE, "data.limit=120")),
    ("135M, answers, 120 prompts", "answers", 0, (EXPLORE, "data.limit=120")),
    ("135M, scores of 120 answers", "evaluation", 0, (EXPLORE, "data.limit=120")),
    ("tiny, training, 360 rows", "checkpoint", 1, (PAIRS, "data.limit=360")),
    ("tiny, generation, 360 prompts", "responses", 1, (EXPLORE, "data.limit=360")),
]
MEASURED, PAGE = Path(__file__).with_name("plan_cost.json"), Path("docs/results.md")
DEVICES = Path("src/selm/cost/devices.yaml")
HEAD = ("stage", "memory, GB: estimate, measured", "ratio", "time, s: estimate, measured", "ratio")

AS_IN_A_RUN = ["bash", "-c", 'source scripts/cpu_settings.sh; exec "$@"', "bash"]
LAUNCH = ["accelerate", "launch", "--config_file", "accelerate_configs/single.yaml", "--quiet"]


def main() -> None:
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    found = {entry["case"]: entry for entry in json.loads(MEASURED.read_text(encoding="utf-8"))}
    with tempfile.TemporaryDirectory() as folder:
        tiny = make_tiny(Path(folder) / "tiny")
        for name, stage, t, overrides in CASES:
            if wanted not in name:
                continue
            model, config = (tiny, TINY) if name.startswith("tiny") else (MODEL, None)
            runs = f"{folder}/{name[:4]}{abs(hash(overrides))}"
            memory_bytes, seconds = measure(
                stage, t, [*overrides, f"model.name_or_path={model}", f"output_dir={runs}"]
            )
            print(f"{name}: {memory_bytes / 1e9:.2f} GB, {seconds:.1f} s", flush=True)
            found[name] = {
                **{"case": name, "stage": stage, "t": t, "overrides": overrides},
                **{"config": config, "memory_gb": round(memory_bytes / 1e9, 2)},
                **{"seconds": round(seconds, 1), **machine()},
            }
        entries = [found[name] for name, *_ in CASES if name in found]
        MEASURED.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")
        text = PAGE.read_text(encoding="utf-8")
        table = "\n".join(rows(*(HEAD, *(row(entry, tiny) for entry in entries))))
        PAGE.write_text(between(text, "plan_cost", table), encoding="utf-8")


def row(entry: dict[str, Any], tiny: str) -> list[str]:
    """Of the table: the estimate for the machine of the measurement."""
    model = MODEL if entry["config"] is None else tiny
    tflops = entry["cores"] * yaml.safe_load(DEVICES.read_text(encoding="utf-8"))["cpu"]["tflops"]
    overrides = [*entry["overrides"], f"model.name_or_path={model}", f"estimate.tflops={tflops}"]
    cost = stage_cost(load_recipe(RECIPE, overrides), entry["stage"], entry["t"])
    gb, seconds = cost.memory.total / 1e9, cost.seconds
    return [
        entry["case"],
        f"{gb:.1f}, {entry['memory_gb']:.1f}",
        f"{gb / entry['memory_gb']:.2f}",
        f"{seconds:.0f}, {entry['seconds']:.0f}",
        f"{seconds / entry['seconds']:.2f}",
    ]


def machine() -> dict[str, Any]:
    """Where and with what it was measured."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    packages = {name: version(name) for name in ("torch", "transformers", "trl")}
    return {
        **{"cpu": cpu, "cores": len(os.sched_getaffinity(0))},
        "versions": {"python": platform.python_version(), **packages},
    }


def make_tiny(folder: Path) -> str:
    """Random weights; the first answers are as long as max_tokens allows."""
    config = AutoConfig.from_pretrained(MODEL)
    config.update(TINY | {"layer_types": None})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(folder)
    return str(folder)


def measure(stage: str, t: int, settings: list[str]) -> tuple[float, float]:
    """Peak resident bytes of the largest process of a stage, and the stage's seconds."""
    launcher = LAUNCH if STAGES[stage].launched else ["python"]
    script = [f"scripts/{STAGES[stage].script}.py", RECIPE, "--iteration", str(t), *settings]
    started = time.monotonic()
    process = subprocess.Popen(
        [*AS_IN_A_RUN, *launcher, *script],
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
