"""Checks the model's folder, without loading weights, and the tokens that end a response."""

from selm.check.preflight import Preflight
from selm.errors import UserError
from selm.model import loading
from selm.model.chat import Chat
from selm.model.shape import shape_of


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
    names = [f"{i} {token}" for i, token in zip(ids, _names(chat, ids), strict=True)]
    return f"{', '.join(names)}{'' if configured else ' (the model has no generation config)'}"


def _names(chat: Chat, ids: list[int]) -> list[str]:
    return [str(chat.tokenizer.convert_ids_to_tokens(i)) for i in ids]
