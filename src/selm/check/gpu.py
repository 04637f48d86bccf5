"""Why a GPU that is here cannot be used: the driver, a C compiler, Python.h. Imports no torch.

    python -m selm.check.gpu requirements/cuda.lock

prints a line for each problem that the CUDA stack of this lock will have here. setup.sh runs it
before it installs anything.
"""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

# The oldest driver that runs a major version of CUDA, all its minor versions included: NVIDIA's
# release notes of the CUDA Toolkit, table "CUDA Minor Version Compatibility".
OLDEST_DRIVER = {11: 450, 12: 525, 13: 580}


def main() -> None:
    cuda = cuda_of_lock(Path(sys.argv[1]).read_text(encoding="utf-8"))
    installed = driver()
    problems = [None if installed is None else driver_problem(installed, cuda), compiler_problem()]
    for problem in filter(None, problems):
        print(problem)


def cuda_of_lock(lock: str) -> str:
    """The version of CUDA that a lock installs.

    >>> cuda_of_lock("certifi==2026.1\\nnvidia-cuda-runtime==13.0.96\\n")
    '13.0'
    """
    found = re.search(r"^nvidia-cuda-runtime\S*==(\d+\.\d+)", lock, re.MULTILINE)
    assert found is not None, "no nvidia-cuda-runtime in the lock"
    return found[1]


def driver() -> str | None:
    """The version of the NVIDIA driver; None if nvidia-smi is not here or lists no GPU."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True,
            text=True,
        )
    except OSError:
        return None
    said = done.stdout.splitlines()
    return said[0].strip() if done.returncode == 0 and said else None


def driver_problem(installed: str, cuda: str) -> str | None:
    """What to do if the driver is too old for this version of CUDA, otherwise None.

    >>> driver_problem("580.65.06", "13.0") is None
    True
    """
    oldest, found = OLDEST_DRIVER.get(int(cuda.split(".")[0])), re.match(r"\d+", installed)
    if oldest is None or found is None or int(found[0]) >= oldest:
        return None
    return (
        f"the NVIDIA driver is {installed}, but CUDA {cuda}, which torch is built for, needs "
        f"{oldest} or newer; install a newer driver (Ubuntu: apt install nvidia-driver-{oldest}; "
        "in a container: on the host) and restart the machine"
    )


def compiler_problem() -> str | None:
    """What to install if Triton could not compile here, otherwise None.

    Triton writes a C file for each of its kernels when a training or vLLM first runs it. It takes
    $CC, gcc or clang, and the C file includes Python.h.
    """
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or shutil.which(compiler) is None:
        which = "no gcc or clang" if compiler is None else f"no {compiler}, which CC names"
        return (
            f"there is {which} here, and Triton compiles kernels with it when a training starts; "
            "install one (Debian, Ubuntu: apt install gcc libc6-dev), or name another: CC=..."
        )
    folder = sysconfig.get_paths()["include"]
    tried = subprocess.run(
        [compiler, f"-I{folder}", "-fsyntax-only", "-x", "c", "-"],
        input="#include <Python.h>\n",
        capture_output=True,
        text=True,
    )
    if tried.returncode == 0:
        return None
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    said = next((line for line in tried.stderr.splitlines() if "error" in line), "it said nothing")
    return (
        f"{compiler} cannot compile what includes Python.h ({said.strip()}), and Triton needs that "
        f"when a training starts; install the headers (Debian, Ubuntu: apt install {python}-dev), "
        "or use a Python that has them in " + folder
    )


if __name__ == "__main__":
    main()
