"""Paths and names of the Hub in a recipe."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selm.recipe.schema import (
    Ranking,
    Recipe,
)
from selm.recipe.section import Section


def with_paths(recipe: Recipe, change: Callable[[str, str], str]) -> Recipe:
    """The recipe with every path of it changed by `change(key, path)`."""

    def changed(key: str, section: Section, *names: str) -> dict[str, Any]:
        values = {name: getattr(section, name) for name in names}
        return {
            name: change(f"{key}{name}", value)
            for name, value in values.items()
            if value is not None
        }

    def with_changes(key: str, section: Any, *names: str) -> Any:
        return section.model_copy(update=changed(f"{key}.", section, *names))

    def ranking(key: str, section: Ranking) -> Ranking:
        names = [] if section.ranker == "judge" else ["name_or_path"]
        update = changed(f"{key}.", section, *names)
        update["judge"] = with_changes(f"{key}.judge", section.judge, "template")
        members = enumerate(section.rankers)
        update["rankers"] = tuple(ranking(f"{key}.rankers.{i}", each) for i, each in members)
        return section.model_copy(update=update)

    judged = recipe.evaluation.ranking
    evaluation = {} if judged is None else {"ranking": ranking("evaluation.ranking", judged)}
    return recipe.model_copy(
        update={
            **changed("", recipe, "output_dir"),
            "model": with_changes("model", recipe.model, "name_or_path", "chat_template"),
            "data": with_changes("data", recipe.data, "name_or_path"),
            "training": with_changes("training", recipe.training, "accelerate_config"),
            "ranking": ranking("ranking", recipe.ranking),
            "evaluation": recipe.evaluation.model_copy(update=evaluation),
        }
    )


_DATA_SUFFIXES = {".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".gz", ".parquet", ".arrow"}


def is_local_path(name_or_path: str) -> bool:
    """True for what must exist on this disk: anything but a Hub id (`name` or `owner/name`)."""
    path = Path(name_or_path)
    looks_local = name_or_path.startswith((".", "/", "~")) or len(path.parts) > 2
    is_data = path.suffix in _DATA_SUFFIXES
    return looks_local or is_data or os.path.exists(path)  # also where a folder may not be read


def is_hub_id(name: str) -> bool:
    """
    >>> [is_hub_id(name) for name in ("gpt2", "me/my-model", "a--b", "-x", "a/b/c")]
    [True, True, False, False, False]
    """
    return bool(_HUB_ID.fullmatch(name)) and not re.search(r"--|\.\.|\.git$", name)


_HUB_ID = re.compile(r"(\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
