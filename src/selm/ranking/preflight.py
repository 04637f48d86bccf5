"""A ranker looked at before the hours that its prompts take: files, names, one row of a function.

Weights stay where they are, but for a PairRM in a folder: it is small. Those on the Hub are looked
at when they are here.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from huggingface_hub import hf_hub_download

from selm.data.columns import as_json, columns_of
from selm.data.prompts import as_messages
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.refused import PromptRefused
from selm.recipe.places import is_local_path
from selm.recipe.schema import PAIRRM, Ranking


def check(section: str, ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    """UserError if this ranker cannot score these rows.

    Args:
        section: the key of `ranking` in the recipe, for errors.
        rows: the dataset's, a few of them (`sample_rows`). A function is called with the first.
    """
    try:
        _CHECKS[ranking.ranker](ranking, rows)
    except UserError as error:
        if section == "ranking":
            raise
        raise UserError(f"{section} ({ranking.ranker}): {error}") from error


def check_whole(section: str, ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    """The same of a ranker and, if it is an ensemble, of its members."""
    check(section, ranking, rows)
    for i, member in enumerate(ranking.rankers):
        check(f"{section}.rankers.{i}", member, rows)


def _nothing(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    """Nothing to look at; the members of an ensemble are looked at one by one."""


def _judge(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    key = ranking.judge.api_key_env
    if key and not os.environ.get(key, "").strip():
        raise UserError(f"ranking.judge.api_key_env: {key} is not set in this environment")


def _function(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    from selm.ranking.function import FunctionRanker

    ranker = FunctionRanker(ranking.name_or_path or "")
    for row in rows[:1]:
        stored = {"columns": as_json(row["columns"])}
        pair = {which: as_messages(row[which]) for which in ("chosen", "rejected")}
        ranker.score(
            [row["prompt_id"]], [row["prompt"]], [_texts(row)], [columns_of(stored | pair)]
        )


def _texts(row: DatasetRow) -> list[str]:
    if row["chosen"] is None:
        return ["Yes.", "No."]
    return list(dict.fromkeys((row["chosen"], row["rejected"])))


def _reward_model(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    from selm.ranking.reward_model import load_encoder, load_model

    is_here = is_local_path(ranking.name_or_path or "")
    if not is_here:
        _check_hub(ranking, ranking.name_or_path or "")
    encoder = load_encoder(ranking)
    refusals = []
    for row in rows:
        try:
            encoder.encode(row["prompt"], _texts(row)[0])
        except UserError as error:
            refusals.append(f"{error}, for the prompt {row['prompt_id']}")
    if refusals and len(refusals) == len(rows):
        raise UserError(refusals[0])
    if is_here and not ranking.trust_remote_code:  # foreign code may want real numbers
        load_model(ranking, "meta")


def _pairrm(ranking: Ranking, rows: Sequence[DatasetRow]) -> None:
    name = ranking.name_or_path or PAIRRM
    if not is_local_path(name):
        _check_hub(ranking, name)
        return
    from selm.ranking.pairrm import rendered
    from selm.ranking.pairrm_model import load

    load(name, ranking.revision)
    refusals = []
    for row in rows:
        try:
            rendered(row["prompt_id"], row["prompt"], _texts(row))
        except PromptRefused as error:
            refusals.append(error)
    if refusals and len(refusals) == len(rows):
        raise refusals[0]


def _check_hub(ranking: Ranking, name: str) -> None:
    try:
        hf_hub_download(name, "config.json", revision=ranking.revision)
    except (OSError, ValueError) as error:
        reason = one_line(str(error).strip().splitlines()[0])
        raise UserError(f"ranking.name_or_path: {name}: {reason}") from error


_CHECKS: dict[str, Callable[[Ranking, Sequence[DatasetRow]], Any]] = {
    "pairrm": _pairrm,
    "reward_model": _reward_model,
    "judge": _judge,
    "function": _function,
    "random": _nothing,
    "ensemble": _nothing,
}
