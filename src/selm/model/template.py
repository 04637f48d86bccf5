"""Chat templates: read from files, checked as programs, filled in.

A template is a program written by others; all its errors are raised as jinja2's TemplateError.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError, nodes
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import _compile_jinja_template

from selm.data.schemas import Message
from selm.errors import UserError

Tools = Sequence[Mapping[str, Any]]

# Templates that write today's date get this one (Llama 3.2's own default): a run that continues
# after midnight must train with the same prompt tokens that it generated with.
TODAY = datetime(2024, 7, 26)

_MARK = "\ufeff"  # the byte order mark that some editors write at the start of a file
PROBE = "PROBE"

# What a template may raise besides TemplateError: text plus None, missing keys and items, divisions
# by zero, endless macros.
_PROGRAM_ERRORS = (
    TypeError,
    ValueError,
    LookupError,
    AttributeError,
    ArithmeticError,
    RecursionError,
)


def settle(tokenizer: PreTrainedTokenizerBase, own: str | None, path: str) -> None:
    """Give the tokenizer the recipe's template, or check its own.

    Args:
        own: the recipe's `model.chat_template`.
        path: where the tokenizer comes from.

    Raises:
        UserError: there is none, or `check` refuses it.
    """
    if own is not None:
        tokenizer.chat_template = read(own)
        check(tokenizer, own)
        return
    found = tokenizer.chat_template
    named = found if isinstance(found, dict) else {"default": found or ""}
    if not all(isinstance(text, str) for text in named.values()):
        raise UserError(f"{path}: the chat template of its tokenizer must be text, got {found!r}")
    if "default" not in named:
        raise UserError(
            f"{path}: none of its chat templates ({', '.join(named)}) is called default; put the "
            "one you want in a file and set model.chat_template"
        )
    named = {name: text.removeprefix(_MARK) for name, text in named.items()}
    if not named["default"].strip():
        raise UserError(f"{path}: its tokenizer has no chat template; set model.chat_template")
    tokenizer.chat_template = named if isinstance(found, dict) else named["default"]
    check(tokenizer, f"the template of {path}")


def read(path: str) -> str:
    """The text of a `.jinja` file: UTF-8 whatever the locale, with or without a byte order mark."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"model.chat_template: {path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from error
    except OSError as error:
        raise UserError(f"model.chat_template: {path}: {error.strerror}") from error
    if not text.strip():
        raise UserError(f"model.chat_template: {path} is empty")
    return text


def check(tokenizer: PreTrainedTokenizerBase, source: str = "the tokenizer's template") -> None:
    """Refuse a text that is not a template, or a template whose prompts vary at random.

    Raises:
        UserError: with the line of the template.
    """
    found = tokenizer.chat_template
    for text in found.values() if isinstance(found, dict) else [found or ""]:
        try:
            tree = _compile_jinja_template(text).environment.parse(text)
        except TemplateSyntaxError as error:
            raise UserError(
                f"model.chat_template: {source}, line {error.lineno}: {error.message}"
            ) from error
        line = _line_of_chance(tree)
        if line is not None:
            raise UserError(
                f"model.chat_template: {source}, line {line}: it draws at random, so training "
                "would see other prompts than generation; write a .jinja file that does not"
            )


def _line_of_chance(tree: nodes.Template) -> int | None:
    for node in tree.find_all((nodes.Filter, nodes.Name)):
        if node.name == ("random" if isinstance(node, nodes.Filter) else "lipsum"):
            return node.lineno
    return None


def writes_date(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the template writes today's date; it always gets `TODAY`."""
    found = tokenizer.chat_template
    texts = found.values() if isinstance(found, dict) else [found or ""]
    return any("strftime_now" in text for text in texts)


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Tools | None = None,
) -> str:
    """The tokenizer's chat template, filled in. Raises jinja2.TemplateError if it refuses."""
    try:
        return tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            strftime_now=TODAY.strftime,
        )
    except _PROGRAM_ERRORS as error:
        raise TemplateError(f"{type(error).__name__}: {error}") from error


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes a system message; some templates refuse or drop it."""
    probe = [{"role": "system", "content": PROBE}, {"role": "user", "content": "Hi"}]
    try:
        text = render(tokenizer, probe, add_generation_prompt=True)
    except TemplateError:
        return False
    return PROBE in text


def without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """Puts a leading system message at the start of the next turn.

    >>> without_system([{"role": "system", "content": "A"}, {"role": "user", "content": "B"}])
    [{'role': 'user', 'content': 'A\\n\\nB'}]
    """
    if messages[0]["role"] != "system" or len(messages) == 1:
        return messages
    system, first, *rest = messages
    contents = [message["content"] for message in (system, first) if message["content"]]
    return [{"role": first["role"], "content": "\n\n".join(contents)}, *rest]
