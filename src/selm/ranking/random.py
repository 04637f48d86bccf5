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
            [self._number(pool.prompt_id, n) for n in range(len(pool.candidates))] for pool in pools
        ]

    def _number(self, prompt_id: str, n: int) -> float:
        return random.Random(f"{self.seed}/{prompt_id}/{n}").random()


RANDOM = RankerKind(load=lambda ranking, seed, verdicts: RandomRanker(seed), pairwise=False)
