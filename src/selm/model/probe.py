"""Loads a chat, and finds out what its template does by rendering a short test conversation."""

import re
from dataclasses import dataclass, replace
from itertools import takewhile

from jinja2 import TemplateError
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from selm.data.schemas import Message
from selm.errors import UserError
from selm.model import template
from selm.model.chat import Chat, any_of, specials
from selm.model.template import PROBE, render, takes_system
from selm.recipe.schema import Model

_ASKED: list[Message] = [{"role": "user", "content": "Hi"}]
_WITH_SYSTEM: list[Message] = [{"role": "system", "content": "Be brief."}, *_ASKED]


def load_chat(path: str, model: Model) -> Chat:
    """The tokenizer of a checkpoint folder or Hub id, with the recipe's chat template if any.

    Raises:
        UserError: there is no tokenizer or no chat template, or `make_chat` cannot use it.
    """
    revision = model.revision if path == model.name_or_path else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # libraries raise all kinds of errors for a broken file
        raise UserError(f"{path}: its tokenizer cannot be loaded: {_first_line(error)}") from error
    template.settle(tokenizer, model.chat_template, path)
    return make_chat(tokenizer)


def make_chat(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """Find out what the template does by rendering a short test conversation.

    Raises:
        UserError: the template cannot write it (some vision models want content in parts), its
            answers do not continue its prompts, or no token could end a turn.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no EOS token: set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    template.check(tokenizer)
    probe = _probe(tokenizer)
    between = _between(probe)
    ignores_flag = probe.prompt == probe.unprompted
    header = "" if between.isspace() else between
    closing, end_of_turn = _ending(tokenizer, probe.after)
    chat = Chat(
        tokenizer=tokenizer,
        lead=between if between.isspace() else "",
        space="",
        header=header,
        opens_by_answer=bool(header) and not ignores_flag,
        closing=closing,
        end_of_turn=end_of_turn,
        turn_markers=_turn_markers(tokenizer, probe, header)
        | set(tokenizer.convert_ids_to_tokens([end_of_turn])),
        adds_bos=_adds_bos(tokenizer, probe.prompt),
        takes_system=takes_system(tokenizer),
    )
    if chat.swallows(chat.encode(probe.prompt)):
        chat = replace(chat, lead="")
    space = chat.text(chat.behind(probe.prompt + header, chat.lead + PROBE))
    space = space.removesuffix(PROBE)
    return replace(chat, space=space if space.isspace() else "")


@dataclass(frozen=True)
class Probe:
    """What the template writes for a short test conversation.

    Attributes:
        asked: messages up to the user's; some templates need a system message before it.
        prompt, unprompted: their text, with and without the generation prompt.
        before, after: the text of the finished conversation around the answer.
    """

    asked: list[Message]
    prompt: str
    unprompted: str
    before: str
    after: str


def _probe(tokenizer: PreTrainedTokenizerBase) -> Probe:
    refusals = []
    for asked in (_ASKED, _WITH_SYSTEM):
        try:
            prompt = render(tokenizer, asked, add_generation_prompt=True)
            unprompted = render(tokenizer, asked, add_generation_prompt=False)
            answered = [*asked, {"role": "assistant", "content": PROBE}]
            whole = render(tokenizer, answered, add_generation_prompt=False)
        except TemplateError as error:
            refusals.append(error)
            continue
        if PROBE not in whole:
            raise UserError("model.chat_template: it does not write the text of messages")
        before, _, after = whole.rpartition(PROBE)
        return Probe(asked, prompt, unprompted, before, after)
    raise UserError(f"model.chat_template: it refuses a conversation: {refusals[0]}")


def _between(probe: Probe) -> str:
    """The text of the finished conversation between the prompt and the answer."""
    if not probe.before.startswith(probe.prompt):
        raise UserError(
            f"model.chat_template: its prompts end in {probe.prompt[-40:]!r}, but what it writes "
            f"before an answer ends in {probe.before[-40:]!r}, so the policy would be trained on "
            "other prompts than it is given; write a .jinja file whose generation prompt is the "
            "text before an answer, and set model.chat_template"
        )
    return probe.before.removeprefix(probe.prompt)


def _turn_markers(tokenizer: PreTrainedTokenizerBase, probe: Probe, header: str) -> frozenset[str]:
    """Added tokens around turns: a user's text must not become one, and an answer ends before one.

    Tokens that open a part of an answer, such as `<think>`, do not count unless they are special.
    """
    added = any_of(_added(tokenizer))
    conversation = [*probe.asked, {"role": "assistant", "content": PROBE}, *_ASKED]
    try:
        text = render(tokenizer, conversation, add_generation_prompt=False)
    except TemplateError:
        text = ""
    between_turns = added.findall(text.rpartition(PROBE)[2] if PROBE in text else "")
    opened = _opened(added, probe, header)
    special = specials(tokenizer)
    own = [marker for i, marker in enumerate(opened) if i == 0 or marker in special]
    return frozenset([*between_turns, *own])


def _opened(added: re.Pattern[str], probe: Probe, header: str) -> list[str]:
    """The markers that the generation prompt adds to a conversation."""
    prompted, unprompted = added.findall(probe.prompt + header), added.findall(probe.unprompted)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompted, unprompted, strict=False))
    return prompted[len(list(same)) :]


def _added(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Added tokens, special or not, except runs of white space, which some vocabularies add:
    these say nothing about turns."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    return frozenset(t for t in [*tokenizer.all_special_tokens, *added] if t.strip())


def _adds_bos(tokenizer: PreTrainedTokenizerBase, prompt: str) -> bool:
    """Whether the tokenizer puts BOS before a text and the template does not write it."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("x")["input_ids"][:1] != [bos]:
        return False
    return bos not in tokenizer.encode(prompt, add_special_tokens=False)


def _ending(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, int]:
    """The text after a response up to the first added token, and that token, or EOS if none.

    The token need not be special: some end-of-turn tokens are not marked as special.
    """
    found = any_of(_added(tokenizer)).search(after)
    if found is None:
        return "", tokenizer.eos_token_id
    return after[: found.start()], tokenizer.convert_tokens_to_ids(found.group())


def _first_line(error: Exception) -> str:
    """The error's first line, with its class if the line alone would not explain it (KeyError)."""
    said = (str(error).strip() or "nothing said").splitlines()[0]
    return said if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {said}"
