"""Pools for rankers, written down in few words."""

from collections.abc import Sequence
from typing import Any

from selm.ranking.base import Candidate, Pool


def pools_of(
    prompt_ids: Sequence[str],
    prompts: Sequence[list[dict[str, Any]]],
    texts: Sequence[Sequence[str]],
    columns: Sequence[dict[str, Any]] | None = None,
) -> list[Pool]:
    """A pool for each prompt, all candidates from the policy."""
    rows = zip(prompt_ids, prompts, texts, columns or [{}] * len(prompts), strict=True)
    return [
        Pool(prompt_id, prompt, [Candidate(text, "policy") for text in of_pool], other)
        for prompt_id, prompt, of_pool, other in rows
    ]
