"""The content of a comparison's page: its numbers, and the settings' last answers side by side.

Of a run it needs the evaluations alone, so that runs on the Hub and those whose other artifacts
were deleted are shown, too.
"""

from typing import Any

from selm.compare.metrics import Metrics, last
from selm.compare.page import headline, warnings
from selm.compare.settings import Comparison, Setting
from selm.escape import one_line
from selm.recipe.loading import as_yaml
from selm.report.measures import named
from selm.viewer import answers
from selm.viewer.comparison_charts import charts
from selm.viewer.comparison_tables import tables
from selm.viewer.content import Content
from selm.viewer.several import together


def content(comparison: Comparison, metrics: Metrics) -> Content:
    """The content of a page for all settings.

    Args:
        metrics: what compare.json holds.
    """
    runs = len(comparison.runs)
    title = "Comparison of " + ("1 run" if runs == 1 else f"{runs} runs")
    contents = [_of_setting(comparison, setting) for setting in comparison.settings]
    made = together(
        contents,
        title,
        [one_line(line) for line in (headline(metrics), *warnings(metrics))],
        charts(comparison, metrics),
        tables(comparison, metrics),
    )
    facts = [
        ["rewards given by", metrics["ranker"]],
        ["base model", ", ".join(metrics["base_models"])],
        ["held-out prompts", f"{metrics['prompts']:,}"],
    ]
    return made | {"facts": facts, "left_out": _left_out(comparison)}


def _of_setting(comparison: Comparison, setting: Setting) -> Content:
    """The base model and the last iteration of the setting's first seed."""
    run, t = setting.runs[0], last(comparison, setting)
    prompts = set(comparison.prompts)
    shown = {
        u: [row for row in run.evaluations[u] if row["prompt_id"] in prompts]
        for u in sorted({0, t} & run.evaluations.keys())
    }
    name = one_line(setting.name)
    return {
        "title": name,
        "lines": [],
        "facts": [],
        "policies": [_policy(name, setting, u) for u in shown],
        "charts": [],
        "tables": [],
        "recipe": as_yaml(run.recipe),
        "training": [],
        "answers": answers.of_evaluations(shown),
        "pairs": [],
        "left_out": [],
    }


def _policy(name: str, setting: Setting, t: int) -> dict[str, Any]:
    return {
        "id": str(t),
        "label": named(t),
        "run": name,
        "iteration": t,
        "objective": "base" if t == 0 else setting.runs[0].recipe.iteration(t).objective,
    }


def _left_out(comparison: Comparison) -> list[str]:
    """What of the runs this page does not show, and where it is."""
    shown = [f"{each.name}: {each.runs[0].name}" for each in comparison.settings]
    found = [
        "Answers are those of the base model and of the last iteration, of one run of each setting "
        f"({'; '.join(shown)}). Numbers are of all runs.",
        "Answers of other seeds and iterations, training pairs and curves are in the reports of "
        "the runs.",
    ]
    if comparison.left_out:
        found.append(f"{comparison.left_out:,} prompts that not every evaluation has a reward for.")
    return [one_line(line) for line in (*found, *comparison.without)]
