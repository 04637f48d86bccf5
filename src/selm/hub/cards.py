"""The cards (README.md) of artifacts on the Hub, made from the files in `templates/`.

A card says how the artifact was made: it uses the manifests, which are pushed too, and the commits
of the artifact's inputs on the Hub (`Sources`).
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import yaml
from huggingface_hub import DatasetCard, DatasetCardData, ModelCard, ModelCardData, constants

from selm.data.drops import in_words
from selm.data.schemas import ARTIFACTS, described
from selm.escape import one_line
from selm.markdown import code, fenced, literal
from selm.recipe.loading import as_yaml
from selm.recipe.places import is_local_path
from selm.recipe.schema import Recipe
from selm.run.stages import describe, name

if TYPE_CHECKING:
    from selm.run.on_hub import Pushed

Manifest = Mapping[str, Any]
Sources = Mapping[str, "Pushed"]  # iter-1/checkpoint -> where it is; the inputs, and theirs

TEMPLATES = Path(__file__).with_name("templates")

TAGS = ["selm", "online-preference-optimization", "arxiv:2405.19332"]

# Between these a model's card has the results of benchmarks, which are measured after the push.
RESULTS_BEGIN, RESULTS_END = "<!-- results of benchmarks -->", "<!-- end of the results -->"

# The values of the training log that a card shows, if they exist.
METRICS = {
    "loss": "loss",
    "loss/dpo": "its preference part",
    "loss/optimism": "its optimism part",
    "rewards/margins": "reward margin, chosen - rejected",
    "rewards/accuracies": "pairs with a positive margin",
    "rewards/explored": "reward of the explored response",
    "grad_norm": "norm of the gradient",
}


def dataset_card(
    recipe: Recipe,
    stage: str,
    iterations: Mapping[int, tuple[Manifest, Sources]],
    has_report: bool,
) -> str:
    """The card of the responses, preferences, answers, evaluations or log-probs of a run.

    Args:
        iterations: t -> manifest and sources of each iteration that the dataset holds.
    """
    ordered = dict(sorted(iterations.items()))
    file = f"{describe(stage).split}.parquet"
    rows = sum(manifest["rows"] for manifest, _ in ordered.values())
    data = DatasetCardData(
        pretty_name=f"{recipe.run_name}: {stage}",
        task_categories=["text-generation"],
        size_categories=[size_category(rows)],
        source_datasets=[recipe.data.name_or_path] if _is_on_hub(recipe.data) else None,
        tags=[*TAGS, "preference"] if stage == "preferences" else TAGS,
        configs=[
            {
                "config_name": "default",
                "data_files": [{"split": f"iter_{t}", "path": f"iter-{t}/{file}"} for t in ordered],
            }
        ],
    )
    card = DatasetCard.from_template(
        data,
        template_path=str(TEMPLATES / "dataset.md"),
        run_name=recipe.run_name,
        stage=stage,
        repo=f"{recipe.hub.namespace}/{recipe.run_name}-{stage}",
        last=max(ordered),
        endpoint=constants.ENDPOINT,
        has_report=has_report,
        columns=described(ARTIFACTS[stage]),
        splits=[how_made(recipe, stage, t, *found) for t, found in ordered.items()],
    )
    return str(card)


def how_made(
    recipe: Recipe, stage: str, t: int, manifest: Manifest, sources: Sources
) -> dict[str, Any]:
    """What the template of a dataset says of one artifact."""
    held_out = describe(stage).split == "test"
    policy = t if held_out else t - 1
    if describe(stage).policy == "initial":
        policy = 0
    settings = _settings(manifest)
    texts = "answers" if held_out else "responses"
    made_from = sources.get(name(str(PurePosixPath(stage).with_name(texts)), t))
    if made_from is not None:
        settings = _settings(json.loads(made_from.manifest)) | settings
    return {
        "iteration": t,
        "rows": manifest["rows"],
        "dropped": _drops(manifest),
        "policy": _policy(recipe, policy, manifest, sources),
        "data": _of_recipe(recipe, "data", manifest, sources),
        "sources": [_link(sources[key]) for key in manifest["inputs"] if key in sources],
        "versions": _versions(manifest),
        "settings": fenced(yaml.safe_dump(settings, sort_keys=False).rstrip(), "yaml"),
        "command": fenced(str(manifest["command"]), "bash"),
    }


def _settings(manifest: Manifest) -> dict[str, Any]:
    """The part of the recipe that decided the rows, without what the card says elsewhere."""
    shown = ("seed", "data", "generation", "ranking", "training", "evaluation", "benchmarks")
    return {key: value for key, value in manifest["recipe"].items() if key in shown}


def model_card(
    recipe: Recipe,
    t: int,
    manifest: Manifest,
    log: Sequence[Mapping[str, float]],
    sources: Sources,
) -> str:
    """The card of iteration t's policy.

    Args:
        log: the trainer's, one dict per logged step.
        sources: among them the preferences and the checkpoint before.
    """
    objective = recipe.iteration(t).objective
    pairs = sources.get(f"iter-{t}/preferences")
    datasets = [pairs.place.repo] if pairs is not None else []
    datasets += [recipe.data.name_or_path] if _is_on_hub(recipe.data) else []
    data = ModelCardData(
        base_model=recipe.model.name_or_path if _is_on_hub(recipe.model) else None,
        datasets=datasets or None,
        tags=[*TAGS, "dpo", "trl", objective.replace("_", "-")],
        library_name="transformers",
        pipeline_tag="text-generation",
    )
    card = ModelCard.from_template(
        data,
        template_path=str(TEMPLATES / "model.md"),
        run_name=recipe.run_name,
        iteration=t,
        iterations=len(recipe.iterations),
        repo=f"{recipe.hub.namespace}/{recipe.run_name}-iter-{t}",
        base=_of_recipe(recipe, "model", manifest, sources),
        parent=_policy(recipe, t - 1, manifest, sources),
        pairs=_link(pairs) if pairs is not None else "the dataset's own pairs",
        data=_of_recipe(recipe, "data", manifest, sources),
        objective=objective,
        alpha=f"{recipe.alpha(t):g}",
        beta=f"{recipe.training.beta:g}",
        rate=f"{recipe.iteration(t).learning_rate:g}",
        rows=manifest["rows"],
        dropped=_drops(manifest),
        metrics=first_and_last(log),
        seconds=manifest["seconds"],
        command=fenced(str(manifest["command"]), "bash"),
        recipe=fenced(as_yaml(recipe).rstrip(), "yaml"),
        versions=_versions(manifest),
        results=f"{RESULTS_BEGIN}\n{RESULTS_END}",
    )
    return str(card)


def first_and_last(log: Sequence[Mapping[str, float]]) -> list[tuple[str, str, str]]:
    """Name, value at the first logged step, value at the last; the closing summary has no loss.

    >>> first_and_last([{"loss": 0.7}, {"loss": 0.65}, {"train_runtime": 9.0}])
    [('loss', '0.7', '0.65')]
    """
    steps = [entry for entry in log if "loss" in entry]
    return [
        (name, f"{steps[0][key]:.4g}", f"{steps[-1][key]:.4g}")
        for key, name in METRICS.items()
        if steps and key in steps[0] and key in steps[-1]
    ]


def figure(measure: Mapping[str, float | None]) -> str:
    """A measure with its standard error, if that is known.

    >>> figure({"value": 24.314, "standard_error": 1.2})
    '24.31 ± 1.20'
    """
    error = measure["standard_error"]
    known = error is not None and math.isfinite(error)
    return f"{measure['value']:.2f}" + (f" ± {error:.2f}" if known else "")


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows.

    >>> size_category(999), size_category(61_135)
    ('n<1K', '10K<n<100K')
    """
    low = ""
    for limit, high in ((10**3, "1K"), (10**4, "10K"), (10**5, "100K"), (10**6, "1M")):
        if rows < limit:
            return f"{low}<n<{high}" if low else f"n<{high}"
        low = high
    return "n>1M"


def _is_on_hub(section: Any) -> bool:
    return not is_local_path(section.name_or_path)


def _of_recipe(recipe: Recipe, which: str, manifest: Manifest, sources: Sources) -> str:
    """The recipe's base `model` or its `data`, with the revision.

    A branch can move; the manifest of the stage that read it names the commit.
    """
    section = {"model": recipe.model, "data": recipe.data}[which]
    repo, revision = section.name_or_path, section.revision
    if not _is_on_hub(section):
        return f"a local folder or file, {code(repo)}"
    manifests = [manifest, *(json.loads(there.manifest) for there in sources.values())]
    commits = [m["revisions"][which] for m in manifests if which in m.get("revisions", {})]
    was = f", which was commit {code(str(commits[0]))}" if commits else ""
    prefix = "datasets/" if which == "data" else ""
    page = f"{constants.ENDPOINT}/{prefix}{quote(repo)}"
    return f"[{literal(repo)}]({page}) at {code(revision)}{was}"


def _policy(recipe: Recipe, t: int, manifest: Manifest, sources: Sources) -> str:
    """Policy t with the commit it has on the Hub; 0 is the base model."""
    if t == 0:
        return _of_recipe(recipe, "model", manifest, sources)
    there = sources.get(f"iter-{t}/checkpoint")
    return f"iteration {t}" if there is None else _link(there)


def _link(there: "Pushed") -> str:
    where, what = there.place, there.place.repo
    prefix = "datasets/" if where.repo_type == "dataset" else ""
    if prefix:
        iteration, *parts = where.folder.split("/")
        config = f"config `{'-'.join(parts)}`, " if parts else ""
        what = f"{where.repo}, {config}split `{iteration.replace('-', '_')}`"
    return (
        f"[{what}]({constants.ENDPOINT}/{prefix}{where.repo}/tree/{there.revision}) at commit "
        f"`{there.revision}`"
    )


def _drops(manifest: Manifest) -> str:
    return literal(in_words(manifest["dropped"])) or "none"


def _versions(manifest: Manifest) -> str:
    versions = {**manifest["versions"], "git commit": manifest["git_commit"]}
    found = (f"{name} {version}" for name, version in versions.items() if version)
    return ", ".join(literal(one_line(text)) for text in found)
