"""The self-check of two processes, of which one has a mask that is wrong, or a kernel that fails.

    torchrun --nproc_per_node 2 tests/verdict_of_two.py MODEL FOLDER

Each process leaves in FOLDER/<rank>.json what it was told, per kind of damage.
"""

import json
import sys
from pathlib import Path
from typing import Any

import dpo_rows
from accelerate import PartialState
from datasets import Dataset
from transformers import LlamaForCausalLM

from selm.training import shared_prefix
from selm.training.config import SELMConfig
from selm.training.self_check import self_check

RIGHT = shared_prefix.by_blocks


def main(model: str, folder: Path) -> None:
    state = PartialState(cpu=True)
    arguments = SELMConfig(output_dir=str(folder), **dpo_rows.PLAIN)
    rows = Dataset.from_list(dpo_rows.rows(8, 90, roles=(0, 1, 2)))
    policy = LlamaForCausalLM.from_pretrained(model)
    found = {}
    for name, damaged in {"none": RIGHT, "halved": _halved, "fails": _fails}.items():
        shared_prefix.by_blocks = damaged if state.process_index == 1 else RIGHT
        found[name], _ = self_check(policy, arguments, rows, 0)
    (folder / f"{state.process_index}.json").write_text(json.dumps(found), encoding="utf-8")
    state.destroy_process_group()


def _halved(*inputs: Any) -> Any:
    return RIGHT(*inputs) / 2


def _fails(*inputs: Any) -> Any:
    raise RuntimeError("no kernel for this device")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
