"""Chooses the setting with the best mean held-out reward, as the paper chooses alpha.

Source: arXiv 2405.19332, section 5.1 (a grid of alpha, by the mean reward of held-out answers).
"""

from dataclasses import dataclass

from selm.compare.seeds import Mean, difference, mean
from selm.compare.settings import Comparison, Setting
from selm.report.statistics import Interval


@dataclass(frozen=True)
class Ranked:
    """A setting and the mean held-out reward after the last iteration that all its runs have."""

    setting: Setting
    iteration: int
    reward: Mean


def ranked(comparison: Comparison) -> list[Ranked]:
    """All settings, the best one first; of equal ones the one that was given first."""
    found = []
    for setting in comparison.settings:
        last = comparison.iterations(setting)[-1]
        found.append(Ranked(setting, last, mean(comparison.rewards(setting, last))))
    return sorted(found, key=lambda each: -each.reward.value)


def ahead(comparison: Comparison, one: Ranked, other: Ranked) -> Mean:
    """Reward of one setting minus that of the other, paired by prompt, and by seed if they can."""
    return difference(
        comparison.rewards(one.setting, one.iteration),
        comparison.rewards(other.setting, other.iteration),
        paired_seeds=one.setting.seeds == other.setting.seeds,
    )


def select(comparison: Comparison) -> str:
    """Lines: the best setting, every other with its distance, and whether the choice is noise.

    >>> print(select(comparison))  # of two settings
    best: alpha 0.001: mean held-out reward 0.612 [0.580, 0.644] after iteration 3 (3 seeds, ...)
    next: alpha 0.005: 0.603 [0.571, 0.635], lower by 0.009 [-0.012, 0.030]: within noise
    The runner-up is within noise: the 95% interval of the paired difference contains zero. ...
    """
    best, *others = ranked(comparison)
    lines = [
        f"best: {best.setting.name}: mean held-out reward {_number(best.reward)} after iteration "
        f"{best.iteration} ({_count(best.reward.seeds, 'seed')}, "
        f"{_count(best.reward.prompts, 'prompt')}, ranker {comparison.ranker})"
    ]
    behind = [ahead(comparison, best, other) for other in others]
    for other, gap in zip(others, behind, strict=True):
        lines.append(
            f"next: {other.setting.name}: {_number(other.reward)}, lower by {_number(gap)}: "
            f"{'within noise' if is_noise(gap) else 'more than noise'}"
        )
    return "\n".join([*lines, *_conclusion(best, behind)])


def is_noise(gap: Mean) -> bool:
    """Whether the interval of a difference contains zero, or nothing shows its spread."""
    return gap.ci95 is None or gap.ci95[0] <= 0 <= gap.ci95[1]


def _conclusion(best: Ranked, behind: list[Mean]) -> list[str]:
    """What the interval of the difference to the runner-up says about the choice."""
    if not behind:
        return ["There is no other setting to compare it with."]
    noise = sum(map(is_noise, behind))
    if is_noise(behind[0]):
        said = (
            "The runner-up is within noise: the 95% interval of the paired difference contains "
            "zero."
        )
        if len(behind) > 1:
            said += f" That holds for {noise} of the {len(behind)} other settings."
    else:
        said = (
            "The runner-up is not within noise: the 95% interval of the paired difference does "
            "not contain zero."
        )
    lines = [said]
    if best.reward.seeds == 1 or any(gap.seeds == 1 for gap in behind):
        lines.append("With one seed the intervals show the prompts' variance, not the seeds'.")
    return lines


def _number(found: Mean) -> str:
    return f"{found.value:.4g}{_interval(found.ci95)}"


def _interval(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
