"""report.md: tables, figures and examples of a run, and how it was made."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from selm.data import drops
from selm.data.schemas import EvaluationRow
from selm.escape import visible
from selm.markdown import code, fenced, literal, quoted, table, wrapped
from selm.ranking.kinds import in_words
from selm.recipe.loading import as_yaml
from selm.recipe.schema import Recipe
from selm.report import benchmarks
from selm.report.metrics import Metrics, headline
from selm.report.paper import Paper
from selm.report.results import Results
from selm.report.statistics import conclusion, interval_text
from selm.run.stages import describe

Manifests = Mapping[tuple[str, int], Mapping[str, Any]]


def page(recipe: Recipe, metrics: Metrics, results: Results, paper: Paper | None = None) -> str:
    """The text of report.md; the figures are beside it.

    Args:
        paper: the numbers to set beside those of benchmarks (`selm.report.paper.beside`).
    """
    sections = [
        f"# {recipe.run_name}",
        *_unfinished(recipe, results),
        f"{headline(metrics)}. {conclusion(metrics['iterations'][-1]['paired_difference_ci95'])}",
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
        *benchmarks.sections(recipe, results.benchmarks, paper),
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


def _unfinished(recipe: Recipe, results: Results) -> list[str]:
    found = so_far(recipe, results)
    if found is None:
        return []
    return [f"**{found.capitalize()}.** The run goes on; each evaluation writes this page again."]


def so_far(recipe: Recipe, results: Results) -> str | None:
    """`iterations 0 to 1 of 3`; None for a whole run."""
    last, all_of_them = max(results.evaluations), len(recipe.iterations)
    return None if last == all_of_them else f"iterations 0 to {last} of {all_of_them}"


def _picture(text: str, file: str) -> str:
    return f"![{text}]({file})"


def _iteration_table(metrics: Metrics) -> str:
    header = ["iteration", "reward", "95% interval", "win rate vs. base"]
    header += ["difference from base", "95% interval", "tokens", "n"]
    rows = []
    for entry in metrics["iterations"]:
        t = entry["iteration"]
        rows.append([f"{t} ({entry['objective']})" if t > 0 else "base", *iteration_cells(entry)])
    return table(header, rows)


def iteration_cells(entry: Metrics) -> list[str]:
    """Reward, its interval, win rate, difference from the base model, its interval, tokens, n.

    Those against the base model are empty for the base model itself.
    """
    against_base = ["", "", ""]
    if entry["iteration"] > 0:
        against_base = [
            f"{entry['win_rate_vs_base']:.1%}",
            f"{entry['paired_difference_vs_base']:+.3f}",
            interval_text(entry["paired_difference_ci95"], "+"),
        ]
    reward = [f"{entry['reward_mean']:.3f}", interval_text(entry["reward_ci95"])]
    return [*reward, *against_base, f"{entry['response_tokens_mean']:.1f}", str(entry["n"])]


def _ranking_sections(results: Results) -> list[str]:
    """Whether exploration helps, and what the ranker prefers."""
    summaries = results.summaries
    if not summaries:
        return []
    return [
        "## Ranking",
        "The explored response is the policy's own; with XPO's optimism it is the base model's. "
        "Its role in its preference pair:",
        _role_table(results.roles),
        "How often the ranker put the policy's own above the dataset's responses (ties count one "
        "half), and the correlation of score with length in characters, within prompts:",
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


def _ranker_facts(manifests: Manifests) -> list[str]:
    """What rankers counted: verdicts, tokens, truncated texts."""
    rows = [
        [describe(stage).script, str(t), in_words(manifest["rankers"])]
        for (stage, t), manifest in manifests.items()
        if manifest.get("rankers")
    ]
    return [table(["stage", "iteration", "what the ranker counted"], rows, left=3)] if rows else []


def spread_ids(ids: Sequence[str], count: int = 3) -> list[str]:
    """`count` ids at even distances in sorted order, so that nobody selects them.

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
            cut = ", truncated at the limit" if row["finish_reason"] == "length" else ""
            facts = f"reward {row['reward']:.3f}, {row['num_tokens']} tokens{cut}"
            sections += [f"**{who}** ({facts})", fenced(wrapped(visible(row["response"])))]
    return sections


def _prompt_text(messages: Sequence[Mapping[str, str]]) -> str:
    """The text of a single user turn; several turns have their roles."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _stage_table(manifests: Manifests) -> str:
    rows = []
    for (stage, t), manifest in manifests.items():
        tokens = f"{manifest['tokens']:,}" if manifest["tokens"] else ""
        facts = [f"{manifest['seconds']:,.1f}", tokens, f"{manifest['rows']:,}"]
        dropped = drops.in_words(manifest["dropped"]) or "none"
        rows.append([describe(stage).script, str(t), *facts, dropped])
    seconds = sum(manifest["seconds"] for manifest in manifests.values())
    rows.append(["all", "", f"{seconds:,.1f}", "", "", ""])
    return table(["stage", "iteration", "seconds", "tokens", "rows", "dropped rows"], rows)


def _version_table(manifests: Manifests) -> str:
    """Each package's version, or several if stages ran with different ones."""
    found: dict[str, dict[str, None]] = {}  # dicts as sets that keep their order
    for manifest in manifests.values():
        commit = manifest["git_commit"] or "not a git checkout"
        for name, version in {"git commit": commit, **manifest["versions"]}.items():
            found.setdefault(name, {})[version] = None
    return table(["what", "version"], [[k, ", ".join(v)] for k, v in found.items()], left=2)
