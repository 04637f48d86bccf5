"""What the checks read; each part is loaded when a check first needs it."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from transformers import PretrainedConfig

from selm.data.drops import Drops, in_words, row_name
from selm.data.portions import held_out_portion, sample_rows, training_portion
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.home import by_name, recipe_file, relative
from selm.model import loading
from selm.model.chat import Chat, prompt_ids_of
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.plan import Run

SAMPLE_ROWS = 200


@dataclass(frozen=True)
class Preflight:
    """A run before its first stage."""

    run: Run

    def __post_init__(self) -> None:
        """UserError for a model of our recipes that has not been made: the Hub has none like it."""
        name, script = (
            self.recipe.model.name_or_path,
            recipe_file(self.run.path).with_name("get_model.py"),
        )
        if name == f"models/{script.parent.name}" and script.is_file() and not Path(name).exists():
            how = "selm get-model" if by_name() else f"python {relative(str(script))}"
            raise UserError(f"model.name_or_path: {name} is not there; make it first: {how}")

    @property
    def recipe(self) -> Recipe:
        return self.run.recipe

    @cached_property
    def chat(self) -> Chat:
        return load_chat(self.recipe.model.name_or_path, self.recipe.model)

    @cached_property
    def config(self) -> PretrainedConfig:
        return loading.load_config(self.recipe.model.name_or_path, self.recipe.model)

    @cached_property
    def sample(self) -> tuple[list[DatasetRow], Drops]:
        """The first rows."""
        return sample_rows(self.recipe, "train", SAMPLE_ROWS)

    @cached_property
    def taken(self) -> tuple[list[DatasetRow], Drops]:
        """The rows of the sample that the chat template accepts; stages drop the others, too."""
        rows, dropped = [], Drops()
        for row in self.sample[0]:
            ids = prompt_ids_of(self.chat, row)
            if isinstance(ids, str):
                dropped.add(ids, row_name(row))
            else:
                rows.append(row)
        if not rows:
            raise UserError(
                f"model.chat_template: it refuses all of the first {sum(dropped.values())} "
                f"prompts: {in_words(dropped)}"
            )
        return rows, dropped

    @cached_property
    def portions(self) -> list[tuple[list[DatasetRow], Drops]]:
        """All training rows, by iteration."""
        iterations = range(1, len(self.recipe.iterations) + 1)
        return [training_portion(self.recipe, t) for t in iterations]

    @cached_property
    def held_out(self) -> tuple[list[DatasetRow], Drops]:
        return held_out_portion(self.recipe)
