"""Log-probs and gradients of the shared path with every weight sharded by FSDP2.

    torchrun --nproc_per_node 2 tests/sharded_gradients.py FOLDER

FOLDER/input.pt holds, by family, a model's config, its weights, and a batch for each process; what
comes of them is left in FOLDER/output.pt. accelerate starts FSDP2 on GPUs alone, so this is torch's
own `fully_shard`, which is what accelerate calls.
"""

import gc
import sys
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM

from selm.training import head
from selm.training.forward import forward
from selm.training.shared_prefix import prepare


def main(folder: Path) -> None:
    distributed.init_process_group("gloo")
    head.CHUNK = 16  # as with real responses, processes have different numbers of chunks
    given = torch.load(folder / "input.pt", weights_only=False)
    found = {family: compute(**of_family) for family, of_family in given.items()}
    if distributed.get_rank() == 0:
        torch.save(found, folder / "output.pt")
    # The model holds the group, whose threads hold tensors: all of it goes before the interpreter
    # does, or such a thread may ask for it too late, which aborts the process.
    gc.collect()
    distributed.barrier()
    distributed.destroy_process_group()


def compute(config: Any, weights: dict[str, torch.Tensor], batches: list[Any]) -> dict[str, Any]:
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    model.load_state_dict(weights)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    prepare(model)
    mesh = init_device_mesh("cpu", (processes,))
    for layer in model.base_model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model.train(), mesh=mesh)
    sums = forward(model, batches[rank]).log_probs.sum(dim=1)
    sums.mean().backward()
    gathered = [torch.empty(0)] * processes
    distributed.all_gather_object(gathered, sums.detach())
    gradients = {}
    for name, parameter in model.named_parameters():
        assert isinstance(parameter.grad, DTensor), name
        gradients[name] = parameter.grad.full_tensor()
    return {"sums": gathered, "gradients": gradients}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
