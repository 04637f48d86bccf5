"""A wheel, installed without the checkout: `selm` runs the same scripts from any folder."""

import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
RECIPE = "zephyr-7b-sft/selm"


@pytest.fixture(scope="module")
def selm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command of a new environment: selm's wheel, and the packages of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    source, python = folder / "source", folder / "venv" / "bin" / "python"
    for name in ("src", "scripts", "recipes", "accelerate_configs"):
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(REPOSITORY / name, source / name, ignore=ignored)
    for name in ("setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    quiet = ["-qq", "--disable-pip-version-check", "--no-deps"]
    pip = [sys.executable, "-m", "pip"]
    built = [*pip, "wheel", *quiet, "--no-build-isolation", "--use-pep517", "-w", folder, source]
    subprocess.run(built, check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (wheel,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", python, "install", *quiet, wheel], check=True)
    # A folder that a .pth file names is searched, but its own .pth files, our checkout's, are not.
    packages = next((folder / "venv").glob("lib/python*/site-packages"))
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "venv" / "bin" / "selm"


def call(
    selm: Path, folder: Path, *words: str, **settings: str
) -> subprocess.CompletedProcess[str]:
    """The command, called from a folder in which there is nothing else."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [selm, *words], cwd=folder, env=environment | settings, capture_output=True, text=True
    )
    assert str(REPOSITORY) not in done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_help_and_plan_import_no_torch_and_take_about_a_second(selm: Path, tmp_path: Path) -> None:
    """Seconds of the processor, which other work on the machine changes little."""
    assert "  selm run recipes/" in call(selm, tmp_path, "run", "--help").stdout
    assert call(selm, tmp_path, "compare", "--help").stdout.startswith("usage: selm compare ")
    for words in (["--help"], ["plan", RECIPE]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = call(selm, tmp_path, *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0, done.stderr
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 4, words
        imports = call(selm, tmp_path, *words, PYTHONPROFILEIMPORTTIME="1").stderr
        imported = set(re.findall(r"\| +([\w.]+)$", imports, re.MULTILINE))
        assert "selm.home" in imported
        assert not imported & {"torch", "transformers", "datasets", "accelerate"}, words


@pytest.mark.slow
def test_the_plan_is_the_checkout_s_with_the_commands_of_selm(selm: Path, tmp_path: Path) -> None:
    ours = call(selm, tmp_path, "plan", RECIPE, "training.alpha=0.005").stdout
    words = ["scripts/plan.py", f"recipes/{RECIPE}.yaml", "training.alpha=0.005"]
    plan = subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    folder = selm.parents[1]
    package = next(folder.glob("lib/python*/site-packages/selm")).resolve()
    plan = plan.replace(f"recipes/{RECIPE}.yaml", RECIPE).replace("bash scripts/run.sh", "selm run")
    plan = re.sub(r"python scripts/(\w+)\.py", r"selm \1", plan)
    plan = re.sub(r"(accelerate_configs/|scripts/train)", rf"{package}/\1", plan)
    assert ours == plan
    assert ours.count("\nselm ") > 15 and ours.count("\naccelerate launch ") == 4


@pytest.mark.slow
def test_a_recipe_s_own_files_are_found_in_the_package(
    selm: Path, tmp_path: Path, tiny_model: str
) -> None:
    """Its data and its reward; iteration 1 is made in the folder where the command was called."""
    words = ["smollm2-135m-instruct/selm", f"model.name_or_path={tiny_model}", "data.limit=6"]
    words += ["generation.max_tokens=4", "--iteration", "1"]
    for stage in ("generate", "rank"):
        done = call(selm, tmp_path, stage, *words)
        assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "smollm2-135m-selm"
    saved = (run / "recipe.yaml").read_text(encoding="utf-8")
    assert "name_or_path: recipes/smollm2-135m-instruct/reward.py:reward" in saved
    manifest = (run / "iter-1" / "preferences" / "manifest.json").read_text(encoding="utf-8")
    assert str(selm.parents[1]) not in manifest
    again = call(selm, tmp_path, "rank", str(run / "recipe.yaml"), "--iteration", "1")
    assert "already done" in again.stdout, again.stdout + again.stderr


@pytest.mark.slow
def test_what_is_missing_is_named_with_its_fix(selm: Path, tmp_path: Path) -> None:
    for words, said in (
        (["plam", RECIPE], "error: selm plam: there is no such command; did you mean selm plan?"),
        (["plan", "zephyr"], "error: zephyr: no such recipe file (selm --help lists ours)"),
        (
            ["run", "smollm2-135m-instruct/selm"],
            "error: model.name_or_path: models/smollm2-135m-instruct is not there; make it first: "
            "selm get-model",
        ),
    ):
        done = call(selm, tmp_path, *words)
        assert (done.returncode, done.stderr) == (2, f"{said}\n")
    assert not any(tmp_path.iterdir())
