"""Checks the policy's folder, its template and tokens, and rankers; loads no policy."""

import tempfile

from selm.check.preflight import Preflight
from selm.data.drops import in_words
from selm.data.schemas import DatasetRow
from selm.errors import UserError
from selm.model import loading
from selm.model.chat import Chat
from selm.model.probe import load_chat
from selm.model.shape import shape_of
from selm.ranking.kinds import label, look


def model(preflight: Preflight) -> str:
    """All weights have the names and sizes of the config, and the context is long enough."""
    recipe, settings = preflight.recipe, preflight.recipe.model
    config = preflight.config.get_text_config()
    context = loading.context(config)
    for key, tokens in (
        ("training.max_length", recipe.training.max_length),
        ("generation.max_tokens", recipe.generation.max_tokens + 1),
    ):
        if context is not None and tokens > context:
            raise UserError(f"{key}: {tokens} tokens, but the model's context has {context}")
    looked_at = loading.inspect(settings.name_or_path, settings)
    shape = shape_of(settings.name_or_path, settings.revision)
    size = f"{shape.parameters / 1e9:.2f}B parameters" if shape else "size unknown"
    notes = [loading.dropout_note(preflight.config)]
    if looked_at is None:
        notes.append("its weights are not on this disk yet")
    said = "".join(f"; {note}" for note in notes if note)
    longest = "without limit" if context is None else context
    return f"{settings.name_or_path}: {config.model_type}, {size}, context {longest}{said}"


def stop_ids(preflight: Preflight) -> str:
    """Every token that ends a response."""
    settings, chat = preflight.recipe.model, preflight.chat
    configured = loading.generation_config(settings.name_or_path, settings)
    ids = chat.stop_ids(configured)
    names = [f"{i} {chat.tokenizer.convert_ids_to_tokens(i)}" for i in ids]
    return f"{', '.join(names)}{'' if configured else ' (the model has no generation config)'}"


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


def rankers(preflight: Preflight) -> str:
    """Each ranker's files fit together, a function scores a row, a hosted judge's key is set."""
    rows, _ = preflight.sample
    alone = [ranking for ranking in preflight.recipe.rankings() if not ranking.rankers]
    for ranking in alone:
        look(ranking, rows)
    return ", ".join(dict.fromkeys(map(label, alone)))
