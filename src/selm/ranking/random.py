"""The control: a ranker that knows nothing."""

import random
from collections.abc import Sequence

from selm.ranking.base import Columns, Prompt, Ranker, RankerKind


class RandomRanker(Ranker):
    """Uniform scores, seeded by recipe seed and prompt, so that a repeated run ranks alike."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def score(
        self,
        prompt_ids: Sequence[str],
        prompts: Sequence[Prompt],
        candidates: Sequence[list[str]],
        columns: Sequence[Columns] | None = None,
    ) -> list[list[float]]:
        """See `Ranker`."""
        return [
            [random.Random(f"{self.seed}/{prompt_id}/{n}").random() for n in range(len(texts))]
            for prompt_id, texts in zip(prompt_ids, candidates, strict=True)
        ]


RANDOM = RankerKind(load=lambda ranking, seed, verdicts: RandomRanker(seed), pairwise=False)
