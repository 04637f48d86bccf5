"""This machine: packages, disk, memory, access."""

import shutil

import torch

from selm.check.installed import check_packages
from selm.check.preflight import Preflight
from selm.cost.devices import CPU_MEMORY_GB
from selm.cost.estimate import peak_bytes, run_cost, unknown
from selm.cost.quantities import GB
from selm.errors import UserError
from selm.generation.kinds import check_engine
from selm.run.artifacts import run_folder
from selm.run.plan import size_text, warnings
from selm.run.stages import stages
from selm.training.batch import num_processes


def packages(preflight: Preflight) -> str:
    check_packages(preflight.recipe)
    check_engine(preflight.recipe.generation)
    return "all packages that this recipe needs are installed"


def hub(preflight: Preflight) -> str:
    """If the recipe pushes, check that the token may."""
    recipe = preflight.recipe
    if not recipe.hub.push:
        return "nothing is pushed (hub.push)"
    from selm.hub.access import check_access

    check_access(recipe)
    kind = "private" if recipe.hub.private else "PUBLIC"
    return f"the token may push to {recipe.hub.namespace}; repositories are {kind}"


def disk(preflight: Preflight) -> str:
    """Free space where the run's folder is or will be."""
    recipe = preflight.recipe
    folder = run_folder(recipe).absolute()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    why = unknown(recipe)
    if why is not None:
        return f"{size_text(free)} free; {why}"
    total = run_cost(recipe, stages(recipe))
    need = total.disk_bytes + total.scratch_bytes
    if need > free:
        raise UserError(
            f"output_dir: {size_text(free)} free at {there}, but about {size_text(need)} needed; "
            "name a folder on a larger disk"
        )
    return f"{size_text(free)} free, about {size_text(need)} needed"


def memory(preflight: Preflight) -> str:
    """Compare this machine's devices with those of the estimate, and check that the run fits."""
    recipe = preflight.recipe
    why = unknown(recipe)
    if why is not None:
        return why
    too_large = warnings(preflight.run)
    if too_large:
        raise UserError(too_large[0].removeprefix("WARNING: "))
    wanted = recipe.estimate.device
    if wanted == "cpu":
        here, count = CPU_MEMORY_GB * GB, 1
    elif not torch.cuda.is_available():
        raise UserError(
            f"estimate.device: the recipe is for {num_processes(recipe)} x {wanted}, but this "
            "machine has no GPU; run it on a machine with GPUs, or set estimate.device=cpu"
        )
    else:
        here = torch.cuda.get_device_properties(0).total_memory
        count = torch.cuda.device_count()
        if count < num_processes(recipe):
            raise UserError(
                f"training.num_processes: {num_processes(recipe)} processes, but this machine has "
                f"{count} GPUs; set it to {count}, or start the run on several machines"
            )
    training = [(kind, t) for kind, t in stages(recipe) if kind == "checkpoint"]
    need = max(peak_bytes(recipe, kind, t) for kind, t in training)
    if need > here:
        raise UserError(
            f"estimate.memory_gb: about {size_text(need)} needed, but this machine has "
            f"{size_text(here)}; set it to {here / GB:.0f} and see what the plan proposes"
        )
    return f"about {size_text(need)} of {count} x {size_text(here)} to train"
