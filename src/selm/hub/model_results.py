"""The results of benchmarks on the card of the model that they measured.

The card's metadata has them as the Hub's `model-index`, and its text as a table. The newer files
`.eval_results/*.yaml` are only for datasets that the Hub lists as benchmarks, on whose public
leaderboards they appear; a recipe's own judge, prompts and limits do not belong there.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import CommitOperationAdd, EvalResult, ModelCard

from selm.hub.cards import RESULTS_BEGIN, RESULTS_END, figure
from selm.huggingface import API, patiently, repo_info
from selm.markdown import code, literal, table
from selm.recipe.schema import Recipe
from selm.run import manifest
from selm.run.on_hub import Place, file, find, place
from selm.run.stages import BENCHMARKS, benchmark_of, entry_of, name

RESULTS = "results.json"


@dataclass(frozen=True)
class Results:
    """The results of one benchmark: their place, and the content of their results.json."""

    place: Place
    content: Mapping[str, Any]


def are_of_a_model(stage: str, t: int | None) -> bool:
    """Whether a stage's artifact belongs on the card of a model of the run."""
    return bool(t) and benchmark_of(stage) is not None and stage.endswith("/results")


def attach(recipe: Recipe, t: int) -> None:
    """Commit the card of policy t with all results that measured it, unless it has them."""
    model = place(recipe, "checkpoint", t)
    there = find(model)
    if there is None:
        return
    checkpoint = there.manifest

    def commit() -> None:
        head = API.repo_info(model.repo)
        has_card = any(sibling.rfilename == "README.md" for sibling in head.siblings or [])
        old = file(model, head.sha, "README.md").read_bytes().decode() if has_card else ""
        new = on_card(old, recipe, t, checkpoint)
        if new != old:
            API.create_commit(
                model.repo,
                [CommitOperationAdd("README.md", new.encode())],
                commit_message=f"iter-{t}: results of benchmarks",
                parent_commit=head.sha,
            )

    patiently(f"writing results to the card of {model.repo}", commit)


def on_card(card: str, recipe: Recipe, t: int, checkpoint: bytes) -> str:
    """A model card with the results on the Hub that measured a checkpoint, and no others of ours.

    Args:
        checkpoint: the manifest of the checkpoint that the card belongs to.
    """
    found = list(of_checkpoint(recipe, t, checkpoint))
    made, repo = ModelCard(card), _repo(recipe)
    others = [e for e in made.data.eval_results or [] if e.dataset_type != repo]
    ours = [entry for results in found for entry in entries(results)]
    if not ours and len(others) == len(made.data.eval_results or []):
        return card
    made.data.eval_results = [*others, *ours] or None
    made.data.model_name = made.data.model_name or f"{recipe.run_name}-iter-{t}"
    before, begin, rest = made.text.partition(RESULTS_BEGIN)
    after = rest.partition(RESULTS_END)[2] if begin else "\n"
    made.text = f"{before}{RESULTS_BEGIN}\n{section(found)}\n{RESULTS_END}{after}"
    return str(made)


def of_checkpoint(recipe: Recipe, t: int, checkpoint: bytes) -> Iterator[Results]:
    """The results of benchmarks on the Hub that measured the checkpoint with this manifest.

    Their manifests lead to it by the hashes of inputs. They need not be tagged: a push commits
    them, writes the model's card, and tags them last.
    """
    repo, wanted = _repo(recipe), hashlib.sha256(checkpoint).hexdigest()
    info = patiently(f"looking for {repo}", lambda: repo_info(repo, "dataset"))
    for path in sorted(s.rfilename for s in info.siblings or []) if info is not None else []:
        iteration, _, inside = path.partition("/")
        if iteration == f"iter-{t}" and inside.endswith(f"/{RESULTS}"):
            stage = f"{BENCHMARKS}/{PurePosixPath(inside).parent}"
            where = place(recipe, stage, t)
            text = file(where, info.sha, RESULTS).read_bytes()
            facts = json.loads(file(where, info.sha, manifest.NAME).read_bytes())
            arrived = hashlib.sha256(text).hexdigest() == facts["files"][RESULTS]["sha256"]
            if arrived and measured(recipe, facts, name("checkpoint", t)) == {wanted}:
                yield Results(where, json.loads(text))


def measured(recipe: Recipe, facts: Mapping[str, Any], checkpoint: str) -> set[str]:
    """The hashes of a checkpoint's manifest that a manifest of results leads to."""
    found = set()
    for key, wanted in facts["inputs"].items():
        stage, t = entry_of(key)
        if key == checkpoint:
            found.add(wanted)
        elif stage != "checkpoint":
            there = find(place(recipe, stage, t))
            if there is not None and hashlib.sha256(there.manifest).hexdigest() == wanted:
                found |= measured(recipe, json.loads(there.manifest), checkpoint)
    return found


def entries(results: Results) -> list[EvalResult]:
    """A benchmark's measures as the Hub's metadata has them, with the judge and the questions."""
    where, content = results.place, results.content
    config = "-".join(where.folder.split("/")[1:])
    return [
        EvalResult(
            task_type="text-generation",
            dataset_type=where.repo,
            dataset_name=content["benchmark"],
            dataset_config=config,
            dataset_split=f"iter_{content['iteration']}",
            dataset_revision=where.tag,
            dataset_args={"questions": content["n"]},
            metric_type=measure,
            metric_name=f"{measure}, {asked(content)}",
            metric_value=found["value"],
            metric_args=_error(found["standard_error"]),
            source_name=f"{where.repo}, {config}",
            source_url=where.url,
        )
        for measure, found in content["measures"].items()
        if math.isfinite(found["value"])
    ]


def _error(standard_error: float | None) -> dict[str, float] | None:
    if standard_error is None or not math.isfinite(standard_error):
        return None
    return {"standard_error": standard_error}


def asked(content: Mapping[str, Any]) -> str:
    """How many questions were asked and who judged: `805 questions, judged by a model`."""
    questions = "1 question" if content["n"] == 1 else f"{content['n']} questions"
    judge = "no judge" if content["judge"] is None else f"judged by {content['judge']}"
    return f"{questions}, {judge}"


def section(found: Sequence[Results]) -> str:
    """The results for readers; empty if there are none."""
    if not found:
        return ""
    contents = [results.content for results in found]
    rows = [
        [of["benchmark"], measure, of["judge"] or "none", str(of["n"]), figure(value)]
        for of in contents
        for measure, value in of["measures"].items()
    ]
    notes = [
        f"- {code(of['benchmark'])}: {literal(note)}" for of in contents for note in of["notes"]
    ]
    where = found[0].place
    return "\n".join(
        [
            "## Benchmarks",
            "",
            table(["benchmark", "measure", "judge", "questions", "value"], rows, left=3),
            "",
            *notes,
            *([""] if notes else []),
            f"Values are given ± their standard errors. The scores of all questions: [{where.repo}]"
            f"({API.endpoint}/datasets/{where.repo}).",
        ]
    )


def _repo(recipe: Recipe) -> str:
    return place(recipe, f"{BENCHMARKS}/any/results", 1).repo
