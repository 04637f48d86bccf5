"""The control: a ranker with random scores."""

import random
from collections.abc import Sequence

from selm.ranking.base import Pool, Ranker, RankerKind


class RandomRanker(Ranker):
    """Uniform scores, seeded by recipe seed and prompt, so a repeated run ranks the same."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def score(self, pools: Sequence[Pool]) -> list[list[float]]:
        """See `Ranker`."""
        return [
            [
                random.Random(f"{self.seed}/{pool.prompt_id}/{n}").random()
                for n in range(len(pool.candidates))
            ]
            for pool in pools
        ]


RANDOM = RankerKind(load=lambda ranking, seed, verdicts: RandomRanker(seed), pairwise=False)
