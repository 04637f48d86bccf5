"""What a run came to: the numbers of metrics.json, and report.md around them."""

import json
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from selm.data.parquet import read_rows
from selm.data.schemas import EvaluationRow
from selm.escape import cell, code, fenced, literal, visible
from selm.ranking.kinds import in_words
from selm.recipe.loading import as_yaml
from selm.recipe.schema import Recipe
from selm.run import artifacts
from selm.run.stages import STAGES, evaluated_iterations, stages

Metrics = dict[str, Any]
Interval = list[float]

# Their scores have a meaning only beside the base model's response to the same prompt.
PAIRWISE_RANKERS = {"pairrm", "judge", "ensemble"}


@dataclass(frozen=True)
class Results:
    """All of a run that the report reads.

    Attributes:
        evaluations: t -> rows; t = 0 is the base model.
        roles: t -> how often the explored response was `chosen`, `rejected`, `neither`.
        logs: t -> the trainer's log, one dict per logged step.
        manifests: (stage, t) -> manifest, in the order of the plan.
    """

    evaluations: dict[int, list[EvaluationRow]]
    roles: dict[int, Counter[str]]
    logs: dict[int, list[dict[str, float]]]
    manifests: dict[tuple[str, int], dict[str, Any]]


def load(recipe: Recipe) -> Results:
    """Read what the stages wrote; all of it is known to be there."""
    done = [(stage, t) for stage, t in stages(recipe) if t is not None]

    def file(stage: str, t: int, name: str) -> Path:
        return artifacts.file(recipe, stage, t, name)

    return Results(
        evaluations={
            t: read_rows(file("evaluation", t, "test.parquet"))
            for t in evaluated_iterations(recipe)
        },
        roles={
            t: Counter(r["explored_role"] for r in read_rows(file(stage, t, "train.parquet")))
            for stage, t in done
            if stage == "preferences"
        },
        logs={
            t: training_steps(
                json.loads(file(stage, t, "training_log.json").read_text(encoding="utf-8"))
            )
            for stage, t in done
            if stage == "checkpoint"
        },
        manifests={entry: artifacts.read_manifest(recipe, *entry) for entry in done},
    )


def training_steps(log_history: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The entries of single steps; the Trainer's closing summary has no `loss`.

    Without the optimism term (alpha = 0) the loss is DPO's.

    >>> training_steps([{"step": 1, "loss": 0.7}, {"step": 1, "train_runtime": 9.0}])
    [{'loss/dpo': 0.7, 'step': 1, 'loss': 0.7}]
    """
    return [{"loss/dpo": entry["loss"], **entry} for entry in log_history if "loss" in entry]


def bootstrap_ci95(values_N: Sequence[float], resamples: int = 10_000, seed: int = 0) -> Interval:
    """95% percentile bootstrap interval of the mean.

    >>> bootstrap_ci95([0.5, 0.5, 0.5])
    [0.5, 0.5]
    """
    values = np.asarray(values_N, dtype=float)
    generator = np.random.default_rng(seed)
    means = [
        values[generator.integers(values.size, size=values.size)].mean() for _ in range(resamples)
    ]
    return [round(float(bound), 6) for bound in np.percentile(means, [2.5, 97.5])]


def win_rate(rewards_N: Sequence[float], rewards_of_base_N: Sequence[float]) -> float:
    """Share of prompts whose reward beats the base model's; a tie counts one half.

    >>> win_rate([1.0, 0.5, 0.2, 0.9], [0.0, 0.5, 0.4, 0.1])  # win, tie, loss, win
    0.625
    """
    pairs = list(zip(rewards_N, rewards_of_base_N, strict=True))
    return sum((a > b) + 0.5 * (a == b) for a, b in pairs) / len(pairs)


def paired_differences(
    rows: Sequence[EvaluationRow], base: Sequence[EvaluationRow], pairwise: bool
) -> list[float]:
    """Reward minus the base model's for each prompt that both answered, in the order of `rows`.

    Args:
        base: the same of iteration 0, in any order; joined by `prompt_id`.
        pairwise: take the base's score from the same comparison instead.
    """
    if pairwise:
        return [row["reward"] - row["reward_of_base"] for row in rows]
    base_rewards = {row["prompt_id"]: row["reward"] for row in base}
    return [
        row["reward"] - base_rewards[row["prompt_id"]]
        for row in rows
        if row["prompt_id"] in base_rewards
    ]


def metrics(recipe: Recipe, results: Results) -> Metrics:
    """What metrics.json holds; `seconds` are totals by stage, `judge` is who gave the rewards."""
    seconds: Counter[str] = Counter()
    for (stage, _), manifest in results.manifests.items():
        seconds[STAGES[stage].script] += manifest["seconds"]
    pairwise = recipe.held_out_ranking().ranker in PAIRWISE_RANKERS
    base = results.evaluations[0]
    entries = [
        {"iteration": t, "objective": "base" if t == 0 else recipe.iteration(t).objective}
        | _measures(rows, base if t > 0 else None, pairwise)
        for t, rows in results.evaluations.items()
    ]
    return {
        "run_name": recipe.run_name,
        "ranker": recipe.ranking.ranker,
        "judge": recipe.held_out_ranking().ranker,
        "model": recipe.model.name_or_path,
        "seconds": {stage: round(total, 1) for stage, total in seconds.items()},
        "iterations": entries,
    }


def _measures(
    rows: Sequence[EvaluationRow], base: Sequence[EvaluationRow] | None, pairwise: bool
) -> Metrics:
    """One iteration's numbers; those against the base model are None for the base itself."""
    rewards = [row["reward"] for row in rows]
    found: Metrics = {
        "reward_mean": round(float(np.mean(rewards)), 6),
        "reward_ci95": bootstrap_ci95(rewards),
        "win_rate_vs_base": None,
        "paired_difference_vs_base": None,
        "paired_difference_ci95": None,
        "response_tokens_mean": round(float(np.mean([row["num_tokens"] for row in rows])), 2),
        "n": len(rows),
    }
    if base is not None:
        differences = paired_differences(rows, base, pairwise)
        wins = win_rate(rewards, [row["reward_of_base"] for row in rows])
        found["win_rate_vs_base"] = round(wins, 6)
        found["paired_difference_vs_base"] = round(float(np.mean(differences)), 6)
        found["paired_difference_ci95"] = bootstrap_ci95(differences)
    return found


def headline(metrics: Metrics) -> str:
    """One line: the base model's reward, the last iteration's, and what lies between them."""
    base, last = metrics["iterations"][0], metrics["iterations"][-1]
    low, high = last["paired_difference_ci95"]
    return (
        f"mean held-out reward {base['reward_mean']:.3f} (base) -> {last['reward_mean']:.3f} "
        f"(iteration {last['iteration']}), paired difference "
        f"{last['paired_difference_vs_base']:+.3f}, 95% interval [{low:+.3f}, {high:+.3f}], "
        f"n = {last['n']}"
    )


def verdict(low: float, high: float) -> str:
    """What a 95% interval of the paired difference allows to say."""
    if low > 0:
        return "The policy is better than the base model."
    if high < 0:
        return "The policy is worse than the base model."
    return "The interval contains zero: no difference from the base model is shown."


def markdown(recipe: Recipe, metrics: Metrics, results: Results) -> str:
    """report.md; the pictures lie beside it."""
    sections = [
        f"# {recipe.run_name}",
        f"{headline(metrics)}. {verdict(*metrics['iterations'][-1]['paired_difference_ci95'])}",
        _picture("mean held-out reward over iterations", "reward_mean.png"),
        f"Model: {code(recipe.model.name_or_path)}. Data: {code(recipe.data.name_or_path)}. "
        f"Pairs ranked by: {metrics['ranker']}. Rewards given by: {metrics['judge']}.",
        "## Iterations",
        _iteration_table(metrics),
        "Rewards are of greedy answers to held-out prompts. Intervals: 95%, bootstrap over "
        "prompts, 10,000 resamples. Win rate: share of prompts with a reward above the base "
        "model's, ties one half.",
        "## Rewards and lengths",
        _picture("distribution of held-out rewards", "rewards.png"),
        _picture("distribution of response lengths", "lengths.png"),
        *_ranking_sections(results),
        "## Training",
        _picture("training curves", "training.png"),
        "## Three prompts",
        *_example_sections(results.evaluations),
        "## Stages",
        _stage_table(results.manifests),
        "## How it was made",
        _version_table(results.manifests),
        "The recipe, resolved:",
        fenced(as_yaml(recipe).rstrip(), "yaml"),
    ]
    return "\n\n".join(sections) + "\n"


def _picture(text: str, file: str) -> str:
    return f"![{text}]({file})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """A Markdown table whose columns also line up as plain text; the first `left` align left.

    >>> print(table(["word", "n"], [["a|b", "12"]]))
    | word |  n |
    | ---- | -: |
    | a\\|b | 12 |
    """
    cells = [[cell(text) for text in row] for row in [header, *rows]]
    widths = [max(2, *map(len, column)) for column in zip(*cells, strict=True)]
    sides: list[Callable[..., str]] = [
        str.ljust if i < left else str.rjust for i in range(len(widths))
    ]
    rule = ["-" * w if i < left else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    lines = [
        [side(cell, width) for cell, side, width in zip(row, sides, widths, strict=True)]
        for row in cells
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def wrapped(text: str, width: int = 96) -> str:
    """Each line of the text broken at spaces; its own newlines stay."""
    return "\n".join(
        textwrap.fill(line, width, replace_whitespace=False) for line in text.strip().split("\n")
    )


def iteration_label(entry: Mapping[str, Any]) -> str:
    """`base` or `2 (selm)`."""
    return "base" if entry["iteration"] == 0 else f"{entry['iteration']} ({entry['objective']})"


def _iteration_table(metrics: Metrics) -> str:
    header = ["iteration", "reward", "95% interval", "win rate vs. base"]
    header += ["difference from base", "95% interval", "tokens", "n"]
    rows = []
    for entry in metrics["iterations"]:
        low, high = entry["reward_ci95"]
        row = [iteration_label(entry), f"{entry['reward_mean']:.3f}", f"{low:.3f} to {high:.3f}"]
        row += ["", "", ""]
        if entry["iteration"] > 0:
            low, high = entry["paired_difference_ci95"]
            difference = f"{entry['paired_difference_vs_base']:+.3f}"
            row[3:] = [f"{entry['win_rate_vs_base']:.1%}", difference, f"{low:+.3f} to {high:+.3f}"]
        rows.append([*row, f"{entry['response_tokens_mean']:.1f}", str(entry["n"])])
    return table(header, rows)


def ranking_summaries(results: Results) -> dict[int, dict[str, Any]]:
    """t -> what its ranking came to (`selm.ranking.summary`); empty where nothing was ranked."""
    manifests = results.manifests.items()
    return {t: manifest["summary"] for (stage, t), manifest in manifests if stage == "preferences"}


def _ranking_sections(results: Results) -> list[str]:
    """Whether exploration pays, and what kind of ranker it was."""
    summaries = ranking_summaries(results)
    if not summaries:
        return []
    return [
        "## Ranking",
        "The explored response is the policy's own. Its role in its preference pair:",
        _role_table(results.roles),
        "How often the ranker put it above the dataset's responses (ties count one half), and the "
        "correlation of score with length in characters, within prompts:",
        _explored_table(summaries),
        _picture("distribution of the ranker's scores", "scores.png"),
        *_agreement_section(summaries),
        *_ranker_facts(results.manifests),
    ]


def _role_table(roles: Mapping[int, Counter[str]]) -> str:
    names = ("chosen", "rejected", "neither")
    rows = [
        [str(t), *(f"{count[name] / count.total():.1%}" for name in names), str(count.total())]
        for t, count in roles.items()
    ]
    return table(["iteration", *names, "pairs"], rows)


def _explored_table(summaries: Mapping[int, Mapping[str, Any]]) -> str:
    header = ["iteration", "above chosen", "above rejected", "score and length", "rows"]
    rows = []
    for t, found in summaries.items():
        shares = [_share_won(found["explored_against"].get(s)) for s in ("chosen", "rejected")]
        correlation = found["length_correlation"]
        length = "undefined" if correlation is None else f"{correlation:+.2f}"
        rows.append([str(t), *shares, length, str(found["rows"])])
    return table(header, rows)


def _share_won(counts: Mapping[str, int] | None) -> str:
    if counts is None:
        return "not in the pool"
    return f"{(counts['won'] + 0.5 * counts['tied']) / sum(counts.values()):.1%}"


def _agreement_section(summaries: Mapping[int, Mapping[str, Any]]) -> list[str]:
    rows = [
        [*found["rankers"], str(t), f"{found['alike'] / found['pairs']:.1%}", str(found["pairs"])]
        for t, summary in summaries.items()
        for found in summary["agreement"]
    ]
    if not rows:
        return []
    return [
        "Agreement: of the pairs of candidates that both put in an order, the share put in the "
        "same one; one half is chance. The dataset's order is chosen above rejected.",
        table(["ranker", "and", "iteration", "agree", "pairs"], rows, left=2),
    ]


def _ranker_facts(manifests: Mapping[tuple[str, int], Mapping[str, Any]]) -> list[str]:
    """What rankers counted: verdicts, tokens, texts cut."""
    rows = [
        [STAGES[stage].script, str(t), in_words(manifest["rankers"])]
        for (stage, t), manifest in manifests.items()
        if manifest.get("rankers")
    ]
    return [table(["stage", "iteration", "what the ranker counted"], rows, left=3)] if rows else []


def spread_ids(ids: Sequence[str], count: int = 3) -> list[str]:
    """`count` ids at even distances in sorted order: a choice that nobody makes.

    >>> spread_ids(["f", "e", "d", "c", "b", "a"])
    ['b', 'd', 'f']
    """
    ordered = sorted(set(ids))
    picks = {(2 * k + 1) * len(ordered) // (2 * count) for k in range(count)}
    return [ordered[i] for i in sorted(picks)]


def _example_sections(evaluations: Mapping[int, Sequence[EvaluationRow]]) -> list[str]:
    by_id = {t: {row["prompt_id"]: row for row in rows} for t, rows in evaluations.items()}
    answered_by_all = set.intersection(*(set(rows) for rows in by_id.values()))
    sections = ["At even distances in the order of their ids, with the greedy answers to them."]
    for number, prompt_id in enumerate(spread_ids(list(answered_by_all)), start=1):
        answers = {t: rows[prompt_id] for t, rows in by_id.items()}
        sections += [f"### Prompt {number}", quoted(literal(_prompt_text(answers[0]["prompt"])))]
        for t, row in answers.items():
            who = "base" if t == 0 else f"iteration {t}"
            cut = ", cut at the limit" if row["finish_reason"] == "length" else ""
            facts = f"reward {row['reward']:.3f}, {row['num_tokens']} tokens{cut}"
            sections += [f"**{who}** ({facts})", fenced(wrapped(visible(row["response"])))]
    return sections


def _prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """The words of a single user turn; with roles where there are more turns."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def quoted(text: str) -> str:
    """A block quote with the text's line breaks (two spaces at a line's end keep one).

    >>> quoted("a\\nb")
    '> a  \\n> b'
    """
    return "  \n".join(f"> {line}".rstrip() for line in text.strip().split("\n"))


def _stage_table(manifests: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    rows = []
    for (stage, t), manifest in manifests.items():
        drops = ", ".join(f"{count} {reason}" for reason, count in manifest["dropped"].items())
        tokens = f"{manifest['tokens']:,}" if manifest["tokens"] else ""
        facts = [f"{manifest['seconds']:,.1f}", tokens, f"{manifest['rows']:,}", drops or "none"]
        rows.append([STAGES[stage].script, str(t), *facts])
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    rows.append(["all", "", f"{seconds:,.1f}", "", "", ""])
    return table(["stage", "iteration", "seconds", "tokens", "rows", "dropped rows"], rows)


def _version_table(manifests: Mapping[tuple[str, int], Mapping[str, Any]]) -> str:
    """Each package's version; several where stages ran with different ones."""
    found: dict[str, list[str]] = {}
    for manifest in manifests.values():
        commit = manifest["git_commit"] or "not a git checkout"
        for name, version in {"git commit": commit, **manifest["versions"]}.items():
            versions = found.setdefault(name, [])
            if version not in versions:
                versions.append(version)
    return table(["what", "version"], [[k, ", ".join(v)] for k, v in found.items()], left=2)
