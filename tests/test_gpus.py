"""What can be said about machines with GPUs where there is none."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import dpo_rows
import pytest
import tokenizer_zoo
import torch
from transformers import LlamaForCausalLM

from selm.check.checks import CHECKS, QUICK, results
from selm.check.gpu import compiler_problem, driver_problem
from selm.recipe.loading import load_recipe
from selm.run.plan import Run

REPOSITORY = Path(__file__).resolve().parents[1]


def test_one_process_that_sees_eight_gpus_trains_on_one(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL refuses `nn.DataParallel`, which the Trainer takes for more than one GPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # and it computes on the CPU
    data = dpo_rows.rows(4, 200, roles=(0, 1, 2))
    model, tokenizer = LlamaForCausalLM.from_pretrained(tiny_model), tokenizer_zoo.smollm2()
    trainer = dpo_rows.selm(
        model, tokenizer, data, tmp_path, use_cpu=False, per_device_train_batch_size=2
    )
    gradients, _ = dpo_rows.trained(trainer)
    assert gradients
    assert trainer.model_wrapped is trainer.model
    assert trainer.args.train_batch_size == 2  # eight GPUs would make it 16


def stand_in(folder: Path, name: str, *lines: str) -> Path:
    """An executable in `folder` that runs these lines of bash."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text("\n".join(["#!/bin/bash", *lines, ""]))
    path.chmod(0o755)
    return path


@pytest.fixture
def driver_535(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with two GPUs and an old driver, as its nvidia-smi tells it."""
    lists = 'if [ "$1" = -L ]; then echo "GPU 0: NVIDIA A100"; exit; fi'
    stand_in(tmp_path / "bin", "nvidia-smi", lists, "echo 535.183.01; echo 535.183.01")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("driver", "cuda", "is_fine"),
    [
        ("580.65.06", "13.0", True),
        ("579.99", "13.0", False),
        ("590.1", "13.2", True),
        ("535.183.01", "12.8", True),
        ("470.256.02", "12.1", False),
        ("470.256.02", "99.0", True),  # not known
    ],
)
def test_a_driver_too_old_for_cuda_is_named_with_the_one_to_install(
    driver: str, cuda: str, is_fine: bool
) -> None:
    problem = driver_problem(driver, cuda)
    assert (problem is None) is is_fine
    if problem is not None:
        oldest = {"13": 580, "12": 525}[cuda.split(".")[0]]
        assert f"driver is {driver}" in problem
        assert f"{oldest} or newer" in problem


def looked(recipe: str, check: str, *overrides: str) -> tuple[bool, str]:
    """Whether a check of the preflight passes, and what it says."""
    run = Run(load_recipe(recipe, overrides), recipe, overrides)
    ((_, well, said),) = results(run, {check: CHECKS[check]})
    return well, said


@pytest.mark.skipif(torch.cuda.is_available(), reason="torch uses the GPUs of this machine")
def test_a_gpu_that_torch_cannot_use_is_explained(
    tiny_recipe: str, driver_535: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert QUICK["gpu"] is CHECKS["gpu"], "run.sh says it, too"
    wants_one = ("memory", "estimate.device=h100")
    if torch.version.cuda is None:  # a choice, unless the recipe wants a GPU
        assert looked(tiny_recipe, "gpu") == (
            True,
            "the CPU stack is installed (for the GPU that is here: STACK=cuda make setup)",
        )
        well, said = looked(tiny_recipe, *wants_one)
        assert not well
        assert "x h100, but the CPU stack is installed" in said
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    for check in (("gpu",), wants_one):
        well, said = looked(tiny_recipe, *check)
        assert not well
        assert said.startswith("the NVIDIA driver is 535.183.01, but CUDA 13.0")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    well, said = looked(tiny_recipe, "gpu")
    assert not well
    assert said.startswith("nvidia-smi shows a GPU (driver 535.183.01), but torch cannot use it: ")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert looked(tiny_recipe, "gpu") == (
        True,
        "CUDA_VISIBLE_DEVICES= hides the GPUs of this machine",
    )


def test_triton_needs_a_c_compiler_and_the_headers_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CC", raising=False)
    real = shutil.which("gcc") or shutil.which("clang")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no gcc or clang" in (compiler_problem() or "")
    monkeypatch.setenv("CC", "cc-of-mine")
    assert "no cc-of-mine, which CC names" in (compiler_problem() or "")
    fails = stand_in(
        tmp_path, "gcc", "echo '<stdin>:1:10: fatal error: Python.h: No such file' >&2; exit 1"
    )
    monkeypatch.setenv("CC", str(fails))
    said = compiler_problem() or ""
    assert "Python.h: No such file" in said
    assert f"python{sys.version_info.major}.{sys.version_info.minor}-dev" in said
    if real is not None:  # and a real compiler finds a header where Python has none
        monkeypatch.setenv("CC", real)
        monkeypatch.setattr("sysconfig.get_paths", lambda: {"include": str(tmp_path)})
        assert "Python.h" in (compiler_problem() or "")
        (tmp_path / "Python.h").write_text("int Py_IsInitialized(void);")
        assert compiler_problem() is None


def set_up(copy: Path, **environment: str) -> list[str]:
    """The warnings of setup.sh in a copy of the project; its Python makes no environment."""
    for part in ("scripts", "requirements", "src/selm/check"):
        shutil.copytree(REPOSITORY / part, copy / part)
    shutil.copy(REPOSITORY / "src/selm/__init__.py", copy / "src/selm")
    shutil.copy(REPOSITORY / "setup.py", copy)
    no_venv = 'if [ "$2" = venv ]; then exit 1; fi'
    python = stand_in(copy / "python", "python3", no_venv, f'exec {sys.executable} "$@"')
    done = subprocess.run(
        ["bash", "scripts/setup.sh"],
        cwd=copy,
        env=os.environ | {"PYTHON": str(python)} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    *said, last = [line for line in done.stderr.splitlines() if line.startswith("setup: ")]
    assert "could not make .venv" in last
    return said


def test_setup_names_what_gpus_lack_before_it_installs_anything(driver_535: Path) -> None:
    driver, compiler = set_up(driver_535 / "copy", STACK="auto", CC="cc-of-mine")
    assert driver.startswith("setup: WARNING: the NVIDIA driver is 535.183.01, but CUDA 13.0")
    assert compiler.startswith("setup: WARNING: there is no cc-of-mine")


def test_setup_says_why_it_installs_the_cpu_stack_where_nvidia_smi_fails(
    driver_535: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STACK", raising=False)
    stand_in(driver_535 / "bin", "nvidia-smi", "echo NVIDIA-SMI has failed; exit 9")
    assert set_up(driver_535 / "copy") == [
        "setup: nvidia-smi finds no GPU, so this is the CPU stack. It says: NVIDIA-SMI has failed"
    ]


def test_bitsandbytes_does_not_warn_of_its_cpu_kernels() -> None:
    """By this logger, when peft imports it on a CPU with AVX-512 BF16."""
    warns = "import sys, logging, selm.cli; logging.getLogger(sys.argv[1]).warning(sys.argv[1])"
    said = [
        subprocess.run(
            [sys.executable, "-c", warns, f"bitsandbytes.{name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stderr.strip()
        for name in ("backends.cpu.ops", "backends.cuda.ops")
    ]
    assert said == ["", "bitsandbytes.backends.cuda.ops"]


@pytest.mark.parametrize("has_gpu", [True, False])
def test_only_without_a_gpu_a_run_has_the_settings_for_cpus(tmp_path: Path, has_gpu: bool) -> None:
    shutil.copytree(REPOSITORY / "scripts", tmp_path / "scripts")
    commands = tmp_path / "bin"
    stand_in(commands, "nvidia-smi", "echo GPU 0: NVIDIA A100" if has_gpu else "exit 9")
    stand_in(commands, "python", 'if [ "$2" = --quick ]; then env; fi')
    given = {key: value for key, value in os.environ.items() if key in ("HOME", "TMPDIR")}
    done = subprocess.run(
        ["bash", "scripts/run.sh", "recipe.yaml"],
        cwd=tmp_path,
        env=given | {"PATH": f"{commands}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    settings = {line.partition("=")[0] for line in done.stdout.splitlines()}
    assert "SELM_RUN_SH" in settings
    text = (REPOSITORY / "scripts/cpu_settings.sh").read_text(encoding="utf-8")
    for_cpus = {*re.findall(r"^export (\w+)=", text, re.MULTILINE), "DS_ACCELERATOR"}
    assert len(for_cpus) > 5
    assert settings & for_cpus == (set() if has_gpu else for_cpus)
