"""The training pairs of each iteration, for the page's third view.

The shape, one entry per iteration:

    label       `iteration 2`
    run         name of the run
    note        a sentence if there are no pairs of its own
    rows        [{id, prompt, chosen, rejected, explored}]; a text is {text, by, score, cut}
    all         how many pairs there are; `rows` may be a part of them
    dropped     [{stage, reason, count, examples: [{id, prompt, texts: [{text, by}]}], first}]

`by` says who wrote a text: the dataset (`dataset's chosen`, `dataset's rejected`) or the policy.
`explored` also has a `role`; its `text` is null where it is the chosen or the rejected one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from selm.data.schemas import PreferenceRow, ResponseRow
from selm.ranking.base import Pool
from selm.ranking.selection import pool_of
from selm.recipe.schema import Recipe
from selm.report.results import Results
from selm.run.stages import describe
from selm.viewer.answers import messages, number, shortened
from selm.viewer.limits import spread

MOST_ROWS = 500  # of an iteration; an iteration of the paper has 20,000
MOST_EXAMPLES = 3  # of a reason
IDENTICAL = "identical_candidates"
WRITERS = {
    "chosen": "dataset's chosen",
    "rejected": "dataset's rejected",
    "policy": "the policy",
    "base": "the base model",
}


def of_run(recipe: Recipe, results: Results) -> list[dict[str, Any]]:
    """The pairs of every iteration, and the rows that gave none."""
    found = []
    for t, iteration in enumerate(recipe.iterations, start=1):
        pairs = results.preferences.get(t)
        note = ""
        if pairs is None:
            note = f"Iteration {t} ({iteration.objective}) trains on the dataset's own pairs."
        found.append(
            {
                "label": f"iteration {t}",
                "run": recipe.run_name,
                "note": note,
                "all": len(pairs or []),
                "rows": _rows(recipe, spread(pairs or [], MOST_ROWS), results.responses.get(t, [])),
                "dropped": _dropped(recipe, results, t),
            }
        )
    return found


def _rows(
    recipe: Recipe, pairs: Sequence[PreferenceRow], responses: Sequence[ResponseRow]
) -> list[dict[str, Any]]:
    by_id = {row["prompt_id"]: row for row in responses}
    found = []
    for pair in pairs:
        row = by_id.get(pair["prompt_id"])
        pool = None if row is None else pool_of(row, recipe.ranking.pool)
        found.append(_row(pair, pool))
    return found


def _row(pair: PreferenceRow, pool: Pool | None) -> dict[str, Any]:
    """A pair with the score and the writer of each of its texts, which are in its pool."""
    facts: dict[str, tuple[str, float | None]] = {}
    if pool is not None and len(pool.candidates) == len(pair["scores"]):
        facts = {
            candidate.text: (WRITERS[candidate.source], score)
            for candidate, score in zip(pool.candidates, pair["scores"], strict=True)
        }

    def side(name: str, text: str) -> dict[str, Any]:
        by, score = facts.get(text, ("", None))
        cut = pair[f"{name}_finish_reason"] == "length"  # type: ignore[literal-required]
        return {"text": shortened(text), "by": by, "score": number(score), "cut": cut}

    explored = side("explored", pair["explored"]) | {"role": pair["explored_role"]}
    if explored["role"] != "neither":
        explored["text"] = None
    return {
        "id": pair["prompt_id"],
        "prompt": messages(pair["prompt"]),
        "chosen": side("chosen", pair["chosen"][0]["content"]),
        "rejected": side("rejected", pair["rejected"][0]["content"]),
        "explored": explored,
    }


def _dropped(recipe: Recipe, results: Results, t: int) -> list[dict[str, Any]]:
    """Every reason for which a stage of the iteration dropped rows, the largest first."""
    found = []
    for (stage, of), manifest in results.manifests.items():
        if of != t or stage not in ("responses", "preferences", "checkpoint"):
            continue
        candidates = _without_a_pair(recipe, results, t) if stage == "preferences" else {}
        firsts = manifest.get("dropped_first", {})
        for reason, count in manifest["dropped"].items():
            rows = _of_reason(candidates, reason, manifest["dropped"])
            rows = rows or _named(firsts.get(reason), results, stage, t)
            found.append(
                {
                    "stage": describe(stage).script,
                    "reason": reason,
                    "count": count,
                    "first": firsts.get(reason, ""),
                    "examples": [_example(recipe, row) for row in rows[:MOST_EXAMPLES]],
                }
            )
    return sorted(found, key=lambda entry: -entry["count"])


def _without_a_pair(recipe: Recipe, results: Results, t: int) -> dict[bool, list[ResponseRow]]:
    """The ranked rows that gave no pair: those with a single candidate (True), and the others."""
    kept = {row["prompt_id"] for row in results.preferences.get(t, [])}
    found: dict[bool, list[ResponseRow]] = {True: [], False: []}
    for row in results.responses.get(t, []):
        if row["prompt_id"] not in kept:
            found[len(pool_of(row, recipe.ranking.pool).candidates) < 2].append(row)
    return found


def _of_reason(
    candidates: Mapping[bool, Sequence[ResponseRow]], reason: str, counts: Mapping[str, int]
) -> Sequence[ResponseRow]:
    """The rows that were dropped for this reason, as far as the artifacts tell.

    A row with a single candidate tells by itself. Of the others only the number is known, so that
    they tell it if there is one reason for all of them.
    """
    if reason == IDENTICAL:
        return candidates.get(True, [])
    others = [name for name in counts if name != IDENTICAL]
    return candidates.get(False, []) if others == [reason] else []


def _named(first: str | None, results: Results, stage: str, t: int) -> Sequence[Any]:
    """The row that the manifest names as the first with this reason (`drops.row_name`)."""
    if not first:
        return []
    rows = results.preferences if stage == "checkpoint" else results.responses
    return [
        row for row in rows.get(t, []) if first.startswith(f"prompt {row['prompt_id'][:40]}, ")
    ][:1]


def _example(recipe: Recipe, row: Any) -> dict[str, Any]:
    if "responses" in row:
        pool = pool_of(row, recipe.ranking.pool)
        texts = [(candidate.text, WRITERS[candidate.source]) for candidate in pool.candidates]
    else:
        texts = [(row[side][0]["content"], side) for side in ("chosen", "rejected")]
    return {
        "id": row["prompt_id"],
        "prompt": messages(row["prompt"]),
        "texts": [{"text": shortened(text), "by": by} for text, by in texts],
    }
