"""report.md of a comparison: what can be told apart, tables, figures, how it was made."""

from collections.abc import Mapping, Sequence
from typing import Any

from selm.compare import tables
from selm.compare.metrics import Metrics
from selm.compare.settings import Comparison
from selm.compare.tables import Table, is_noise
from selm.markdown import code, literal, table
from selm.report.statistics import Interval


def page(
    comparison: Comparison, metrics: Metrics, figures: Sequence[tuple[str, str]], command: str
) -> str:
    """The text of report.md.

    Args:
        figures: file and caption of each, in order; they are beside the page.
        command: the line that made it.
    """
    runs = len(metrics["runs"])
    sections = [
        "# Comparison of " + ("1 run" if runs == 1 else f"{runs} runs"),
        literal(headline(metrics)),
        *map(literal, warnings(metrics)),
        f"Rewards given by: {code(metrics['ranker'])}. Base model: "
        f"{', '.join(map(code, metrics['base_models']))}. {metrics['prompts']} held-out prompts"
        f"{_left_out(metrics)}.",
        "## Settings",
        _markdown(tables.settings(metrics)),
        *(f"![{literal(caption)}]({file})" for file, caption in figures),
        *_differences(metrics),
        *_matrix(metrics),
        *_alpha(metrics),
        "## How the intervals are made",
        HOW,
        "## Runs",
        _markdown(tables.runs(metrics)),
        *(f"- {literal(line)}" for line in metrics["without"]),
        "## How it was made",
        _markdown(tables.versions(comparison)),
        f"This report: {code(command)}",
        "The last evaluation of each run:",
        *_commands(comparison),
    ]
    return "\n\n".join(sections) + "\n"


HOW = (
    "95%. All seeds of a setting answer the same prompts: the variance of seeds, of prompts and "
    "of what is left is estimated by a two-way analysis of variance, and the interval is "
    "Student's t (`compare/seeds.py`). Differences are paired by prompt, and by seed where both "
    "settings have the same seeds. In simulations 93 to 97 of 100 such intervals hold the truth "
    "with 3 seeds or more (92 at worst); with 2 seeds, 87 to 97. With 1 seed an "
    "interval shows the prompts' variance alone: another seed could lie outside. Intervals are "
    "not widened for the number of pairs: of 20 differences that are zero, one interval on "
    "average does not contain zero. "
    "Win rates count all pairs of seeds, ties one half."
)


def best(metrics: Metrics) -> Metrics | None:
    """The setting with the highest mean reward after its last iteration; None if none trained."""
    trained = [each for each in metrics["settings"] if _last(each).get("iteration", 0) > 0]
    return max(trained, key=lambda each: _last(each)["reward_mean"], default=None)


def headline(metrics: Metrics) -> str:
    """What can be told apart and what cannot, in a line or two."""
    first = best(metrics)
    if first is None:
        return "Only the base model was evaluated: there is nothing to compare."
    reward = _last(first)
    said = (
        f"{first['name']}: mean held-out reward {reward['reward_mean']:.3f}"
        f"{_within(reward['reward_ci95'])} after iteration {reward['iteration']} "
        f"({_count(reward['seeds'], 'seed')}, {_count(reward['prompts'], 'prompt')})"
    )
    others = [each for each in metrics["settings"] if each is not first]
    gaps = [(each["name"], _gap(metrics, first["name"], each["name"])) for each in others]
    known = [(name, gap) for name, gap in gaps if gap is not None]
    against_base = _against_base(reward)
    if not known:
        return f"{said}. {against_base}".strip()
    near = [name for name, gap in known if is_noise(gap[1])]
    far = [name for name, gap in known if not is_noise(gap[1])]
    parts = [f"The highest mean: {said}."]
    if near:
        shown = _and([f"{name} ({_signed(*dict(known)[name])})" for name in near])
        parts.append(f"It cannot be told apart from {shown}.")
    if far:
        shown = _and([f"{name} ({_signed(*dict(known)[name])})" for name in far])
        parts.append(f"It is better than {shown}.")
    return " ".join([*parts, against_base]).strip()


def conclusion(metrics: Metrics) -> str:
    """The best setting and whether it is distinguishable, short, for the terminal."""
    first = best(metrics)
    if first is None:
        return "only the base model was evaluated"
    reward = _last(first)
    said = f"{first['name']} has the highest mean held-out reward, {reward['reward_mean']:.3f}"
    if len(metrics["settings"]) == 1:
        said = f"{first['name']}: mean held-out reward {reward['reward_mean']:.3f}"
        return f"{said}{_within(reward['reward_ci95'])}"
    gaps = [
        (each["name"], gap)
        for each in metrics["settings"]
        if (gap := _gap(metrics, first["name"], each["name"])) is not None
    ]
    near = [name for name, (_, interval) in gaps if is_noise(interval)]
    if not gaps:
        return said
    one_seed = any(len(each["seeds"]) == 1 for each in metrics["settings"])
    if not near:
        only = " on these prompts; the seeds' variance is unknown" if one_seed else ""
        return f"{said}, distinguishable from every other setting{only}"
    rest = f" and {len(near) - 3} more" if len(near) > 3 else ""
    return f"{said}, not distinguishable from {', '.join(near[:3])}{rest}"


def warnings(metrics: Metrics) -> list[str]:
    """What a reader of the numbers must know, a sentence each."""
    found = []
    single = [each["name"] for each in metrics["settings"] if len(each["seeds"]) == 1]
    if single:
        found.append(
            f"A single seed: {_and(single)}. Intervals of a single seed do not include the seeds' "
            "variance; a difference that they show may be one of seeds, not of settings."
        )
    if metrics["pairwise"]:
        found.append(
            "The ranker is pairwise: a reward is an answer's score against the base model's answer "
            "to the same prompt. Differences and win rates between settings are by these scores; "
            "their answers were not compared with each other."
        )
    if len(metrics["base_models"]) > 1:
        found.append(
            "The runs start from different base models; rewards after training include that."
        )
    return found


def _last(setting: Mapping[str, Any]) -> Metrics:
    return setting["iterations"][-1] if setting["iterations"] else {}


def _gap(metrics: Metrics, name: str, other: str) -> tuple[float, Interval | None] | None:
    """The difference of two settings and its interval; None if it is unknown."""
    for entry in metrics["differences"]:
        mean, interval = entry["mean"], entry["ci95"]
        if (entry["a"], entry["b"]) == (name, other):
            return mean, interval
        if (entry["a"], entry["b"]) == (other, name):
            return -mean, interval and [-interval[1], -interval[0]]
    return None


def _against_base(reward: Metrics) -> str:
    value, interval = reward["difference_from_base"], reward["difference_from_base_ci95"]
    if value is None:
        return ""
    if interval is None or interval[0] <= 0 <= interval[1]:
        return f"No difference from the base model is shown ({_signed(value, interval)})."
    which = "better" if value > 0 else "worse"
    return f"It is {which} than the base model ({_signed(value, interval)})."


def _signed(value: float, interval: Interval | None) -> str:
    return f"{value:+.3f}{_within(interval, '+')}"


def _within(interval: Interval | None, sign: str = "") -> str:
    return "" if interval is None else f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _left_out(metrics: Metrics) -> str:
    number = metrics["prompts_left_out"]
    return f", without {number} that some evaluation has no reward for" if number else ""


def _markdown(found: Table) -> str:
    return table(found.header, found.rows, found.left)


def _differences(metrics: Metrics) -> list[str]:
    found = tables.differences(metrics)
    if not found.rows:
        return []
    return ["## Differences between settings", tables.OF_DIFFERENCES, _markdown(found)]


def _matrix(metrics: Metrics) -> list[str]:
    found = tables.win_rates(metrics)
    return ["## Win rates", tables.OF_WIN_RATES, _markdown(found)] if found.rows else []


def _alpha(metrics: Metrics) -> list[str]:
    found = tables.alphas(metrics)
    return ["## Reward against alpha", _markdown(found)] if found.rows else []


def _commands(comparison: Comparison) -> list[str]:
    lasts = [run.manifests[max(run.manifests)] for run in comparison.runs if run.manifests]
    return ["\n".join(f"- {code(manifest['command'])}" for manifest in lasts)]
