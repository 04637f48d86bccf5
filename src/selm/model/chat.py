"""The one place that turns messages into tokens.

Generation and training both call `prompt_ids`; labels come from `response_ids`. So the policy is
trained behind exactly the tokens that it is asked with, and is taught exactly one end-of-turn.

    prompt_ids    <s> <|user|> \\n Hi </s> \\n <|assistant|> \\n
    response_ids                                            Hello ! </s>

Both together are what the template writes of the finished conversation. Where it writes something
between its generation prompt and an answer (an empty think block, harmony's `<|channel|>final`),
that belongs to the prompt; where its prompt goes on otherwise than its answers, it is refused.
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

_CUT = "\ufffd"  # what bytes become that are no whole character
_LONGEST_CUT = 3  # tokens: a character has four bytes at most


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
        header: what has to follow a rendered prompt, where the template ignores
            `add_generation_prompt`, e.g. "<|im_start|>assistant\n", or writes more before an
            answer than its generation prompt has, e.g. "<think>\n\n</think>\n\n"; else empty.
        opens_by_answer: the header is of the second kind, and may depend on the answer.
        closing: text that the template writes between a response and its end-of-turn.
        end_of_turn: id of the token that ends an assistant's turn.
        turn_markers: added tokens, special or not, that the template writes between turns.
        adds_bos: BOS comes from the tokenizer (Mistral with Zephyr's template), not from the
            template (Llama 3), and there is one (not in Qwen).
        takes_system: the template writes a system message; if it does not (it refuses or drops
            them), the message goes to the head of the user's turn.
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
        """Tokens of the conversation up to where the assistant's answer starts.

        Args:
            tools: the functions that the prompt offers, as JSON schemas.

        Raises:
            TemplateRefusal: the template takes no such conversation, or writes no tools.
        """
        return self.encode(self._prompt_text(messages, tools))

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

        Raises:
            TemplateRefusal: the template writes something else than the prompt before this
                response, as before one that brings thoughts of its own.
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
        """The response's plain text, without special tokens and what the template adds to it.

        It ends where another turn begins, and before a character of which bytes are missing. It
        is decoded behind another word: sentencepiece drops a leading space where a text starts.

        Args:
            ids: as generated, with or without the token that ended them.
            finished: False if they were cut at the length limit.
        """
        word = self.tokenizer.encode("x", add_special_tokens=False)
        before = self._decode(word)
        turn = next((i for i, token in enumerate(ids) if token in self._turn_ids), len(ids))
        text = self._whole_characters(word, list(ids[:turn]))
        text = text.removeprefix(before).removeprefix(self.lead).removeprefix(self.space)
        return text.removesuffix(self.closing) if finished else text

    def _whole_characters(self, word: list[int], ids: list[int]) -> str:
        """The text of `ids` behind a word, without last tokens that are a part of a character."""
        for cut in range(min(_LONGEST_CUT, len(ids)) + 1):
            text = self._decode([*word, *ids[: len(ids) - cut]])
            if not text.endswith(_CUT):
                return text
        return self._decode([*word, *ids])  # not cut: it says so

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
        """Special tokens written in messages are removed: they would start turns, or the text."""
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
                f"model.chat_template: it refuses a prompt of the roles {roles}: {error}"
            ) from error

    def _check_answer(
        self, before: str, messages: Sequence[Message], response: str, tools: Tools | None
    ) -> None:
        """Whether the finished conversation is the prompt and the response, but for white space."""
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

        Markers that swallow the white space behind them (Phi-3's) do so in a prompt, as the model
        knows it; what the policy says behind one keeps its own.
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
        """As behind a special token, but one that swallows nothing."""
        for marker, token in self.tokenizer.added_tokens_decoder.items():
            if token.special and not token.rstrip:
                ids = self.tokenizer.encode(token.content + text, add_special_tokens=False)
                return ids[ids.index(marker) + 1 :]
        return self.tokenizer.encode(text, add_special_tokens=False)

    def _harmless(self, value: Any) -> Any:
        """Texts of a message or a tool, however deep, without special tokens."""
        if isinstance(value, str):
            return self._without_specials(value)
        if isinstance(value, Mapping):
            return {self._harmless(key): self._harmless(item) for key, item in value.items()}
        return [self._harmless(item) for item in value] if isinstance(value, list) else value

    def _without_specials(self, text: str) -> str:
        """Remove special tokens written as text, also those that only a removal puts together."""
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
        """Exactly one BOS where the model knows one, whether or not its template writes it."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        return [self.tokenizer.bos_token_id, *ids] if self.adds_bos else ids


def prompt_ids_of(chat: Chat, row: Prompted) -> list[int] | str:
    """The tokens of a row's prompt, or the reason why the template makes none of it."""
    try:
        return chat.prompt_ids(row["prompt"], row.get("tools"))
    except TemplateRefusal as refusal:
        return refusal.reason


def specials(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return frozenset([*tokenizer.all_special_tokens, *added])


def any_of(tokens: frozenset[str]) -> re.Pattern[str]:
    """Where one token is the start of another, the longer one is found."""
    return re.compile("|".join(re.escape(t) for t in sorted(tokens, key=len, reverse=True)))


def _check_tools_written(text: str, messages: Sequence[Message], tools: Tools) -> None:
    """Many templates leave tools and calls out: the policy would answer what it was not told."""
    calls = [call for message in messages for call in message.get("tool_calls", ())]
    lost = [name for name in map(tool_name, [*tools, *calls]) if name not in text]
    if lost:
        raise TemplateRefusal(
            f"model.chat_template: it does not write the tool {lost[0]!r} of a prompt",
            "tools_not_in_template",
        )
