"""Compares the recipe's limits with the lengths of all prompts and a sample of responses."""

from statistics import fmean

from tqdm import tqdm

from selm.check.preflight import Preflight
from selm.data.drops import Drops, in_words, row_name
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.model.chat import Chat, TemplateRefusal
from selm.model.loading import most_prompt_tokens
from selm.recipe.schema import Recipe
from selm.training.examples import as_pair, tokenize

# If a larger share of the rows is affected, the recipe is probably a mistake.
MOST_CUT = 0.25
MOST_DROPPED = 0.1

_MANY = 2000  # rows, which take seconds


def lengths(preflight: Preflight) -> str:
    """How many rows `max_length` truncates or drops, and mean lengths for the estimates."""
    recipe, chat = preflight.recipe, preflight.chat
    rows = [row for found, _ in preflight.portions for row in found]
    prompts, refused = _prompts(chat, rows)
    _check_refused(refused, len(rows))
    mean, limit = fmean(prompts), recipe.training.max_length
    too_long = sum(length >= limit for length in prompts) / len(prompts)
    if too_long > MOST_DROPPED:
        raise UserError(
            f"training.max_length: {limit} tokens leave no room for a response after "
            f"{too_long:.0%} of the prompts (mean {mean:.0f} tokens); raise it"
        )
    _check_room(preflight, prompts)
    said = f"prompts of {mean:.0f} tokens, {too_long:.1%} of them too long for {limit}"
    said += f", refused: {in_words(refused)}" if refused else ""
    sample, _ = preflight.taken
    if sample[0]["chosen"] is None:
        return said + _off(recipe, "prompt_tokens", mean)
    responses, cut = _responses(recipe, chat, sample)
    if cut > MOST_CUT:
        raise UserError(
            f"training.max_length: {limit} tokens truncate {cut:.0%} of the responses (mean "
            f"{fmean(responses):.0f} tokens, after prompts of {mean:.0f}); raise it"
        )
    off = _off(recipe, "prompt_tokens", mean)
    off += _off(recipe, "response_tokens", fmean(responses))
    return f"{said}; responses of {fmean(responses):.0f}, {cut:.1%} of them truncated{off}"


def _prompts(chat: Chat, rows: list[DatasetRow]) -> tuple[list[int], Drops]:
    """The length of every prompt that the template accepts, and the prompts that it refuses."""
    found: list[int] = []
    refused = Drops()
    for row in tqdm(rows, desc="all prompts", unit="row", disable=len(rows) < _MANY, leave=False):
        try:
            found.append(len(chat.prompt_ids(row["prompt"], row["tools"])))
        except TemplateRefusal as refusal:
            refused.add(refusal.reason, row_name(row))
    return found, refused


def _check_room(preflight: Preflight, prompts: list[int]) -> None:
    """The model's context holds most prompts and an answer; the others are dropped."""
    max_tokens = preflight.recipe.generation.max_tokens
    most = most_prompt_tokens(preflight.config, max_tokens)
    too_long = sum(length > most for length in prompts) / len(prompts)
    if too_long > MOST_DROPPED and most > 0:  # without any room, the check of the model says so
        raise UserError(
            f"generation.max_tokens: {max_tokens} tokens leave no room in the model's context for "
            f"{too_long:.0%} of the prompts (mean {fmean(prompts):.0f} tokens); lower it"
        )


def _check_refused(refused: Drops, rows: int) -> None:
    if refused.total() > MOST_DROPPED * rows:
        raise UserError(
            f"model.chat_template: it refuses {refused.total()} of {rows} prompts "
            f"({in_words(refused)}); name a template that accepts them, or change the data"
        )


def _responses(recipe: Recipe, chat: Chat, found: list[DatasetRow]) -> tuple[list[int], float]:
    """Untruncated lengths of chosen and rejected, and the share that `max_length` truncates."""
    whole, _ = tokenize(map(as_pair, found), chat, None, with_explored=False)
    if not whole:
        return [0], 0.0
    keys = ("chosen_ids", "rejected_ids")
    sequences = [(len(e["prompt_ids"]), len(e[key])) for e in whole for key in keys]
    cut = [p + r > recipe.training.max_length for p, r in sequences]
    return [length for _, length in sequences], sum(cut) / len(cut)


def _off(recipe: Recipe, key: str, measured: float) -> str:
    """A hint if the estimates assume a very different length."""
    assumed = getattr(recipe.estimate, key)
    far = abs(assumed - measured) > 0.25 * measured
    return f"; estimate.{key} is {assumed}: set it to {measured:.0f}" if far else ""
