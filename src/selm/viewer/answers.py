"""The held-out prompts and every policy's answers to them, for the page's second view.

The shape:

    columns     ids of the policies, in the order of each prompt's `answers`
    baselines   the columns of base models, which gains are counted from
    prompts     [{id, prompt: [{role, content}], answers: [answer or null]}]

An answer is {text, reward, base, tokens, cut, said}. `base` is the reward of the base model's
answer in the same comparison, so that `reward - base` has a meaning for every kind of ranker; `cut`
is true of an answer that reached the limit. `said` are the verdicts of judges against the base
model's answer, those of the rewards' ranker in both orders, and those of a benchmark that compares
iterations: {who, shown: "first", "second" or "", outcome: "won", "lost", "tied" or a reason, text}.
"""

import json
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from selm.data.schemas import BenchmarkRow, EvaluationRow, Message
from selm.ranking.base import Said
from selm.report import win_rates
from selm.report.results import Results

MOST_CHARACTERS = 200_000  # of one text; a longer one is cut and says so


def of_run(results: Results) -> dict[str, Any]:
    """All held-out prompts of a run, with what judges said of the answers."""
    said = _compared(results)
    for t, of_prompts in results.said.items():
        for prompt_id, found in of_prompts.items():
            said[t, prompt_id] = [*map(_said, found), *said.get((t, prompt_id), [])]
    return of_evaluations(results.evaluations, said)


def of_evaluations(
    evaluations: Mapping[int, Sequence[EvaluationRow]],
    said: Mapping[tuple[int, str], Sequence[dict[str, str]]] = MappingProxyType({}),
) -> dict[str, Any]:
    """All held-out prompts in the order in which they were first answered.

    Args:
        evaluations: t -> rows; t = 0 is the base model.
        said: (t, prompt_id) -> verdicts.
    """
    columns = sorted(evaluations)
    by_id = {t: {row["prompt_id"]: row for row in rows} for t, rows in evaluations.items()}
    prompts: dict[str, Sequence[Message]] = {}
    for t in columns:
        for row in evaluations[t]:
            prompts.setdefault(row["prompt_id"], row["prompt"])
    return {
        "columns": [str(t) for t in columns],
        "baselines": [n for n, t in enumerate(columns) if t == 0],
        "prompts": [
            {
                "id": prompt_id,
                "prompt": messages(prompt),
                "answers": [
                    _answer(by_id[t].get(prompt_id), said.get((t, prompt_id), [])) for t in columns
                ],
            }
            for prompt_id, prompt in prompts.items()
        ],
    }


def _compared(results: Results) -> dict[tuple[int, str], list[dict[str, str]]]:
    """(t, prompt_id) -> verdicts of benchmarks that set iterations against the base model.

    The rows of another benchmark, or those about other prompts, have ids of their own.
    """
    found: dict[tuple[int, str], list[dict[str, str]]] = {}
    for name, of_benchmark in results.benchmark_rows.items():
        if not win_rates.is_matrix(results.benchmarks.get(name, {})):
            continue
        for t, rows in of_benchmark.items():
            who = f"{results.benchmarks[name][t]['judge']}, in {name}"
            for row in rows:
                if row["part"] == "0":
                    found.setdefault((t, row["prompt_id"]), []).append(_verdict(row, who))
    return found


def _verdict(row: BenchmarkRow, who: str) -> dict[str, str]:
    """The score is the share of the policy: above one half it won."""
    details = json.loads(row["details"])
    outcome = "won" if row["score"] > 0.5 else "lost" if row["score"] < 0.5 else "tied"
    shown = {"policy": "first", "other": "second"}.get(details.get("shown_first"), "")
    return {"who": who, "shown": shown, "outcome": outcome, "text": details.get("said") or ""}


def _answer(row: EvaluationRow | None, said: Sequence[dict[str, str]]) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "text": shortened(row["response"]),
        "reward": number(row["reward"]),
        "base": number(row["reward_of_base"]),
        "tokens": row["num_tokens"],
        "cut": row["finish_reason"] == "length",
        "said": list(said),
    }


def _said(one: Said) -> dict[str, str]:
    """A verdict from the side of the policy, which is the pool's first candidate."""
    outcome = {0: "won", 1: "lost"}.get(-1 if one.winner is None else one.winner)
    if outcome is None:
        outcome = "tied" if one.outcome == "tie" else one.outcome
    shown = "first" if one.first_shown == 0 else "second"
    return {"who": one.who, "shown": shown, "outcome": outcome, "text": one.text}


def messages(prompt: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Role and text of each turn; what else a turn holds, such as calls, has no place here."""
    return [{"role": turn["role"], "content": shortened(turn["content"] or "")} for turn in prompt]


def number(value: float | None, digits: int = 6) -> float | None:
    """A number that JSON can write; None for one that is none."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def shortened(text: str) -> str:
    """The text, or the start of a very long one with the number of characters that are missing.

    >>> shortened("x" * (MOST_CHARACTERS + 5))[-40:]
    'xxxx\\n[... 5 characters are left out ...]'
    """
    more = len(text) - MOST_CHARACTERS
    if more <= 0:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[... {more:,} characters are left out ...]"
