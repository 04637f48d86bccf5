"""The kinds of rankers (each one is a file and a line here), and functions for any of them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.home import relative
from selm.ranking.base import Facts, Pool, Ranker, RankerKind, Said
from selm.ranking.ensemble import ENSEMBLE
from selm.ranking.function import FUNCTION
from selm.ranking.judge import JUDGE
from selm.ranking.pairrm import PAIRRM
from selm.ranking.preflight import pool_of_dataset
from selm.ranking.random import RANDOM
from selm.ranking.refused import PromptRefused
from selm.ranking.reward_model import REWARD_MODEL
from selm.recipe.names import not_one_of
from selm.recipe.places import as_shipped, check_file, check_name, is_local_path
from selm.recipe.roles import EXECUTION, keys_with
from selm.recipe.schema import SELECTION_KEYS, Ranking

KINDS: dict[str, RankerKind] = {
    "pairrm": PAIRRM,
    "reward_model": REWARD_MODEL,
    "judge": JUDGE,
    "function": FUNCTION,
    "random": RANDOM,
    "ensemble": ENSEMBLE,
}


def kind_of(ranking: Ranking) -> RankerKind:
    return KINDS[ranking.ranker]


def deciding_keys(ranking: Ranking) -> set[str]:
    """Keys of the section that decide the pairs."""
    return {"ranker", *SELECTION_KEYS, *kind_of(ranking).keys}


def check_ranking(ranking: Ranking) -> None:
    """UserError for a section of a recipe that no ranker can use."""
    section = ranking.section
    if ranking.ranker not in KINDS:
        raise UserError(not_one_of(f"{section}.ranker", ranking.ranker, list(KINDS)))
    kind = kind_of(ranking)
    read = deciding_keys(ranking) | keys_with(EXECUTION, Ranking)
    given = as_shipped(ranking)
    for key, field in Ranking.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if key not in read and getattr(given, key) != default:
            others = ", ".join(name for name, other in KINDS.items() if key in other.keys)
            unset = json.dumps(None if key == "judge" else default)
            raise ranking.error(
                key,
                f"the ranker {ranking.ranker} does not read it ({others} would); remove it, or "
                f"set it to {unset} if it stands in a recipe that this one extends",
            )
    kind.check(ranking)
    model = kind.model(ranking)
    if model is not None:
        check_name(f"{section}.name_or_path", model)
    for key, path in files(ranking).items():
        check_file(f"{section}.{key}", path)


def files(ranking: Ranking) -> dict[str, str]:
    """Key of the section -> local path that it reads, without those of its members."""
    kind = kind_of(ranking)
    model = kind.model(ranking)
    folder = {"name_or_path": model} if model is not None and is_local_path(model) else {}
    return folder | kind.files(ranking)


def load_ranker(ranking: Ranking, seed: int, verdicts: Path | None = None) -> Ranker:
    """The recipe's ranker, loaded.

    Args:
        verdicts: folder in which a judge keeps its verdicts (`artifacts.verdicts_folder`).
    """
    with naming(ranking):
        return kind_of(ranking).load(ranking, seed, verdicts)


def look(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    """UserError if this ranker, or a member of it, cannot score these rows.

    Args:
        rows: the dataset's, a few of them (`portions.sample`).
    """
    pools = [pool_of_dataset(row) for row in rows]
    for member in ranking.members:
        with naming(member):
            kind_of(member).look(member, pools)


@contextmanager
def naming(ranking: Ranking) -> Iterator[None]:
    """Let errors name the ranker's section, unless it is `ranking`."""
    try:
        yield
    except UserError as error:
        if ranking.section == "ranking" or str(error).startswith(ranking.section):
            raise
        message = f"{ranking.section} ({ranking.ranker}): {error}"
        if isinstance(error, PromptRefused):
            raise PromptRefused(message, error.prompt_id) from error
        raise UserError(message) from error


def ranking_facts(
    ranking: Ranking, pools: Sequence[Pool], verdicts: Path | None
) -> dict[str, Facts]:
    """Counts from scoring these pools, by ranker, for the manifest: verdicts, tokens and so on.

    They are computed afterwards from the pools and the verdicts, so they are the same for a stage
    that was killed and resumed. Rankers without counts have no entry.
    """
    return {
        label: facts(member, pools, verdicts)
        for label, member in zip(member_labels(ranking), ranking.members, strict=True)
        if (facts := kind_of(member).facts) is not None
    }


def said_of(ranking: Ranking, pools: Sequence[Pool], verdicts: Path | None) -> list[list[Said]]:
    """For each pool, what judges have said of its first two candidates; nobody is asked."""
    kept = [
        said(member, pools, verdicts)
        for member in ranking.members
        if (said := kind_of(member).said) is not None
    ]
    return [[one for of_member in kept for one in of_member[n]] for n in range(len(pools))]


def label(ranking: Ranking) -> str:
    """`reward_model Skywork/Skywork-Reward-V2-Llama-3.1-8B`"""
    return f"{ranking.ranker} {relative(ranking.name_or_path or '')}".strip()


def member_labels(ranking: Ranking) -> list[str]:
    """Labels of the rankers behind a ranking: an ensemble's members, or the ranker itself."""
    if not ranking.rankers:
        return [label(ranking)]
    return [f"{i} {label(member)}" for i, member in enumerate(ranking.rankers)]


def in_words(facts: Mapping[str, Facts]) -> str:
    """The counts as text for a stage's last line.

    >>> in_words({"judge gpt": {"verdicts": 12, "refusal": 0, "flip_rate": 0.25}})
    'judge gpt: 12 verdicts, 0.25 flip_rate'
    """
    return "; ".join(
        f"{label}: " + ", ".join(f"{value:,} {key}" for key, value in found.items() if value)
        for label, found in facts.items()
    )
