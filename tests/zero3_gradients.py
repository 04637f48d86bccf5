"""Gradients of two processes under ZeRO-3 in bf16, as trained and as DeepSpeed would; and in fp32.

    accelerate launch --config_file accelerate_configs/zero3.yaml --num_processes 2 \\
        tests/zero3_gradients.py OUT

OUT gets, for each way, the dtypes of the sums and the gradient of every parameter, and the means in
float64 of the gradients of all micro-batches. See test_zero3_gradients.py.
"""

import copy
import sys
from pathlib import Path
from typing import Any

import deepspeed
import torch
from datasets import Dataset
from deepspeed.utils import safe_get_full_grad
from torch import distributed
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from selm.training.config import SELMConfig
from selm.training.forward import SELMCollator, forward
from selm.training.shared_prefix import prepare
from selm.training.trainer import SELMTrainer
from selm.training.trial import _tokenizer

MICRO_BATCHES = 32
SHAPE = LlamaConfig(
    vocab_size=96,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.1,
    pad_token_id=0,
)
PAIR = {"prompt_ids": [5, 6], "chosen_ids": [7, 8], "rejected_ids": [9], "explored_role": 0}
OURS = ("data_types", "communication_data_type")


def main(out: Path) -> None:
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled first
    arguments = SELMConfig(
        output_dir=str(out.parent / "steps"),
        bf16=True,
        use_cpu=True,
        max_steps=1,
        report_to="none",
        save_strategy="no",
        gradient_accumulation_steps=4,
        per_device_train_batch_size=1,
    )
    found = {"trainer": of_the_trainer(arguments)}
    ours = copy.deepcopy(arguments.deepspeed_plugin.deepspeed_config)
    unset_hf_deepspeed_config()  # or the models were made sharded
    plain = {key: value for key, value in ours.items() if key not in OURS}
    found |= {name: sums(config) for name, config in (("ours", ours), ("plain", plain))}
    found["exact"] = exact()
    if distributed.get_rank() == 0:
        torch.save(found, out)
    distributed.barrier()
    distributed.destroy_process_group()


def model() -> LlamaForCausalLM:
    """The same weights, all of them bf16 numbers, in fp32."""
    torch.manual_seed(0)
    made = LlamaForCausalLM(SHAPE).bfloat16().float()
    prepare(made)
    return made


def batch(process: int, number: int) -> Any:
    """Two rows, of which each process has its own in each micro-batch."""
    draw = torch.Generator().manual_seed(1000 * process + number)
    ids = [torch.randint(3, 96, (20,), generator=draw).tolist() for _ in range(6)]
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    rows = [dict(zip(keys, ids[at : at + 3], strict=True)) for at in (0, 3)]
    return SELMCollator(0, shared=True)(
        [r | {"explored_ids": [], "explored_role": 0} for r in rows]
    )


def loss(policy: Any, process: int, number: int) -> torch.Tensor:
    return -forward(policy, batch(process, number)).log_probs.sum(dim=1).mean()


def sums(config: dict[str, Any]) -> dict[str, Any]:
    """The gradient of a step, by DeepSpeed."""
    policy = model().bfloat16()
    config |= {
        "bf16": {"enabled": True},
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": MICRO_BATCHES,
        "zero_allow_untested_optimizer": True,
    }
    del config["train_batch_size"]
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.0)
    engine, *_ = deepspeed.initialize(model=policy, optimizer=optimizer, config=config)
    for number in range(MICRO_BATCHES):
        engine.backward(loss(engine, distributed.get_rank(), number))
        if number < MICRO_BATCHES - 1:
            engine.step()
    gradients = {name: safe_get_full_grad(p).float() for name, p in policy.named_parameters()}
    of_sums = dtypes(engine)
    engine.destroy()
    return {"gradients": gradients, **of_sums}


def dtypes(engine: Any) -> dict[str, torch.dtype]:
    """Of the sum over micro-batches and of the one over processes."""
    return {"sum": engine.get_data_types()[1], "reduce": engine.communication_data_type}


def of_the_trainer(arguments: SELMConfig) -> dict[str, torch.dtype]:
    """After a step of `SELMTrainer`, which hands DeepSpeed's config through three libraries."""
    trainer = SELMTrainer(
        model=LlamaForCausalLM(SHAPE).bfloat16(),
        args=arguments,
        train_dataset=Dataset.from_list([PAIR | {"explored_ids": []}] * 8),
        processing_class=_tokenizer(),
    )
    trainer.train()
    return dtypes(trainer.model_wrapped)


def exact() -> dict[str, dict[str, torch.Tensor]]:
    """The mean over all micro-batches of both processes: of gradients in bf16, and in fp32."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        policy, total = model().to(dtype), {}
        for process in range(distributed.get_world_size()):
            for number in range(MICRO_BATCHES):
                policy.zero_grad()
                loss(policy, process, number).backward()
                for name, parameter in policy.named_parameters():
                    share = parameter.grad.double() / MICRO_BATCHES / distributed.get_world_size()
                    total[name] = total.get(name, 0) + share
        found[str(dtype).removeprefix("torch.")] = total
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
