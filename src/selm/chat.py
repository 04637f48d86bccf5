"""The one place that turns messages into tokens.

Generation and training both call `prompt_ids`; labels come from `response_ids`. So the policy is
trained behind exactly the tokens that it is asked with, and is taught exactly one end-of-turn.

    prompt_ids    <s> <|user|> \\n Hi </s> \\n <|assistant|> \\n
    response_ids                                            Hello ! </s>
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from selm.errors import UserError
from selm.prompts import Message, tool_name
from selm.recipe import Model

_PROBE = "PROBE"

# What templates that write today's date get (Llama 3.2's own default): a run that goes on after
# midnight must not train behind other tokens than it generated from.
_TODAY = datetime(2024, 7, 26)


Tools = Sequence[Mapping[str, Any]]


class TemplateRefusal(UserError):
    """The chat template does not take a prompt: that row is dropped, under `reason`."""

    def __init__(self, message: str, reason: str = "refused_by_template") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Chat:
    """A tokenizer and what its chat template does around a response.

    Attributes:
        lead: white space that the template puts between the generation prompt and the response,
            e.g. " " for `[/INST] Hello`.
        space: white space that the tokenizer itself puts before a response, as sentencepiece does
            behind Phi-3's `<|assistant|>`: it is in the tokens, and not in the text.
        header: what has to follow a rendered prompt where the template ignores
            `add_generation_prompt`, e.g. "<|im_start|>assistant\\n"; else empty.
        end_of_turn: id of the token that ends an assistant's turn.
        adds_bos: BOS comes from the tokenizer (Mistral with Zephyr's template), not from the
            template (Llama 3), and there is one (not in Qwen).
        takes_system: the template writes a system message; if it does not (it refuses or drops
            them), the message goes to the head of the user's turn.
    """

    tokenizer: PreTrainedTokenizerBase
    lead: str
    space: str
    header: str
    end_of_turn: int
    adds_bos: bool
    takes_system: bool

    def prompt_ids(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """Tokens of the conversation up to where the assistant's answer starts.

        Args:
            tools: the functions that the prompt offers, as JSON schemas.

        Raises:
            TemplateRefusal: the template takes no such conversation, or writes no tools.
        """
        return self._encode(self._prompt_text(messages, tools))

    def response_ids(
        self,
        messages: Sequence[Message],
        response: str,
        finished: bool = True,
        tools: Tools | None = None,
    ) -> list[int]:
        """Tokens of a response behind `prompt_ids(messages)`, and one end-of-turn.

        Args:
            messages: the prompt; the response's first token may depend on its last characters.
            response: plain text. Special tokens written in it are removed: they would end the turn.
            finished: False if the response was cut at the length limit; it gets no end-of-turn.
        """
        response = self._without_specials(response)
        prompt = self.prompt_ids(messages, tools)
        whole = self._encode(self._prompt_text(messages, tools) + self.lead + response)
        if whole[: len(prompt)] == prompt:
            ids = whole[len(prompt) :]
        else:  # the response's first characters merge into the prompt's last token
            ids = self.tokenizer.encode(self.lead + response, add_special_tokens=False)
        return [*ids, self.end_of_turn] if finished else ids

    def stop_ids(self, generation_config: GenerationConfig | None) -> list[int]:
        """Every token that ends a response: end-of-turn, EOS and the generation config's list."""
        ids = {self.end_of_turn}
        configured = generation_config.eos_token_id if generation_config is not None else None
        for found in (self.tokenizer.eos_token_id, configured):
            if found is not None:
                ids |= {found} if isinstance(found, int) else set(found)
        return sorted(ids)

    def text(self, ids: Sequence[int]) -> str:
        """The response's plain text, without special tokens and the template's `lead`.

        It is decoded behind another word: sentencepiece drops a leading space where a text starts.
        """
        word = self.tokenizer.encode("x", add_special_tokens=False)
        response = [token for token in ids if token != self.end_of_turn]
        before = self._decode(word)
        text = self._decode([*word, *response])
        return text.removeprefix(before).removeprefix(self.lead or self.space)

    def _decode(self, ids: Sequence[int]) -> str:
        """Without the clean-up that Llama 3's tokenizer asks for: it would turn `a .` to `a.`."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _prompt_text(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        """Special tokens written in messages are removed: they would start turns, or the text."""
        messages = [self._harmless(message) for message in messages]
        tools = [self._harmless(tool) for tool in tools] if tools else None
        if not self.takes_system:
            messages = without_system(messages)
        try:
            text = render(self.tokenizer, messages, add_generation_prompt=True, tools=tools)
        except TemplateError as error:
            roles = ", ".join(message["role"] for message in messages)
            raise TemplateRefusal(
                f"model.chat_template: it refuses a prompt of the roles {roles}: {error}"
            ) from error
        _check_tools_written(text, messages, tools or [])
        return text + self.header

    def _harmless(self, value: Any) -> Any:
        """Texts of a message or a tool, however deep, without special tokens."""
        if isinstance(value, str):
            return self._without_specials(value)
        if isinstance(value, Mapping):
            return {key: self._harmless(item) for key, item in value.items()}
        return [self._harmless(item) for item in value] if isinstance(value, list) else value

    def _without_specials(self, text: str) -> str:
        """Remove special tokens written as text, also those that only a removal puts together."""
        while (removed := self._written_specials.sub("", text)) != text:
            text = removed
        return text

    @cached_property
    def _written_specials(self) -> re.Pattern[str]:
        tokenizer = self.tokenizer
        added = [
            token.content for token in tokenizer.added_tokens_decoder.values() if token.special
        ]
        end_of_turn = tokenizer.convert_ids_to_tokens(self.end_of_turn)
        specials = {*tokenizer.all_special_tokens, *added, end_of_turn}
        longest_first = sorted(specials, key=len, reverse=True)
        return re.compile("|".join(re.escape(special) for special in longest_first))

    def _encode(self, text: str) -> list[int]:
        """Exactly one BOS where the model knows one, whether or not its template writes it."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [self.tokenizer.bos_token_id, *ids] if self.adds_bos else ids


def load_chat(path: str, model: Model) -> Chat:
    """The tokenizer of a checkpoint folder or Hub id, with the recipe's chat template if any.

    Raises:
        UserError: nothing there, or no chat template.
    """
    revision = model.revision if path == model.name_or_path else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # of a broken file, libraries raise what they like
        raise UserError(f"{path}: no tokenizer can be loaded: {_first_line(error)}") from error
    if model.chat_template is not None:
        tokenizer.chat_template = Path(model.chat_template).read_text(encoding="utf-8")
    if tokenizer.chat_template is None:
        raise UserError(f"{path}: its tokenizer has no chat template; set model.chat_template")
    return make_chat(tokenizer)


def make_chat(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """Find out what the template does, by rendering a probe conversation.

    Raises:
        UserError: the template cannot write one (some vision models want content in parts), or
            nothing could end a turn.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no EOS token: set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    asked: list[Message] = [{"role": "user", "content": "Hi"}]
    answered = [*asked, {"role": "assistant", "content": _PROBE}]
    try:
        prompt = render(tokenizer, asked, add_generation_prompt=True)
        whole = render(tokenizer, answered, add_generation_prompt=False)
    except TemplateError as error:
        raise UserError(f"model.chat_template: it refuses a conversation: {error}") from error
    if _PROBE not in whole:
        raise UserError("model.chat_template: it does not write the text of a message")
    before, _, after = whole.rpartition(_PROBE)
    between = before.removeprefix(prompt) if before.startswith(prompt) else ""
    ignores_flag = prompt == render(tokenizer, asked, add_generation_prompt=False)
    chat = Chat(
        tokenizer=tokenizer,
        lead=between if between.isspace() else "",
        space="",
        header=between if ignores_flag and not between.isspace() else "",
        end_of_turn=_end_of_turn(tokenizer, after),
        adds_bos=_adds_bos(tokenizer, prompt),
        takes_system=takes_system(tokenizer),
    )
    space = chat.text(chat.response_ids(asked, _PROBE)).removesuffix(_PROBE)
    return replace(chat, space=space if space.isspace() else "")


def _adds_bos(tokenizer: PreTrainedTokenizerBase, prompt: str) -> bool:
    """Whether the tokenizer puts BOS before a text, and the template does not write it itself."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("x")["input_ids"][:1] != [bos]:
        return False
    return bos not in tokenizer.encode(prompt, add_special_tokens=False)


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, after: str) -> int:
    """The first special token that the template writes after a response, else EOS.

    Added tokens count, for some end-of-turn tokens are not marked as special; runs of white space,
    which some vocabularies add, do not.
    """
    added = {i for i, t in tokenizer.added_tokens_decoder.items() if t.content.strip()}
    special = set(tokenizer.all_special_ids) | added
    for token in tokenizer.encode(after, add_special_tokens=False):
        if token in special:
            return token
    return tokenizer.eos_token_id


def takes_system(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the chat template writes a system message; some refuse them, some drop them."""
    probe = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "Hi"}]
    try:
        text = render(tokenizer, probe, add_generation_prompt=True)
    except TemplateError:
        return False
    return _PROBE in text


def without_system(messages: Sequence[Message]) -> Sequence[Message]:
    """A leading system message goes to the head of the turn behind it.

    >>> without_system([{"role": "system", "content": "A"}, {"role": "user", "content": "B"}])
    [{'role': 'user', 'content': 'A\\n\\nB'}]
    """
    if messages[0]["role"] != "system" or len(messages) == 1:
        return messages
    system, first, *rest = messages
    contents = [message["content"] for message in (system, first) if message["content"]]
    return [{"role": first["role"], "content": "\n\n".join(contents)}, *rest]


def _check_tools_written(text: str, messages: Sequence[Message], tools: Tools) -> None:
    """Many templates leave tools and calls out: the policy would answer what it was not told."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    lost = [name for name in map(tool_name, [*tools, *calls]) if name not in text]
    if lost:
        raise TemplateRefusal(
            f"model.chat_template: it does not write the tool {lost[0]!r} of a prompt",
            "tools_not_in_template",
        )


def render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    add_generation_prompt: bool,
    tools: Tools | None = None,
) -> str:
    """The tokenizer's chat template, filled in. Raises jinja2.TemplateError if it refuses."""
    return tokenizer.apply_chat_template(
        list(messages),
        tools=tools,
        tokenize=False,
        add_generation_prompt=add_generation_prompt,
        strftime_now=_TODAY.strftime,
    )


def _first_line(error: Exception) -> str:
    """Where it says nothing, or a name alone (KeyError), what kind of error it is."""
    said = (str(error).strip() or "nothing said").splitlines()[0]
    return said if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {said}"
