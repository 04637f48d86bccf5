"""What several kinds do when they are looked at before the hours that their prompts take.

Weights stay where they are, but for a PairRM in a folder: it is small. Those on the Hub are looked
at when they are here.
"""

from collections.abc import Callable, Sequence
from typing import Any

from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.escape import one_line
from selm.recipe.schema import Ranking


def check_hub(ranking: Ranking, name: str) -> None:
    """UserError if the Hub does not give us the model's config.json."""
    from huggingface_hub import hf_hub_download

    try:
        hf_hub_download(name, "config.json", revision=ranking.revision)
    except (OSError, ValueError) as error:
        reason = one_line(str(error).strip().splitlines()[0])
        raise ranking.error("name_or_path", f"{name}: {reason}") from error


def readable(rows: Sequence[DatasetRow], read: Callable[[DatasetRow], Any]) -> None:
    """The first row's UserError if all rows raise one; a stage drops some rows, not all."""
    refusals = []
    for row in rows:
        try:
            read(row)
        except UserError as error:
            refusals.append(error)
    if refusals and len(refusals) == len(rows):
        raise refusals[0]


def dataset_texts(row: DatasetRow) -> list[str]:
    """Distinct candidates for a look at a ranker: the dataset's, or any where it has none."""
    if row["chosen"] is None:
        return ["Yes.", "No."]
    return list(dict.fromkeys((row["chosen"], row["rejected"])))
