"""Log-probs of the held-out pairs under a policy: its implicit reward is made of them.

Tokens and forward are those of a training's reference log-probs on the padded path, so that the
numbers can be compared with `ref_chosen_logps`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedModel
from trl.trainer.utils import add_fused_lm_head

from selm.data.drops import Drops, in_words
from selm.data.portions import held_out_portion
from selm.data.schemas import DatasetRow, LogpsRow
from selm.errors import UserError
from selm.model import loading
from selm.model.chat import Chat
from selm.model.probe import load_chat
from selm.ranking.batches import batches
from selm.recipe.schema import Recipe
from selm.run.shards import run_shards
from selm.run.workers import Work, Workers
from selm.training.examples import TokenRow, as_pair, tokenize
from selm.training.forward import SELMCollator, forward

# Of a batch, padding included, by device; a CPU is fastest if a batch stays in its cache.
TOKENS_PER_BATCH = {"cpu": 1024, "cuda": 16384}

Example = tuple[str, TokenRow]  # prompt_id and the pair's token ids


@dataclass(frozen=True)
class Scored:
    """The rows, the tokens that were scored, and the pairs that were dropped."""

    rows: list[LogpsRow]
    tokens: int
    dropped: Drops


def score_held_out(recipe: Recipe, policy: str, folder: Path, what: str) -> Scored:
    """The log-probs of every held-out pair that a training would keep.

    Args:
        policy: what `from_pretrained` loads.
        folder: where finished shards are kept; the policy is only loaded if one is missing.
        what: label of the progress bar.

    Raises:
        UserError: the split has prompts only; no pair is left; a log-prob is not finite.
    """
    rows, dropped = held_out_portion(recipe)
    if rows[0]["chosen"] is None:
        raise UserError(
            f"data: the held-out rows of {recipe.data.name_or_path} are prompts only, but "
            "log-probs are of chosen and rejected answers; set data.name_or_path and "
            "data.test_split to rows with pairs"
        )
    max_length = recipe.training.max_length
    examples, cut = _examples(rows, load_chat(policy, recipe.model), max_length)
    if not examples:
        raise UserError(
            f"training.max_length: {max_length} leaves no held-out pair ({in_words(cut)}); raise it"
        )
    settings = recipe.generation
    workers = Workers(settings.workers, gpus=1, key="generation.workers")
    load = partial(_load, recipe, policy)
    scored = run_shards(examples, load, LogpsRow, folder, settings.shard_size, what, workers)
    tokens = sum(row["chosen_tokens"] + row["rejected_tokens"] for row in scored)
    return Scored(scored, tokens, dropped + cut)


def _examples(
    rows: Sequence[DatasetRow], chat: Chat, max_length: int
) -> tuple[list[Example], Drops]:
    examples: list[Example] = []
    dropped = Drops()
    for row in rows:
        found, why = tokenize([as_pair(row)], chat, max_length, with_explored=False)
        examples += [(row["prompt_id"], example) for example in found]
        dropped = dropped + why
    return examples, dropped


def _load(recipe: Recipe, policy: str) -> Work[Example, LogpsRow]:
    """A worker: it loads the policy as a training does, and scores the pairs of each shard.

    With QLoRA the policy is the merged one, which has no 4-bit weights.
    """
    tokenizer = load_chat(policy, recipe.model).tokenizer
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, recipe.trained_dtype())
    model = loading.load(policy, recipe.model, dtype=dtype).to(device).eval()
    loading.check_vocabulary(policy, tokenizer, model.config)
    add_fused_lm_head(model)
    autocast = getattr(torch, recipe.model.dtype)
    collator = SELMCollator(tokenizer.pad_token_id)
    budget = recipe.training.tokens_per_micro_batch or TOKENS_PER_BATCH[device]
    return lambda shard: _score(shard, model, collator, autocast, budget)


def _score(
    shard: Sequence[Example],
    model: PreTrainedModel,
    collator: SELMCollator,
    autocast: torch.dtype,
    tokens_per_batch: int,
) -> list[LogpsRow]:
    found: dict[int, LogpsRow] = {}
    for batch in batches([_padded_tokens(example) for _, example in shard], tokens_per_batch):
        tensors = collator([shard[i][1] for i in batch])
        logps_2B = _log_probs(model, tensors, autocast)
        pairs = zip(logps_2B[: len(batch)], logps_2B[len(batch) :], strict=True)
        for i, (chosen, rejected) in zip(batch, pairs, strict=True):
            found[i] = _row(*shard[i], chosen, rejected)
    return [found[i] for i in range(len(shard))]


def _padded_tokens(example: TokenRow) -> int:
    """Tokens of a pair's two sequences, each with the prompt, padded to the longer one."""
    longest = max(len(example["chosen_ids"]), len(example["rejected_ids"]))
    return 2 * (len(example["prompt_ids"]) + longest)


@torch.no_grad()
def _log_probs(
    model: PreTrainedModel, tensors: Mapping[str, torch.Tensor], autocast: torch.dtype
) -> list[float]:
    """The sums over response tokens, (2B,): all chosen, then all rejected."""
    device = model.device.type
    batch = {key: tensor.to(device) for key, tensor in tensors.items()}
    with torch.autocast(device, autocast, enabled=autocast != torch.float32):
        log_probs_2B_S = forward(model, batch).log_probs
    return log_probs_2B_S.float().sum(dim=1).tolist()


def _row(prompt_id: str, example: TokenRow, chosen: float, rejected: float) -> LogpsRow:
    if not (math.isfinite(chosen) and math.isfinite(rejected)):
        raise UserError(
            f"model.dtype: a log-prob of the pair of prompt {prompt_id} is not finite; set it to "
            "bfloat16 or float32, or use another checkpoint"
        )
    return {
        "prompt_id": prompt_id,
        "chosen_logps": chosen,
        "rejected_logps": rejected,
        "chosen_tokens": len(example["chosen_ids"]),
        "rejected_tokens": len(example["rejected_ids"]),
    }
