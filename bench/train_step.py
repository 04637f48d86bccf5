"""A SELM step here, beside (A) the original trainer's computation and (B) TRL's `DPOTrainer`.

    python bench/train_step.py [--data FILE ...] [--ablation] [--dtype float32] [--json FILE]

Policy forward and backward of the same rows, from token ids to gradients, batches and padding
included; the optimizer's step is the same for all and left out. (A) is `bench/original.py`. (B)
computes two responses per row, the others three. The reference pass is timed for itself: (A) makes
it at every step, for us and for (B) it comes once before training. All ways start from the same
weights, in fp32 under the autocast of --dtype, and take turns on each batch, so compare the ratios:
of single steps, their median, lowest and highest.

The explored response is the chosen, the rejected or a third one, in a third of the rows each.
`--ablation` takes each of the five ideas of docs/performance.md away in turn.

A token needs some 1.5 MB of memory in (A) and (B), padding included, so that 8 rows of full length
would take 37 and 24 GB. `--piece N` sends N rows at a time through every way; (A) and (B) stay as
wide as the whole step's longest, which is the same work. The default is 2 on a CPU and all on a
GPU; the memory that is printed is that of a piece.

On a CPU `source scripts/cpu_settings.sh` first, which all ways gain from.
"""

import argparse
import copy
import ctypes
import gc
import json
import logging
import os
import platform
import re
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import original
import torch
from ablation import ABLATIONS
from datasets import Dataset
from tables import spread
from texts import QUICKSTART, Row, load
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel
from trl import DPOConfig, DPOTrainer
from ways import (
    Counts,
    Examples,
    Way,
    as_in_training,
    counts,
    padded_step_of,
    reference_of,
    step_of,
)

from selm.data.prompts import as_messages
from selm.model.chat import Chat
from selm.model.probe import make_chat
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, TokenRow, tokenize
from selm.training.trainer import SELMTrainer

ALPHA, BETA = 0.001, 0.01


def main() -> None:
    arguments = parse()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    chat = make_chat(AutoTokenizer.from_pretrained(arguments.model))
    needed = arguments.rows * arguments.steps
    steps = to_steps(load(arguments.data, 2 * needed), chat, arguments)
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        ways = make_ways(model, chat, steps[0][:1], folder, arguments)
        found = measure(ways, steps)
    report(found, steps, arguments)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="models/smollm2-135m-instruct")
    parser.add_argument("--data", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--rows", type=int, default=8, help="per step")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--piece", type=int, help="rows at a time")
    parser.add_argument("--max-length", type=int, default=1024)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--ablation", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    if arguments.piece is None:
        arguments.piece = arguments.rows if torch.cuda.is_available() else 2
    return arguments


def to_steps(rows: Sequence[Row], chat: Chat, arguments: argparse.Namespace) -> list[Examples]:
    """Examples by step; the third response of a row is the first of its neighbour."""
    preferences = []
    for i, (prompt, (chosen, rejected)) in enumerate(rows):
        role = list(ROLES)[i % len(ROLES)]
        neighbour = rows[(i + 1) % len(rows)][1][0]
        preferences.append(
            {
                "prompt": [{"role": "user", "content": prompt}],
                "chosen": as_messages(chosen),
                "rejected": as_messages(rejected),
                "explored": {"chosen": chosen, "rejected": rejected}.get(role, neighbour),
                "explored_role": role,
            }
        )
    examples, _ = tokenize(preferences, chat, arguments.max_length, with_explored=True)
    nothing = dict.fromkeys(("ref_chosen_logps", "ref_rejected_logps", "ref_explored_logps"), 0.0)
    examples = [example | nothing for example in examples]
    starts = range(0, arguments.rows * arguments.steps, arguments.rows)
    return [examples[start : start + arguments.rows] for start in starts]


def make_ways(
    model: PreTrainedModel,
    chat: Chat,
    first: Examples,
    folder: str,
    arguments: argparse.Namespace,
) -> dict[str, Way]:
    """Every way by its name, each on a copy of the model."""
    settings = {
        "output_dir": folder,
        "beta": BETA,
        "per_device_train_batch_size": arguments.rows,
        "max_length": arguments.max_length,
        "gradient_checkpointing": False,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": arguments.dtype == "bfloat16",
        "precompute_ref_log_probs": True,
        "report_to": "none",
        "disable_tqdm": True,
    }

    def selm() -> SELMTrainer:
        columns = ("prompt_ids", "chosen_ids", "rejected_ids", "explored_ids", "explored_role")
        return as_in_training(
            SELMTrainer(
                model=copy.deepcopy(model),
                args=SELMConfig(**settings, alpha=ALPHA, forward="shared"),
                train_dataset=Dataset.from_list([{key: e[key] for key in columns} for e in first]),
                processing_class=chat.tokenizer,
            )
        )

    ours = selm()
    ways: dict[str, Way] = {
        "selm": lambda examples: step_of(ours, examples, arguments.piece),
        "selm, reference": lambda examples: reference_of(ours, examples, arguments.piece),
    }
    if arguments.ablation:
        for name, take_away in ABLATIONS.items():
            ways[name] = take_away(selm(), arguments.piece)
        return ways
    text = {"prompt": "The sea", "chosen": " is blue.", "rejected": " is red."}
    trls = as_in_training(
        DPOTrainer(
            model=copy.deepcopy(model),
            args=DPOConfig(**settings),
            train_dataset=Dataset.from_list([text]),
            processing_class=chat.tokenizer,
        )
    )
    ways["trl"] = lambda examples: padded_step_of(trls, examples, arguments.piece)
    policy = copy.deepcopy(model).to(ours.args.device).train()
    pad, autocast = chat.tokenizer.pad_token_id, ours.accelerator.autocast
    return ways | original_ways(policy, pad, autocast, arguments.piece)


def original_ways(
    policy: PreTrainedModel, pad: int, autocast: Callable[[], Any], rows: int
) -> dict[str, Way]:
    """(A), and its reference pass; the reference's weights are the policy's here."""

    def step(examples: Examples) -> Counts:
        both = original.batches(examples, pad, policy.device)
        for pair, explored in original.pieces(*both, rows):
            with autocast():
                logps = original.all_log_probs(policy, pair, explored)
                loss = original.loss(logps, torch.zeros_like(logps), ALPHA, BETA)
            loss.backward()
        policy.zero_grad()
        return counts(*both)

    def reference(examples: Examples) -> Counts:
        both = original.batches(examples, pad, policy.device)
        for pair, explored in original.pieces(*both, rows):
            with autocast(), torch.no_grad():
                original.all_log_probs(policy, pair, explored)
        return counts(*both)

    return {"original": step, "original, reference": reference}


def measure(ways: dict[str, Way], steps: Sequence[Examples]) -> dict[str, dict[str, Any]]:
    """Seconds and tokens of every step, and the highest memory of the heaviest one, by way."""
    heaviest = max(steps, key=lambda examples: max(map(longest, examples)))
    found: dict[str, dict[str, Any]] = {
        name: {"seconds": [], "tokens": [], "peak_bytes": peak(way, heaviest)}
        for name, way in ways.items()  # this is the warm-up, too
    }
    for turn, examples in enumerate(steps):
        for name in sorted(ways, reverse=turn % 2 == 1):
            started = time.perf_counter()
            found[name]["tokens"].append(ways[name](examples))  # computed, and not padding
            synchronize()
            found[name]["seconds"].append(time.perf_counter() - started)
        line = ", ".join(f"{name} {found[name]['seconds'][-1]:.1f} s" for name in ways)
        print(f"step {turn + 1}: {line}", flush=True)
    return found


def longest(example: TokenRow) -> int:
    return len(example["prompt_ids"]) + max(len(example[key]) for key in original.ROLE_KEYS)


def peak(way: Way, examples: Examples) -> int:
    """Highest memory while it works above what there was before, in bytes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        way(examples)
        return torch.cuda.max_memory_allocated() - before
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # give back what earlier work has left
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # reset the high-water mark
    before = _status("VmRSS")
    way(examples)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    text = Path("/proc/self/status").read_text(encoding="utf-8")
    return 1024 * int(re.search(rf"{key}:\s+(\d+) kB", text)[1])


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def ratio(found: dict[str, Any], above: Sequence[str], below: Sequence[str]) -> dict[str, float]:
    """Seconds of the one by seconds of the other, step by step: median, lowest, highest."""
    sums = [
        [sum(times) for times in zip(*(found[name]["seconds"] for name in names), strict=True)]
        for names in (above, below)
    ]
    ratios = [a / b for a, b in zip(*sums, strict=True)]
    return {"median": median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def report(
    found: dict[str, dict[str, Any]], steps: Sequence[Examples], arguments: argparse.Namespace
) -> None:
    print(f"\n{'':40}{'examples/s':>12}{'tokens':>10}{'no padding':>12}{'peak GB':>9}")
    for name, facts in found.items():
        rate = sum(map(len, steps)) / sum(facts["seconds"])
        computed, real = (sum(count) for count in zip(*facts["tokens"], strict=True))
        facts |= {"examples_per_second": rate, "padding_efficiency": real / computed}
        print(
            f"{name:40}{rate:12.2f}{computed:10}{real / computed:12.2f}"
            f"{facts['peak_bytes'] / 1e9:9.2f}"
        )
    ratios = all_ratios(found)
    for name, facts in ratios.items():
        steps_took = spread(f"{facts['median']:.2f}", facts["lowest"], facts["highest"])
        print(f"{name:48}{steps_took} in single steps")
    if arguments.json:
        text = json.dumps(as_json(found, ratios, steps, arguments), indent=1)
        arguments.json.write_text(text + "\n", encoding="utf-8")


def all_ratios(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    """The headline ratios; of an ablation, what each idea is worth."""
    if "original" not in found:
        return {name: ratio(found, [name], ["selm"]) for name in found if name in ABLATIONS}
    with_reference = ["selm", "selm, reference"], ["original", "original, reference"]
    return {
        "vs_original": ratio(found, with_reference[1], with_reference[0]),
        "vs_original_without_reference": ratio(found, ["original"], ["selm"]),
        "vs_original_reference_alone": ratio(found, with_reference[1][1:], with_reference[0][1:]),
        "vs_trl_dpo": ratio(found, ["trl"], ["selm"]),
    }


def as_json(
    found: dict[str, dict[str, Any]],
    ratios: dict[str, dict[str, float]],
    steps: Sequence[Examples],
    arguments: argparse.Namespace,
) -> dict[str, Any]:
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine()
    return {
        **{name: round(facts["median"], 3) for name, facts in ratios.items()},
        "ratios": ratios,
        "ways": found,
        "rows_per_step": arguments.rows,
        "rows_at_a_time": arguments.piece,
        "steps": len(steps),
        "max_length": arguments.max_length,
        "dtype": arguments.dtype,
        "model": Path(arguments.model).name,
        "data": [file.name for file in arguments.data or [QUICKSTART]],
        "device": device,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "glibc_keeps_memory": "MALLOC_TRIM_THRESHOLD_" in os.environ,
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    main()
