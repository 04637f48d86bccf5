"""Checks of rankers that several kinds share, before hours of work.

Weights are not loaded, except those of a PairRM in a folder, which are small. Weights on the Hub
are checked only if they are already in the cache.
"""

from collections.abc import Callable, Sequence
from typing import Any

from selm.data.columns import as_json, columns_of
from selm.data.prompts import as_messages
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.base import Candidate, Pool
from selm.ranking.selection import distinct
from selm.recipe.schema import Ranking


def check_hub(ranking: Ranking, name: str) -> None:
    """UserError if the Hub does not give us the model's config.json."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json", revision=ranking.revision)
    except (OSError, ValueError) as error:
        reason = one_line(str(error).strip().splitlines()[0])
        raise ranking.error("name_or_path", f"{name}: {reason}") from error


def readable(pools: Sequence[Pool], read: Callable[[Pool], Any]) -> None:
    """Raise the first pool's UserError if all pools raise one; a stage drops single rows."""
    refusals = []
    for pool in pools:
        try:
            read(pool)
        except UserError as error:
            refusals.append(error)
    if refusals and len(refusals) == len(pools):
        raise refusals[0]


def pool_of_dataset(row: DatasetRow) -> Pool:
    """The dataset's two responses, or any two texts if it has none."""
    texts = {which: row[which] for which in ("chosen", "rejected") if row[which] is not None}
    pair = {which: as_messages(row[which]) for which in ("chosen", "rejected")}
    written = texts or {"chosen": "Yes.", "rejected": "No."}
    candidates = distinct([Candidate(text, source) for source, text in written.items()])
    columns = columns_of({"columns": as_json(row["columns"])} | pair)
    return Pool(row["prompt_id"], row["prompt"], candidates, columns)
