"""The kinds of rankers, and what is asked of any of them."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from selm.ranking.base import Prompt, Ranker
from selm.recipe.schema import PAIRRM, Ranking


def load_ranker(ranking: Ranking, seed: int, verdicts: Path | None = None) -> Ranker:
    """The recipe's ranker, loaded.

    Args:
        verdicts: folder in which a judge keeps its verdicts (`artifacts.verdicts_folder`).
    """
    return _RANKERS[ranking.ranker](ranking, seed, verdicts)


def ranking_facts(
    ranking: Ranking,
    prompts: Sequence[Prompt],
    candidates: Sequence[list[str]],
    verdicts: Path | None,
) -> dict[str, dict[str, int | float]]:
    """What scoring these pools came to, by ranker: verdicts, tokens, texts cut; for the manifest.

    It is found out afterwards, from the pools and the verdicts, so that it is the same for a stage
    that was killed and resumed. Rankers without anything to say have no entry.
    """
    if ranking.ranker == "ensemble":
        members = [ranking_facts(m, prompts, candidates, verdicts) for m in ranking.rankers]
        return {f"{i} {k}": facts for i, found in enumerate(members) for k, facts in found.items()}
    if ranking.ranker not in _FACTS or (ranking.ranker == "judge" and verdicts is None):
        return {}
    found = _FACTS[ranking.ranker](ranking, prompts, candidates, verdicts)
    return {label(ranking): found}


def label(ranking: Ranking) -> str:
    """`reward_model Skywork/Skywork-Reward-V2-Llama-3.1-8B`"""
    return f"{ranking.ranker} {ranking.name_or_path or ''}".strip()


def member_labels(ranking: Ranking) -> list[str]:
    """The rankers whose scores a ranking is made of: an ensemble's members, or the one there is."""
    if ranking.ranker != "ensemble":
        return [label(ranking)]
    return [f"{i} {label(member)}" for i, member in enumerate(ranking.rankers)]


def in_words(facts: Mapping[str, Mapping[str, int | float]]) -> str:
    """For a stage's last line.

    >>> in_words({"judge gpt": {"verdicts": 12, "refusal": 0, "flip_rate": 0.25}})
    'judge gpt: 12 verdicts, 0.25 flip_rate'
    """
    return "; ".join(
        f"{label}: " + ", ".join(f"{value:,} {key}" for key, value in found.items() if value)
        for label, found in facts.items()
    )


def _judge(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.judge import JudgeRanker

    return JudgeRanker(ranking, verdicts)


def _reward_model(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.reward_model import RewardModelRanker

    return RewardModelRanker(ranking)


def _ensemble(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.ensemble import EnsembleRanker

    return EnsembleRanker(ranking.rankers, seed, verdicts)


def _function(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.function import FunctionRanker

    return FunctionRanker(ranking.name_or_path or "")


def _random(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.random import RandomRanker

    return RandomRanker(seed)


def _pairrm(ranking: Ranking, seed: int, verdicts: Path | None) -> Ranker:
    from selm.ranking.pairrm import PairRMRanker

    name = ranking.name_or_path or PAIRRM
    return PairRMRanker(name, ranking.revision, ranking.dtype, ranking.tokens_per_batch)


_RANKERS: dict[str, Callable[[Ranking, int, Path | None], Ranker]] = {
    "pairrm": _pairrm,
    "reward_model": _reward_model,
    "judge": _judge,
    "function": _function,
    "random": _random,
    "ensemble": _ensemble,
}


def _judge_facts(
    ranking: Ranking,
    prompts: Sequence[Prompt],
    candidates: Sequence[list[str]],
    verdicts: Path | None,
) -> dict[str, int | float]:
    from selm.ranking.judge import JudgeRanker

    return JudgeRanker(ranking, verdicts).facts(prompts, candidates)


def _reward_model_facts(
    ranking: Ranking,
    prompts: Sequence[Prompt],
    candidates: Sequence[list[str]],
    verdicts: Path | None,
) -> dict[str, int | float]:
    from selm.ranking.reward_model import load_encoder

    return load_encoder(ranking).facts(prompts, candidates)


_FACTS = {"judge": _judge_facts, "reward_model": _reward_model_facts}
