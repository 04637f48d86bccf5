"""Checks the data: all rows or only the first ones, and lengths against the recipe's limits."""

from statistics import fmean

from selm import progress
from selm.check.preflight import SAMPLE_ROWS, Preflight
from selm.data.drops import Drops, in_words, row_name
from selm.data.portions import check_objective, overlap, sample_rows
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.model.chat import Chat, TemplateRefusal
from selm.model.loading import most_prompt_tokens
from selm.recipe.schema import Recipe
from selm.training.examples import as_pair, tokenize


def rows(preflight: Preflight) -> str:
    """Read every row; count forms, dropped rows and prompts both trained on and held out."""
    portions, (held_out, lost) = preflight.portions, preflight.held_out
    trained = [row for found, _ in portions for row in found]
    dropped = sum((drops for _, drops in portions), Drops())
    numbers = " + ".join(f"{len(found):,}" for found, _ in portions)
    shared = overlap(trained, held_out)
    if shared == len(held_out):
        raise UserError(
            f"data.test_split: all {shared} held-out prompts are also trained on; hold out "
            "other rows, or name a dataset whose splits differ"
        )
    said = f"{_kind(trained)}; {numbers} training and {len(held_out):,} held-out rows"
    said += _dropped("dropped", dropped) + _dropped("of held-out rows dropped", lost)
    return said + (f"; {shared} of the held-out prompts are also trained on" if shared else "")


def first_rows(preflight: Preflight) -> str:
    """Check that the first rows of both splits have a known form."""
    found, dropped = preflight.sample
    held_out, _ = sample_rows(preflight.recipe, "test", SAMPLE_ROWS)
    for t in range(1, len(preflight.recipe.iterations) + 1):
        check_objective(preflight.recipe, t, found)
    return (
        f"{_kind(found)}; the first {len(found)} training and {len(held_out)} held-out rows"
        + _dropped("dropped", dropped)
    )


def _kind(found: list[DatasetRow]) -> str:
    return "prompts only" if found[0]["chosen"] is None else "pairs"


def _dropped(what: str, drops: Drops) -> str:
    return f", {what}: {in_words(drops)}" if drops else ""


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
    hidden = len(rows) < _MANY
    for row in progress.each(rows, len(rows), "all prompts", "row", inner=True, hidden=hidden):
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
