"""The one place that turns messages into tokens.

Generation and training both call `prompt_ids`; labels come from `response_ids`. So the policy is
trained after exactly the prompt tokens that generation uses, and learns exactly one end-of-turn.

    prompt_ids    <s> <|user|> \\n Hi </s> \\n <|assistant|> \\n
    response_ids                                            Hello ! </s>

Together they are what the template writes for the finished conversation. If it writes something
between its generation prompt and an answer (an empty think block, harmony's `<|channel|>final`),
that belongs to the prompt. If an answer does not continue the generation prompt, it is refused.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import GenerationConfig, PreTrainedTokenizerBase

from selm.data.prompts import tool_name
from selm.data.schemas import Message, Prompted
from selm.errors import UserError
from selm.model import template
from selm.model.template import Tools, render, without_system

_CUT = "\ufffd"  # what the bytes of an incomplete character decode to
_LONGEST_CUT = 3  # tokens: a character has four bytes at most


class TemplateRefusal(UserError):
    """The chat template refuses a prompt: the row is dropped and counted under `reason`."""

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
            after Phi-3's `<|assistant|>`: it is in the tokens, but not in the text.
        header: text that has to follow a rendered prompt, because the template ignores
            `add_generation_prompt`, e.g. "<|im_start|>assistant\n", or because it writes more
            before an answer than in its generation prompt, e.g. "<think>\n\n</think>\n\n";
            otherwise empty.
        opens_by_answer: the header has the second reason, so it may depend on the answer.
        closing: text that the template writes between a response and its end-of-turn.
        end_of_turn: id of the token that ends an assistant's turn.
        turn_markers: added tokens, special or not, that the template writes between turns.
        adds_bos: the tokenizer writes BOS (Mistral with Zephyr's template). False if the template
            writes it (Llama 3) or there is none (Qwen).
        takes_system: the template writes system messages. If it refuses or drops them, the message
            is put at the start of the user's turn.
    """

    tokenizer: PreTrainedTokenizerBase
    lead: str
    space: str
    header: str
    opens_by_answer: bool
    closing: str
    end_of_turn: int
    turn_markers: frozenset[str]
    adds_bos: bool
    takes_system: bool

    def prompt_ids(self, messages: Sequence[Message], tools: Tools | None = None) -> list[int]:
        """Tokens of the conversation, up to the start of the assistant's answer.

        Args:
            tools: the functions that the prompt offers, as JSON schemas.

        Raises:
            TemplateRefusal: the template refuses the conversation, or does not write its tools.
        """
        return self.encode(self._prompt_text(messages, tools))

    def response_ids(
        self,
        messages: Sequence[Message],
        response: str,
        finished: bool = True,
        tools: Tools | None = None,
    ) -> list[int]:
        """Tokens of a response that follows `prompt_ids(messages)`, and one end-of-turn.

        Args:
            messages: the prompt; the response's first token may depend on its last characters.
            response: plain text. Special tokens written in it are removed: they would end the turn.
            finished: False if the response was truncated at the limit; it gets no end-of-turn.

        Raises:
            TemplateRefusal: before this response the template writes something other than the
                prompt, for example because the response has its own thoughts.
        """
        response = self._without_specials(response)
        before = self._prompt_text(messages, tools)
        if self.opens_by_answer:
            self._check_answer(before, messages, response, tools)
        text = self.lead + response + (self.closing if finished else "")
        ids = self.behind(before, text)
        return [*ids, self.end_of_turn] if finished else ids

    def stop_ids(self, generation_config: GenerationConfig | None) -> list[int]:
        """Every token that ends a response: end-of-turn, EOS and the generation config's list."""
        ids = {self.end_of_turn}
        configured = generation_config.eos_token_id if generation_config is not None else None
        for found in (self.tokenizer.eos_token_id, configured):
            if found is not None:
                ids |= {found} if isinstance(found, int) else set(found)
        return sorted(ids)

    def facts(self) -> str:
        """What the template does, as far as the recipe's author should know."""
        known = self.tokenizer.bos_token_id is not None
        end = self.tokenizer.convert_ids_to_tokens(self.end_of_turn)
        no_role = "put into the user's turn: the template has no role"
        said = [
            f"BOS {self.tokenizer.bos_token if known else 'none'}",
            f"a turn ends in {end}",
            f"system messages are {'kept' if self.takes_system else no_role}",
        ]
        if self.opens_by_answer:
            said.append(f"prompts end in {self.header!r}, as finished answers begin")
        if template.writes_date(self.tokenizer):
            said.append(f"today's date is always {template.TODAY:%d %b %Y}")
        return ", ".join(said)

    def text(self, ids: Sequence[int], finished: bool = True) -> str:
        """The response's plain text, without special tokens and without the template's additions.

        The text ends where another turn begins, and before an incomplete character. The ids are
        decoded after another word, because sentencepiece drops a space at the start of a text.

        Args:
            ids: as generated, with or without the token that ended them.
            finished: False if they were truncated at the limit.
        """
        word = self.tokenizer.encode("x", add_special_tokens=False)
        before = self._decode(word)
        turn = next((i for i, token in enumerate(ids) if token in self._turn_ids), len(ids))
        text = self._whole_characters(word, list(ids[:turn]))
        text = text.removeprefix(before).removeprefix(self.lead).removeprefix(self.space)
        return text.removesuffix(self.closing) if finished else text

    def _whole_characters(self, word: list[int], ids: list[int]) -> str:
        """The text of `ids` after a word, without last tokens that are part of a character."""
        for cut in range(min(_LONGEST_CUT, len(ids)) + 1):
            text = self._decode([*word, *ids[: len(ids) - cut]])
            if not text.endswith(_CUT):
                return text
        return self._decode([*word, *ids])  # a real replacement character, which the policy wrote

    def _decode(self, ids: Sequence[int]) -> str:
        """Without the clean-up that Llama 3's tokenizer asks for: it would turn `a .` to `a.`."""
        return self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def _prompt_text(self, messages: Sequence[Message], tools: Tools | None = None) -> str:
        messages, tools = self._prepared(messages, tools)
        text = self._render(messages, tools, add_generation_prompt=True)
        _check_tools_written(text, messages, tools or [])
        return text + self.header

    def _prepared(
        self, messages: Sequence[Message], tools: Tools | None
    ) -> tuple[list[Message], Tools | None]:
        """Remove special tokens written in messages: they would start turns or the whole text."""
        messages = [self._harmless(message) for message in messages]
        tools = [self._harmless(tool) for tool in tools] if tools else None
        return list(messages if self.takes_system else without_system(messages)), tools

    def _render(
        self, messages: list[Message], tools: Tools | None, add_generation_prompt: bool
    ) -> str:
        try:
            return render(self.tokenizer, messages, add_generation_prompt, tools)
        except TemplateError as error:
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise TemplateRefusal(
                f"model.chat_template: it refuses a prompt with the roles {roles}: {error}"
            ) from error

    def _check_answer(
        self, before: str, messages: Sequence[Message], response: str, tools: Tools | None
    ) -> None:
        """Check that the finished conversation is prompt and response, except for white space."""
        asked, tools = self._prepared(messages, tools)
        for answer in (response, template.PROBE):
            turn: Message = {"role": "assistant", "content": answer}
            whole = self._render([*asked, turn], tools, add_generation_prompt=False)
            behind = whole.removeprefix(before)
            if whole.startswith(before) and behind.strip().startswith(answer.strip()):
                break
        if answer != response:
            raise TemplateRefusal(
                f"model.chat_template: a prompt ends in {self.header!r}, and before the answer "
                f"{response[:40]!r} the template writes something else",
                "response_not_behind_its_prompt",
            )

    def behind(self, before: str, text: str) -> list[int]:
        """Tokens of a text behind a prompt, whose last characters may decide on the first of them.

        Some markers (Phi-3's) remove the white space after them. They do so in a prompt, because
        the model knows it like that, but the policy's text after such a marker keeps its own.
        """
        prompt = self.encode(before)
        if text[:1].isspace() and self.swallows(prompt):
            return self._encode_behind_marker(text)
        whole = self.encode(before + text)
        if whole[: len(prompt)] == prompt:
            return whole[len(prompt) :]
        # the response's first characters merge into the prompt's last token
        return self.tokenizer.encode(text, add_special_tokens=False)

    def swallows(self, prompt: list[int]) -> bool:
        """Whether a prompt's last token takes the white space behind it away."""
        last = self.tokenizer.added_tokens_decoder.get(prompt[-1]) if prompt else None
        return last is not None and last.rstrip

    def _encode_behind_marker(self, text: str) -> list[int]:
        """Encode as if after a special token that keeps the white space after it."""
        for marker, token in self.tokenizer.added_tokens_decoder.items():
            if token.special and not token.rstrip:
                ids = self.tokenizer.encode(token.content + text, add_special_tokens=False)
                return ids[ids.index(marker) + 1 :]
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _harmless(self, value: Any) -> Any:
        """A message or a tool without special tokens in any of its texts."""
        if isinstance(value, str):
            return self._without_specials(value)
        if isinstance(value, Mapping):
            return {self._harmless(key): self._harmless(item) for key, item in value.items()}
        return [self._harmless(item) for item in value] if isinstance(value, list) else value

    def _without_specials(self, text: str) -> str:
        """Remove special tokens written as text, also those that appear only after a removal."""
        while (removed := self._written_specials.sub("", text)) != text:
            text = removed
        return text

    @cached_property
    def _written_specials(self) -> re.Pattern[str]:
        return any_of(specials(self.tokenizer) | self.turn_markers)

    @cached_property
    def _turn_ids(self) -> frozenset[int]:
        return frozenset(self.tokenizer.convert_tokens_to_ids(list(self.turn_markers)))

    def encode(self, text: str) -> list[int]:
        """Encode with exactly one BOS if the model has one, whoever writes it."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [self.tokenizer.bos_token_id, *ids] if self.adds_bos else ids


def prompt_ids_of(chat: Chat, row: Prompted) -> list[int] | str:
    """The tokens of a row's prompt, or the reason why the template refuses it."""
    try:
        return chat.prompt_ids(row["prompt"], row.get("tools"))
    except TemplateRefusal as refusal:
        return refusal.reason


def specials(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return frozenset([*tokenizer.all_special_tokens, *added])


def any_of(tokens: frozenset[str]) -> re.Pattern[str]:
    """Matches any of the tokens; if one token starts with another, the longer one is found."""
    return re.compile("|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)))


def _check_tools_written(text: str, messages: Sequence[Message], tools: Tools) -> None:
    """Refuse a prompt whose tools or calls the template leaves out, as many templates do."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    lost = [name for name in map(tool_name, [*tools, *calls]) if name not in text]
    if lost:
        raise TemplateRefusal(
            f"model.chat_template: it does not write the tool {lost[0]!r} of a prompt",
            "tools_not_in_template",
        )
