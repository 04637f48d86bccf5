"""What the documents say is there is there: commands, paths, recipe keys."""

import ast
import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

from selm.data.schemas import ARTIFACTS, described
from selm.recipe.names import section_keys
from selm.recipe.schema import Recipe

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted(
    str(path.relative_to(REPOSITORY))
    for pattern in ("*.md", "docs/*.md", "recipes/*/README.md")
    for path in REPOSITORY.glob(pattern)
)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_make_command_has_a_target(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    named = set(re.findall(r"(?:^\s*|`)make ([a-z0-9][a-z0-9<>-]*)", text, re.MULTILINE))
    names = ("zephyr", "llama3", "phi3", "qwen3", "smollm2")
    targets = {t.replace("<name>", name) for t, name in product(named, names)}
    for target in sorted(targets):
        done = subprocess.run(
            ["make", "--dry-run", target], cwd=REPOSITORY, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{document}: make {target}: {done.stderr}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_link_and_script_leads_somewhere(document: str) -> None:
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    folder = (REPOSITORY / document).parent
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (folder / link).exists(), f"{document}: {link}"
    for path in re.findall(r"\b((?:scripts|accelerate_configs)/\w+\.(?:py|sh|yaml))\b", text):
        assert (REPOSITORY / path).is_file(), f"{document}: {path}"
    for path in re.findall(r"\b(recipes/[\w-]+/\w+\.(?:py|yaml))\b", text):
        assert (REPOSITORY / path).is_file(), f"{document}: {path}"


MODULES = {path.stem: path for path in (REPOSITORY / "src/selm").rglob("*.py")}
FOLDERS = (
    "accelerate_configs",
    "bench",
    "docs",
    "recipes",
    "requirements",
    "scripts",
    "src",
    "tests",
)
PACKAGES = sorted(path.parent.name for path in (REPOSITORY / "src/selm").glob("*/__init__.py"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_in_code_marks_is_there(document: str) -> None:
    """Paths from the root or from `src/selm`, with dots and stars; not those of a user's files."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    for path in re.findall(r"`([\w./*-]+)`", text):
        first, slash, _ = path.partition("/")
        if slash and first in FOLDERS:
            assert list(REPOSITORY.glob(path.rstrip("/"))), f"{document}: {path}"
        elif slash and first in PACKAGES and path.endswith(".py"):
            assert list((REPOSITORY / "src/selm").glob(path)), f"{document}: {path}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_symbol_in_code_marks_is_where_the_document_says(document: str) -> None:
    """`plan.script`: the module `plan` must define `script`. Keys and file names look alike."""
    text = (REPOSITORY / document).read_text(encoding="utf-8")
    sections = {part for key in section_keys(Recipe) for part in key.split(".")[:-1]}
    suffixes = {"html", "json", "jsonl", "md", "png", "py", "sh", "slurm", "yaml"}
    for module, symbol in re.findall(r"`(?:\w+[/.])*(\w+)\.(_?[a-zA-Z]\w*)(?:\(\))?`", text):
        if module in {*MODULES, *PACKAGES} - sections and symbol not in suffixes:
            defined = names_in(MODULES[module]) if module in MODULES else set()
            assert symbol in defined, f"{document}: {module}.{symbol}"


def names_in(module: Path) -> set[str]:
    """All that a module defines at its top or in its classes."""
    defined: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            defined.add(node.name)
    return defined


def test_the_page_on_recipes_names_every_key() -> None:
    text = (REPOSITORY / "docs/recipes.md").read_text(encoding="utf-8")
    keys = section_keys(Recipe)
    sections = {key.rpartition(".")[0] for key in keys if "." in key}
    for key in set(keys) - sections:
        section, _, name = key.rpartition(".")
        assert f"`{key}`" in text or (f"`{section}." in text and f"`.{name}`" in text), key


def test_the_page_on_artifacts_has_every_column_as_the_schemas_have_it() -> None:
    text = (REPOSITORY / "docs/artifacts.md").read_text(encoding="utf-8")
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(ARTIFACTS)
    for kind, section in sections.items():
        columns = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+) \|$", section, re.MULTILINE)
        assert columns == described(ARTIFACTS[kind])


def test_overrides_beside_ARGS_are_said_and_not_printed() -> None:
    """They would be variables of make, which no recipe sees."""
    for target in ("plan-zephyr-selm", "smollm2-selm", "check-qwen3-dpo"):
        done = subprocess.run(
            ["make", target, "training.alpha=0.5", "seed=7"],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert f'make {target} ARGS="seed=... training.alpha=..."' in done.stderr
        assert "0.5" not in done.stderr


def test_every_target_of_a_recipe_sets_up_first() -> None:
    for target in ("plan-zephyr-selm", "check-zephyr-selm", "zephyr-selm", "push-zephyr-selm"):
        listed = subprocess.run(
            ["make", "-n", target, "ARGS=seed=7", "FOO=1"],
            cwd=REPOSITORY,
            env={key: os.environ[key] for key in os.environ if not key.startswith("MAKE")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert "scripts/setup.sh" in listed.stdout.splitlines()[0]
        assert "seed=7" in listed.stdout.splitlines()[-1]
