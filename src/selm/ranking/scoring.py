"""Scores pools shard by shard, for the stages `preferences` and `evaluation`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from selm.data.schemas import ScoreRow
from selm.ranking.base import Pool, Ranker, Scores
from selm.ranking.kinds import kind_of, load_ranker
from selm.ranking.refused import of_the_others
from selm.recipe.schema import Ranking
from selm.run.shards import run_shards
from selm.run.workers import Work, Workers


def score_pools(
    pools: Sequence[Pool],
    ranking: Ranking,
    seed: int,
    folder: Path,
    verdicts: Path,
    what: str,
) -> list[ScoreRow]:
    """The scores in the order of the pools; see `score_shard`.

    Args:
        folder: where finished shards are kept; the ranker is only loaded if one is missing.
        verdicts: see `load_ranker`.
        what: label of the progress bar.
    """
    load = partial(_load, ranking, seed, verdicts.resolve())
    size = ranking.shard_size
    return run_shards(pools, load, ScoreRow, folder, size, what, _workers(ranking))


def _load(ranking: Ranking, seed: int, verdicts: Path) -> Work[Pool, ScoreRow]:
    """A worker: it loads the ranker and scores each shard."""
    ranker = load_ranker(ranking, seed, verdicts)
    return lambda shard: score_shard(shard, ranker)


def _workers(ranking: Ranking) -> Workers:
    """`auto` means one per GPU, if the ranker uses GPUs and has no limits per worker."""
    kinds = [kind_of(member) for member in ranking.members]
    several = any(kind.on_gpu for kind in kinds) and not any(kind.limited for kind in kinds)
    one = ranking.workers == "auto" and not several
    return Workers(1 if one else ranking.workers, gpus=1, key=f"{ranking.section}.workers")


def score_shard(pools: Sequence[Pool], ranker: Ranker) -> list[ScoreRow]:
    """The scores of a shard; none for a prompt that the ranker cannot read.

    A pairwise ranker does not get a pool whose texts are all equal: it is a tie.
    """

    def is_tie(pool: Pool) -> bool:
        return ranker.pairwise and len(set(pool.texts)) == 1

    scores = of_the_others([pool for pool in pools if not is_tie(pool)], ranker.score_by_member)
    for pool in filter(is_tie, pools):
        scores[pool.prompt_id] = ([ranker.tie] * len(pool.candidates), [])
    nothing: Scores = ([], [])
    return [
        {"prompt_id": pool.prompt_id, "scores": scores_N, "member_scores": scores_R_N}
        for pool in pools
        for scores_N, scores_R_N in [scores.get(pool.prompt_id, nothing)]
    ]
