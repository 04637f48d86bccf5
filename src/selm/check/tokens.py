"""Checks the chat template and the tokens that it makes of the data."""

import tempfile

from selm.check.preflight import Preflight
from selm.data.drops import in_words
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.model import loading
from selm.model.chat import Chat
from selm.model.probe import load_chat


def template(preflight: Preflight) -> str:
    """What the author of the recipe should know about the chat template."""
    chat = preflight.chat
    loading.check_vocabulary(preflight.recipe.model.name_or_path, chat.tokenizer, preflight.config)
    return chat.facts()


def tokens(preflight: Preflight) -> str:
    """Check on the sample: one BOS, one end-of-turn, and the same prompt in every stage."""
    rows, dropped = preflight.taken
    with tempfile.TemporaryDirectory() as folder:  # what iteration 2 reads: a saved tokenizer
        preflight.chat.tokenizer.save_pretrained(folder)
        later = load_chat(folder, preflight.recipe.model)
    for row in rows:
        _check_tokens(preflight.chat, later, row)
    chat, first = preflight.chat, rows[0]
    prompt = chat.tokenizer.decode(chat.prompt_ids(first["prompt"], first["tools"]))
    answer = chat.tokenizer.decode(chat.response_ids(first["prompt"], "Yes.", tools=first["tools"]))
    return (
        f"the same in generation and training, at most one BOS and one end of turn, in {len(rows)} "
        f"rows; prompts end in {prompt[-40:]!r}, a label is {answer!r}"
        + (f"; dropped: {in_words(dropped)}" if dropped else "")
    )


def _check_tokens(chat: Chat, later: Chat, row: DatasetRow) -> None:
    messages, name, tools = row["prompt"], row["prompt_id"], row["tools"]
    prompt = chat.prompt_ids(messages, tools)
    label_ids = chat.response_ids(messages, "Yes.", tools=tools)
    bos = chat.tokenizer.bos_token_id
    if bos is not None and prompt[:2] == [bos, bos]:
        raise UserError(f"model.chat_template: the prompt {name} starts with two BOS tokens")
    if label_ids.count(chat.end_of_turn) != 1 or label_ids[-1] != chat.end_of_turn:
        raise UserError(
            f"model.chat_template: a label of {name} does not have exactly one end of turn"
        )
    if later.prompt_ids(messages, tools) != prompt:
        raise UserError(
            f"model.name_or_path: its tokenizer gives other ids for {name} after it was saved "
            "and loaded again"
        )
