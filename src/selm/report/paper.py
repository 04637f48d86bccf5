"""The paper's numbers beside a run's own: `paper.yaml` in a recipe's folder."""

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from selm.errors import UserError
from selm.home import recipe_file
from selm.recipe import yaml_tree
from selm.recipe.schema import Recipe
from selm.report.measures import Result

FILE = "paper.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Setup(_Part):
    """How the paper measured a benchmark; None where that is not known or has no meaning.

    Attributes:
        judge: the model's name at its vendor.
        prompts: the program in whose words the judge is asked; a result's `facts` may say so too.
        regularised: the length-controlled win rate is.
        note: a sentence for readers of the report.
    """

    judge: str | None = None
    prompts: str | None = None
    questions: int | None = None
    chat_template: bool | None = None
    regularised: bool | None = None
    note: str | None = None


class Policy(_Part):
    """What the paper says of one policy, under the names of our benchmarks and their measures.

    Attributes:
        name: as in the paper's tables.
        iteration: of the recipes beside the file.
        objective: of that iteration; None for the base model.
        tasks: benchmark -> its headline, and `average`, the mean of all of them.
    """

    name: str
    iteration: int
    objective: str | None = None
    alpaca_eval: dict[str, float] = Field(default_factory=dict)
    mt_bench: dict[str, float] = Field(default_factory=dict)
    tasks: dict[str, float] = Field(default_factory=dict)

    def value(self, benchmark: str, measure: str | None) -> float | None:
        """Its number, if the paper has it; of a task there is one, whatever the measure is."""
        measures = {"alpaca_eval": self.alpaca_eval, "mt_bench": self.mt_bench}.get(benchmark)
        return self.tasks.get(benchmark) if measures is None else measures.get(measure or "")


class Paper(_Part):
    """The file: where the numbers are from, how they were measured, and the policies."""

    source: str
    model: str
    iterations: int
    measured: dict[str, Setup] = Field(default_factory=dict)
    results: tuple[Policy, ...]

    def policy(self, recipe: Recipe, t: int) -> Policy | None:
        """The paper's policy that corresponds to iteration t, by number and objective."""
        objective = None if t == 0 else recipe.iteration(t).objective
        found = (p for p in self.results if (p.iteration, p.objective) == (t, objective))
        return next(found, None)


def beside(recipe_path: str | Path) -> Paper | None:
    """The paper's numbers for the recipes of this folder, if it has a `paper.yaml`.

    Raises:
        UserError: the file is not of this form; the line names the key.
    """
    path = recipe_file(recipe_path).with_name(FILE)
    if not path.is_file():
        return None
    try:
        return Paper.model_validate(yaml_tree.plain(yaml_tree.read(path)))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the file"
        said = first["msg"][0].lower() + first["msg"][1:]
        raise UserError(f"{path}: {key}: {said}; correct it or delete the file") from error


def differences(
    paper: Paper, recipe: Recipe, t: int, benchmark: str, measure: str | None, result: Result
) -> Iterator[str]:
    """Why a measure of iteration t cannot be compared with the paper's; nothing if it can.

    Args:
        measure: its name, None for a task's headline.
    """
    setup = paper.measured.get(benchmark, Setup())
    yield from _of_the_policy(paper, recipe, t)
    if recipe.benchmarks.data is not None:
        yield "the questions of benchmarks.data may be others than the paper's"
    if measure != "length":
        yield from _of_the_judge(setup, result)
    if setup.questions is not None and result["n"] != setup.questions:
        limited = recipe.benchmarks.limit is not None and result["n"] < setup.questions
        why = f" because of benchmarks.limit={recipe.benchmarks.limit}" if limited else ""
        yield f"{result['n']:,} questions{why}, where the paper has {setup.questions:,}"
    own_template = recipe.benchmarks.chat_template
    if setup.chat_template is not None and own_template != setup.chat_template:
        yield f"the chat template is {'on' if own_template else 'off'}, unlike the paper's"
    if setup.regularised and measure == "lc_win_rate" and not is_regularised(result):
        yield "the length-controlled win rate is not regularised, unlike the paper's"


def _of_the_judge(setup: Setup, result: Result) -> Iterator[str]:
    if setup.judge is not None and not _names(result["judge"], setup.judge):
        yield f"another judge, where the paper has {setup.judge}"
    if setup.prompts is not None and result["facts"].get("prompts") != setup.prompts:
        yield f"the judge was asked in other words than {setup.prompts}'s"


def _of_the_policy(paper: Paper, recipe: Recipe, t: int) -> Iterator[str]:
    """What makes it another policy: the base model, and how the data are divided."""
    if Path(recipe.model.name_or_path).name.lower() != Path(paper.model).name.lower():
        yield f"another base model than {paper.model}"
    if t > 0 and len(recipe.iterations) != paper.iterations:
        yield f"iterations: {len(recipe.iterations)}, where the paper has {paper.iterations}"
    if t > 0 and recipe.data.limit is not None:
        yield f"trained on a part of the data (data.limit={recipe.data.limit})"


def _names(judge: str | None, model: str) -> bool:
    """Whether a judge's name has the model's as a whole word.

    >>> [_names(judge, "gpt-4") for judge in ("judge openai/gpt-4", "judge gpt-4-turbo", None)]
    [True, False, False]
    """
    return re.search(rf"(?<![\w.-]){re.escape(model)}(?![\w.-])", judge or "") is not None


def is_regularised(result: Result) -> bool:
    """Whether the fit of the length-controlled win rate was; the result says so if it was not."""
    said = any("not regularised" in note for note in result["notes"])
    return bool(result["facts"].get("regularised", not said))
