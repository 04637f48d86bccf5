"""Runs of a recipe whose artifacts are written by hand, in no time."""

import shutil
from collections.abc import Callable
from pathlib import Path

import yaml

from selm.recipe.loading import load_recipe
from selm.run.plan import Run
from selm.run.stages import stages
from selm.run.writing import writing

REWARD = "def reward(prompt, candidates):\n    return [len(text) for text in candidates]\n"


def runs_in(folder: Path, tiny_recipe: str, tiny_data: str) -> Callable[..., Run]:
    """Overrides in, a run out: two iterations of SELM, its data and its reward in the folder."""
    shutil.copytree(tiny_data, folder / "data")
    (folder / "reward.py").write_text(REWARD, encoding="utf-8")
    tree = yaml.safe_load(Path(tiny_recipe).read_text(encoding="utf-8"))
    tree["data"]["name_or_path"] = str(folder / "data")
    tree["ranking"] |= {"ranker": "function", "name_or_path": f"{folder}/reward.py:reward"}
    tree["output_dir"] = str(folder / "runs")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")

    def make(*overrides: str) -> Run:
        return Run(load_recipe(path, overrides), str(path), overrides)

    return make


def write(run: Run, kind: str, t: int | None, text: str = "content") -> None:
    with writing(run, kind, t) as record:
        (record.folder / "file.txt").write_text(text, encoding="utf-8")
        record.rows, record.dropped = 3, {"tie": 1}


def write_all(run: Run) -> None:
    for kind, t in stages(run.recipe):
        write(run, kind, t)
