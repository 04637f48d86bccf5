"""What report.html shows, as plain values: everything of a run that is worth a look.

The shape, which the page's scripts read (`static/`); all values are such as JSON has:

    title       the name of the run, or of the runs that are compared
    lines       sentences for the top of the page
    facts       [name, value] pairs: the model, the data, who ranked
    policies    [{id, label, run, iteration, objective}], the columns of everything else
    charts      of the overview, see `charts.py`
    tables      of the overview, see `tables.py`
    recipe      the recipe as YAML
    training    charts of curves
    answers     see `answers.py`
    pairs       one entry per iteration, see `pairs.py`
    left_out    sentences: what does not fit into the page

A page of several runs has the same shape (`several.py`): their policies one after another, each
with its own `run`, and the charts, tables, answers and pairs of all of them.
"""

from typing import Any

from selm.recipe.loading import as_yaml
from selm.recipe.schema import Recipe
from selm.report.measures import named
from selm.report.metrics import Metrics, headline
from selm.report.paper import Paper
from selm.report.paper_tables import View
from selm.report.results import Results
from selm.report.statistics import conclusion
from selm.viewer import answers, charts, pairs, tables

Content = dict[str, Any]


def content(
    recipe: Recipe, metrics: Metrics, results: Results, paper: Paper | None = None
) -> Content:
    """The content of a run's page.

    Args:
        metrics: those of metrics.json.
        paper: the numbers to set beside those of benchmarks (`selm.report.paper.beside`).
    """
    view = View(recipe, {name: of for name, of in results.benchmarks.items() if of}, paper)
    return {
        "title": recipe.run_name,
        "lines": [
            f"{headline(metrics)}.",
            conclusion(metrics["iterations"][-1]["paired_difference_ci95"]),
        ],
        "facts": [
            ["model", recipe.model.name_or_path],
            ["data", recipe.data.name_or_path],
            ["pairs ranked by", metrics["ranker"]],
            ["rewards given by", metrics["judge"]],
        ],
        "policies": policies(metrics),
        "charts": charts.overview(metrics, results, view),
        "tables": tables.overview(metrics, results, view),
        "recipe": as_yaml(recipe),
        "training": charts.training(results.logs),
        "answers": answers.of_run(results),
        "pairs": pairs.of_run(recipe, results),
        "left_out": [],
    }


def policies(metrics: Metrics) -> list[dict[str, Any]]:
    """The policies that answered the held-out prompts, the base model first."""
    return [
        {
            "id": str(entry["iteration"]),
            "label": named(entry["iteration"]),
            "run": metrics["run_name"],
            "iteration": entry["iteration"],
            "objective": entry["objective"],
        }
        for entry in metrics["iterations"]
    ]
