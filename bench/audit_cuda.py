"""What can be known about the CUDA stack on a machine without a GPU: `make audit-cuda`.

    python bench/audit_cuda.py [--folder runs/audit-cuda] [PART ...]

Parts, in this order; without a name all of them, about 11 minutes on two idle cores, 11 GB:

    setup        an environment from requirements/cuda.lock, by scripts/setup.sh
    pip          `pip check`, less what docs/dependencies.md lists
    imports      every module of selm, and the packages that only the CUDA stack has
    tests        the tests in it that drive no scripts; all of them need no GPU
    kernels      the kernels of attention and of the head, to machine code for sm_80 and sm_90
    interpreter  those of attention in Triton's interpreter, against torch's own attention
    memory       the activations of a 7B step, beside the plan's

Each part leaves FOLDER/<part>.json, of which the table in docs/results.md is made.
The first part that fails ends the audit with exit code 1.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from tables import between, rows

PAGE, LOCK = Path("docs/results.md"), Path("requirements/cuda.lock")
TARGETS = {"sm_80": 166_912, "sm_90": 232_448}  # and the shared memory of a block, in bytes
HEAD_DIMS = (64, 96, 128)  # of Llama and SmolLM2, of Phi-3-mini, of Mistral and Qwen
HEADS = ("4", "2")  # queries share keys; the interpreter's time grows with them
WORST = {"float32": 1e-5, "float16": 2e-3}  # relative errors: some roundings of sums
PLAN_TO_MEASURED = (0.9, 1.5)  # too low would run out of memory

IMPORTS = """
import importlib, json, pkgutil, sys
names = ["torch", "transformers", "trl", "peft", "accelerate", "datasets", "triton", "vllm", "ray"]
names += ["deepspeed", "bitsandbytes", "flashinfer", "xgrammar", "lm_eval"]
import selm
names += [module.name for module in pkgutil.walk_packages(selm.__path__, "selm.")]
for name in names:
    importlib.import_module(name)
print(json.dumps(len(names)))
"""


class Failed(Exception):
    """A part of the audit that does not hold."""


class Audit:
    """The folder of an audit, its environment, and the commands that run in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.venv = folder, folder / "venv"
        self.python = str(self.venv / "bin" / "python")
        (folder / "kernels").mkdir(parents=True, exist_ok=True)

    def run(self, *command: str, **variables: str) -> str:
        """What a command prints. No GPU is visible to it; its errors are in FOLDER/last.log."""
        hidden = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        for cache in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
            hidden[cache] = str(self.folder.resolve() / "cache" / cache)
        log = self.folder / "last.log"
        with log.open("w", encoding="utf-8") as file:
            environment = os.environ | hidden | variables
            done = subprocess.run(
                command, env=environment, stdout=subprocess.PIPE, stderr=file, text=True
            )
        if done.returncode:
            said = (done.stdout + log.read_text(encoding="utf-8")).splitlines()[-25:]
            raise Failed("\n".join([" ".join(command), *said]))
        return done.stdout

    def facts(self, name: str) -> Any:
        return json.loads((self.folder / "kernels" / f"{name}.json").read_text(encoding="utf-8"))


def setup(audit: Audit) -> str:
    path = os.path.relpath(audit.venv)
    audit.run("bash", "scripts/setup.sh", STACK="cuda", VENV=path)
    (packages,) = audit.venv.glob("lib/python3*/site-packages")
    found = {each.name: each.version for each in distributions(path=[str(packages)])}
    named = ", ".join(f"{name} {found[name]}" for name in ("torch", "vllm", "deepspeed", "ray"))
    return f"{LOCK.read_text(encoding='utf-8').count('==')} packages: {named}"


def pip(audit: Audit) -> str:
    audit.run(audit.python, "scripts/pip_check.py", "docs/dependencies.md")
    return "no complaint that docs/dependencies.md does not list"


def imports(audit: Audit) -> str:
    return f"{audit.run(audit.python, '-c', IMPORTS).splitlines()[-1]} modules and packages"


def tests(audit: Audit) -> str:
    """Those that drive scripts take most of the time, and the CPU's engines."""
    options = ("--ignore=tests/gpu", "-m", "not slow", "-n", "2", "--dist", "loadfile")
    options += ("-p", "no:cacheprovider")
    said = audit.run(audit.python, "-m", "pytest", "tests", *options, OMP_WAIT_POLICY="passive")
    counts = re.findall(r"\d+ (?:passed|skipped|deselected)", said)
    if not counts:  # -q -q leaves the numbers out
        raise Failed(said[-500:])
    return ", ".join(counts)


def kernels(audit: Audit) -> str:
    found, out = [], str(audit.folder / "kernels")
    for target, limit in TARGETS.items():
        audit.run(audit.python, "bench/audit_head.py", target, f"{out}/{target}-head.json")
        for head_dim in HEAD_DIMS:
            given = (target, str(head_dim), *HEADS, out)
            audit.run(audit.python, "bench/audit_kernels.py", *given)
        made = [k for name in (*HEAD_DIMS, "head") for k in audit.facts(f"{target}-{name}")]
        largest = max(kernel["shared_bytes"] for kernel in made)
        if largest > limit or not all(kernel["cubin_bytes"] for kernel in made):
            raise Failed(f"{target}: {made}")
        found.append(f"{target}: {len(made)}, with at most {largest:,} of {limit:,} bytes")
    return "; ".join(found)


def interpreter(audit: Audit) -> str:
    worst = dict.fromkeys(WORST, 0.0)
    for target in TARGETS:
        for head_dim in HEAD_DIMS:
            given = (target, str(head_dim), *HEADS, str(audit.folder / "kernels"))
            audit.run(audit.python, "bench/audit_interpreter.py", *given, TRITON_INTERPRET="1")
            for dtype, errors in audit.facts(f"interpreted-{target}-{head_dim}").items():
                worst[dtype] = max(worst[dtype], *errors.values())
    if any(not worst[dtype] < limit for dtype, limit in WORST.items()):
        raise Failed(f"relative errors {worst}, and the limits are {WORST}")
    return ", ".join(f"off by {error:.0e} at most in {dtype}" for dtype, error in worst.items())


def memory(audit: Audit) -> str:
    path = audit.folder / "kernels" / "memory.json"
    audit.run(audit.python, "bench/audit_memory.py", str(path))
    said, (low, high) = [], PLAN_TO_MEASURED
    for name, facts in audit.facts("memory").items():
        planned, peak = facts["plan_gb"], facts["peak_gb"]
        said.append(f"{name}: {peak} GB, the plan {planned} GB, at {facts['tokens']} tokens")
        if not low <= planned / peak <= high:
            raise Failed(f"{said[-1]}; the ratio should be {low} to {high}")
    return "; ".join(said)


PARTS: dict[str, Callable[[Audit], str]] = {
    "setup": setup,
    "pip": pip,
    "imports": imports,
    "tests": tests,
    "kernels": kernels,
    "interpreter": interpreter,
    "memory": memory,
}
WHAT = {
    "setup": "environment from `requirements/cuda.lock`",
    "pip": "`pip check`",
    "imports": "imports",
    "tests": "tests that drive no scripts",
    "kernels": "kernels to machine code, shared memory of a block",
    "interpreter": "attention's kernels in Triton's interpreter, relative error",
    "memory": "activations of a 7B step",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--folder", type=Path, default=Path("runs/audit-cuda"))
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; parts are {', '.join(PARTS)}")
    audit = Audit(given.folder)
    for name in given.parts or PARTS:
        started = time.monotonic()
        print(f"{name} ...", end=" ", flush=True)
        try:
            found = PARTS[name](audit)
        except Failed as error:
            print(f"failed\n{error}")
            return 1
        seconds = round(time.monotonic() - started)
        print(f"{found} ({seconds} s)")
        facts = json.dumps({"found": found, "seconds": seconds})
        (audit.folder / f"{name}.json").write_text(facts + "\n", encoding="utf-8")
    write_table(audit.folder)
    return 0


def write_table(folder: Path) -> None:
    """What the parts found when they last ran."""
    lines = []
    for name, what in WHAT.items():
        path = folder / f"{name}.json"
        facts = {"found": "not run yet", "seconds": ""}
        if path.exists():
            facts = json.loads(path.read_text(encoding="utf-8"))
        lines.append([what, facts["found"], str(facts["seconds"])])
    table = "\n".join(rows(["part", "found", "seconds"], *lines))
    text = between(PAGE.read_text(encoding="utf-8"), "audit_cuda", table)
    PAGE.write_text(text, encoding="utf-8")
    print(f"{PAGE}: audit_cuda")


if __name__ == "__main__":
    sys.exit(main())
