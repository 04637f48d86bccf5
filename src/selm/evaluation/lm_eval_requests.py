"""lm-eval's requests, answered shard by shard by lm-eval's own model in the recipe's engine.

lm-eval asks `Shards`, which has each request done like the rows of any other stage: finished shards
are kept, and several workers share them. lm-eval's own cache would not do. With vLLM it is written
when all requests are done, and its keys of generated answers are never found again; with several
GPUs a model would be loaded for every call.
"""

import logging
import sys
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from typing import Any, TypedDict

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from selm.errors import UserError
from selm.evaluation.base import Measuring
from selm.generation.base import Harness
from selm.generation.kinds import KINDS, check_engine
from selm.model.probe import load_chat
from selm.recipe.schema import Recipe
from selm.run.shards import run_shards
from selm.run.workers import Work, Workers

LOG_PROBS, ANSWERS = "loglikelihood", "generate_until"  # lm-eval's names of the kinds of requests

MOST_ANSWER_TOKENS = 256  # lm-eval's own, where a task does not say

# An engine that is told the longest text is told a multiple of this many tokens, so that the policy
# of one task has room for the next one's.
ROOM_TOKENS = 4096


class Request(TypedDict):
    """What lm-eval asks: how likely a continuation is, or what comes after a context."""

    kind: str
    context: str
    continuation: str
    options: dict[str, Any]


class Replied(TypedDict):
    """Its answer: the continuation's log-prob and whether it is the greedy one, or the text.

    `tokens` were read and written; `cut` is 1 if the context did not fit and lost its beginning.
    """

    logprob: float
    greedy: int
    text: str
    tokens: int
    cut: int


class Shards(LM):
    """A model for lm-eval that has requests answered in shards.

    `tokens` and `cut` count over all requests. The progress bar is written to the streams that were
    there when this was made, whatever became of them since.
    """

    def __init__(self, measuring: Measuring) -> None:
        super().__init__()
        self.measuring = measuring
        self.tokens = self.cut = 0
        self._streams = sys.stdout, sys.stderr

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        rows = [
            Request(kind=LOG_PROBS, context=context, continuation=continuation, options={})
            for context, continuation in (request.args for request in requests)
        ]
        return [(reply["logprob"], bool(reply["greedy"])) for reply in self._replies(rows)]

    def generate_until(self, requests: list[Instance]) -> list[str]:
        rows = [
            Request(kind=ANSWERS, context=context, continuation="", options=options)
            for context, options in (request.args for request in requests)
        ]
        return [reply["text"] for reply in self._replies(rows)]

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        raise NotImplementedError("no task of ours asks for it")

    @property
    def tokenizer_name(self) -> str:
        return self.measuring.policy

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """With the recipe's template, if it has one."""
        tokenizer = load_chat(self.measuring.policy, self.measuring.recipe.model).tokenizer
        self.apply_chat_template = partial(_templated, tokenizer)  # type: ignore[method-assign]
        return _templated(tokenizer, chat_history, add_generation_prompt)

    def _replies(self, rows: list[Request]) -> list[Replied]:
        measuring, recipe = self.measuring, self.measuring.recipe
        generation = recipe.generation
        check_engine(generation)
        workers = Workers(generation.workers, generation.tensor_parallel_size, "generation.workers")
        load = partial(_load, measuring.policy, recipe, _longest(rows, measuring))
        folder = measuring.folder / rows[0]["kind"]
        folder.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(self._streams[0]), redirect_stderr(self._streams[1]):
            replies = run_shards(
                rows, load, Replied, folder, generation.shard_size, measuring.what, workers
            )
        self.tokens += sum(reply["tokens"] for reply in replies)
        self.cut += sum(reply["cut"] for reply in replies)
        return replies


def _templated(tokenizer: Any, history: list[dict[str, str]], add_generation_prompt: bool) -> str:
    return tokenizer.apply_chat_template(
        history,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        continue_final_message=not add_generation_prompt,
    )


def _longest(rows: Sequence[Request], measuring: Measuring) -> int | None:
    """Tokens of the longest text with its answer, rounded up, if the engine wants to know."""
    if not KINDS[measuring.recipe.generation.engine].wants_longest_prompt:
        return None
    tokenizer = load_chat(measuring.policy, measuring.recipe.model).tokenizer
    tokens = 0
    for start in range(0, len(rows), 1000):
        part = rows[start : start + 1000]
        found = tokenizer([row["context"] + row["continuation"] for row in part]).input_ids
        tokens = max(tokens, max(map(len, found)))
    tokens += max(map(_answer_tokens, rows))
    return -(-tokens // ROOM_TOKENS) * ROOM_TOKENS


def _answer_tokens(row: Request) -> int:
    """What may be generated; vLLM generates a token even where only log-probs are asked for."""
    return row["options"].get("max_gen_toks", MOST_ANSWER_TOKENS) if row["kind"] == ANSWERS else 1


def _load(policy: str, recipe: Recipe, longest: int | None) -> Work[Request, Replied]:
    """A worker: it loads the policy, or finds it loaded, and answers the requests of each shard."""
    harness = _harness(policy, recipe, longest)
    return lambda shard: _answer(shard, harness, policy)


# The policy of the last task in this process, by what decides it.
_loaded: dict[tuple[Any, ...], Harness] = {}


def _harness(policy: str, recipe: Recipe, longest: int | None) -> Harness:
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    key = (policy, recipe.model.model_dump_json(), recipe.generation.model_dump_json())
    for (*others, room), harness in _loaded.items():
        if tuple(others) == key and (room or 0) >= (longest or 0):
            return harness
    forget()
    _loaded[*key, longest] = KINDS[recipe.generation.engine].harness(policy, recipe, longest)
    return _loaded[*key, longest]


def forget() -> None:
    """Let go of the policy of the last task, for another model that needs the memory."""
    _loaded.clear()


def _answer(shard: list[Request], harness: Harness, policy: str) -> list[Replied]:
    model = harness.model
    lengths = [len(model.tok_encode(row["context"] + row["continuation"])) for row in shard]
    if shard[0]["kind"] == LOG_PROBS:
        replies = _log_probs(shard, lengths, harness)
    else:
        replies = _answers(shard, model, policy)
    for row, length, reply in zip(shard, lengths, replies, strict=True):
        room = _answer_tokens(row) if row["kind"] == ANSWERS else 0
        reply["tokens"] += length
        reply["cut"] = int(length + room > model.max_length)
    return replies


def _log_probs(shard: list[Request], lengths: list[int], harness: Harness) -> list[Replied]:
    found: dict[int, tuple[float, bool]] = {}
    for part in portions(lengths, harness.tokens_at_a_time):
        asked = [_instance(shard[i], shard[i]["continuation"]) for i in part]
        replies = harness.model.loglikelihood(asked, disable_tqdm=True)
        found |= dict(zip(part, replies, strict=True))
    return [
        Replied(logprob=found[i][0], greedy=int(found[i][1]), text="", tokens=0, cut=0)
        for i in range(len(shard))
    ]


def _answers(shard: list[Request], model: Any, policy: str) -> list[Replied]:
    most = max(map(_answer_tokens, shard))
    if most >= model.max_length:
        raise UserError(
            f"{policy}: its context of {model.max_length} tokens leaves no room for a question "
            f"beside an answer of up to {most}"
        )
    asked = [_instance(row, row["options"]) for row in shard]
    texts = model.generate_until(asked, disable_tqdm=True)
    return [
        Replied(logprob=0.0, greedy=0, text=text, tokens=len(model.tok_encode(text)), cut=0)
        for text in texts
    ]


def _instance(row: Request, asked: Any) -> Instance:
    return Instance(request_type=row["kind"], doc={}, arguments=(row["context"], asked), idx=0)


def portions(lengths: Sequence[int], tokens: int | None) -> list[list[int]]:
    """Numbers of texts that are read together: long ones first, padded to at most `tokens` tokens.

    >>> portions([3, 9, 4, 2], 10)
    [[1], [2, 0], [3]]
    """
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    if tokens is None:
        return [order]
    found: list[list[int]] = []
    for i in order:
        if found and (len(found[-1]) + 1) * lengths[found[-1][0]] <= tokens:
            found[-1].append(i)
        else:
            found.append([i])
    return found
