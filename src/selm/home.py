"""Where scripts and recipes lie, and what the commands are called. Imports little.

In a checkout, scripts/, recipes/ and accelerate_configs/ stand beside src/; a wheel has them inside
the package. Who starts with `selm plan` reads `selm generate` in the plan, and works in a folder of
his own; who starts with `python scripts/plan.py` works in the checkout.
"""

import os
import re
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
IS_INSTALLED = (PACKAGE / "scripts").is_dir()
HOME = PACKAGE if IS_INSTALLED else PACKAGE.parents[1]
SCRIPTS = HOME / "scripts"

BY_NAME = "SELM_COMMAND"  # the variable that `selm` sets for all that it starts

_SHIPPED = ("recipes", "accelerate_configs")


def by_name() -> bool:
    """True if commands are called `selm plan`, false if they are `python scripts/plan.py`."""
    return IS_INSTALLED or BY_NAME in os.environ


def words(script: str) -> list[str]:
    """How a script is called: `python scripts/plan.py` or `selm plan`."""
    return ["selm", script] if by_name() else ["python", f"scripts/{script}.py"]


def run_words() -> list[str]:
    """How a whole run is started: `bash scripts/run.sh` or `selm run`."""
    return ["selm", "run"] if by_name() else ["bash", "scripts/run.sh"]


def launched(script: str) -> str:
    """The path of a script for `accelerate launch`."""
    return str(SCRIPTS / f"{script}.py") if by_name() else f"scripts/{script}.py"


def program() -> str | None:
    """`selm plan` for a script's usage line; None where the script's own name is right."""
    return f"selm {Path(sys.argv[0]).stem}" if by_name() else None


def named(text: str) -> str:
    """The text with its commands as they are called here."""
    if not by_name():
        return text
    text = re.sub(r"\b(?:python )?scripts/([a-z]+)\.py\b", r"selm \1", text)
    return re.sub(r"\b(?:bash )?scripts/run\.sh\b", "selm run", text)


def recipe_file(path: str | Path) -> Path:
    """The file of a recipe; `zephyr-7b-sft/selm` is one of ours, seen from any folder."""
    if not os.path.isfile(path) and not os.path.isabs(path):
        for file in (f"{HOME}/recipes/{path}", f"{HOME}/{path}"):
            for found in (file, f"{file}.yaml"):
                if found.endswith(".yaml") and os.path.isfile(found):
                    return Path(found)
    return Path(path)


def recipes() -> list[str]:
    """The names of our recipes: `zephyr-7b-sft/selm`."""
    files = sorted((HOME / "recipes").glob("*/*.yaml"))
    return [f"{file.parent.name}/{file.stem}" for file in files if file.stem != "paper"]


def shipped(path: str) -> str:
    """The path; that of our own file if there is none in the present folder.

    A function's name may follow: `recipes/smollm2-135m-instruct/reward.py:reward`.
    """
    file = path.split(":", 1)[0]
    if path.split("/")[0] in _SHIPPED and not os.path.exists(file):
        return f"{HOME}/{path}" if os.path.exists(f"{HOME}/{file}") else path
    return path


def relative(path: str) -> str:
    """What `shipped` makes this path of, which is the same wherever HOME is."""
    inside = path.removeprefix(f"{HOME}/")
    return inside if shipped(inside) == path else path
