"""Checks this machine: packages, GPUs, the places that a run writes to, disk, memory, access."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

import torch

from selm.check import gpu as nvidia
from selm.check.installed import check_packages
from selm.check.preflight import Preflight
from selm.cost.devices import CPU_MEMORY_GB
from selm.cost.estimate import peak_bytes, run_cost, unknown
from selm.cost.quantities import GB
from selm.errors import UserError
from selm.generation.kinds import check_engine
from selm.ranking.kinds import kind_of
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run.artifacts import run_folder
from selm.run.plan import size_text, warnings
from selm.run.stages import stages
from selm.training.batch import num_processes


def packages(preflight: Preflight) -> str:
    check_packages(preflight.recipe)
    check_engine(preflight.recipe.generation)
    return "all packages that this recipe needs are installed"


def gpu(preflight: Preflight) -> str:
    """A GPU that is here can be used, and Triton can compile for it."""
    if torch.cuda.is_available():
        problem = nvidia.compiler_problem()
        if problem is not None:
            raise UserError(problem)
        name, count = torch.cuda.get_device_name(0), torch.cuda.device_count()
        return f"{count} x {name}, CUDA {torch.version.cuda}, driver {nvidia.driver() or 'unknown'}"
    return _why_none()


def _why_none() -> str:
    """Why torch sees no GPU, where that may be meant; UserError where something is wrong."""
    driver, cuda = nvidia.driver(), torch.version.cuda
    if driver is None:
        return "this machine has no NVIDIA GPU"
    if cuda is None:
        return "the CPU stack is installed (for the GPU that is here: STACK=cuda make setup)"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible in ("", "-1"):
        return f"CUDA_VISIBLE_DEVICES={visible} hides the GPUs of this machine"
    problem = nvidia.driver_problem(driver, cuda)
    if problem is not None:
        raise UserError(problem)
    restricted = "" if visible is None else f", CUDA_VISIBLE_DEVICES={visible}"
    raise UserError(
        f"nvidia-smi shows a GPU (driver {driver}{restricted}), but torch cannot use it: "
        f"{_said_by_torch()}; compare nvidia-smi with .venv/bin/python -m torch.utils.collect_env"
    )


def _said_by_torch() -> str:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return " ".join(str(error).split())
    return "torch.cuda.is_available() is False"


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
            f"estimate.device: the recipe is for {num_processes(recipe)} x {wanted}, but "
            f"{gpu(preflight)}; run it on a machine with GPUs, or set estimate.device=cpu"
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


def output(preflight: Preflight) -> str:
    """Write, rename and lock a file where the run's folder is or will be."""
    recipe = preflight.recipe
    folder = run_folder(recipe).absolute()
    _check_place(folder, recipe)
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not there.is_dir():
        raise UserError(f"output_dir: {there} is a file; name a folder")
    try:
        locks = _try_to_write(there)
    except OSError as error:
        raise UserError(
            f"output_dir: {there} cannot be written ({error.strerror}); name a folder that you "
            "may write to"
        ) from error
    _check_cache(recipe)
    notes = [] if locks else ["it has no file locks: make sure that no two runs share it"]
    if shutil.which("git") is None:
        notes.append("git is not installed: manifests will not name the code's commit")
    return "; ".join([f"{folder} can be written", *notes])


def _check_place(folder: Path, recipe: Recipe) -> None:
    model = Path(recipe.model.name_or_path)
    if model.is_dir() and folder.resolve().is_relative_to(model.resolve()):
        raise UserError(
            f"output_dir: {folder} is inside the model's folder ({model}); name another folder"
        )


def _try_to_write(folder: Path) -> bool:
    """Whether locks work; raises OSError if writing does not. Leaves nothing there."""
    with tempfile.TemporaryDirectory(dir=folder, prefix=".selm-check-") as place:
        first, second = Path(place, "first"), Path(place, "second")
        with first.open("w", encoding="utf-8") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                locks = True
            except OSError:
                locks = False
        os.replace(first, second)
    return locks


def _check_cache(recipe: Recipe) -> None:
    """Refuse a Hub cache that cannot be written; otherwise the data would seem to be at fault."""
    names = [recipe.model.name_or_path, recipe.data.name_or_path]
    models = [kind_of(ranking).model(ranking) for ranking in recipe.rankings()]
    if all(is_local_path(name) for name in (*names, *filter(None, models))):
        return
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UserError(
            f"HF_HOME: the Hub's cache {cache} cannot be written ({error.strerror}); set HF_HOME "
            "to a folder that you may write to"
        ) from error
