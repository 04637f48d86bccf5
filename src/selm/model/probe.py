"""A chat is loaded: what its template does is found by rendering a probe conversation."""

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
        UserError: nothing there, no chat template, or one that `make_chat` cannot use.
    """
    revision = model.revision if path == model.name_or_path else None
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=model.trust_remote_code
        )
    except Exception as error:  # of a broken file, libraries raise what they like
        raise UserError(f"{path}: no tokenizer can be loaded: {_first_line(error)}") from error
    template.settle(tokenizer, model.chat_template, path)
    return make_chat(tokenizer)


def make_chat(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """Find out what the template does, by rendering a probe conversation.

    Raises:
        UserError: the template cannot write one (some vision models want content in parts), writes
            prompts that its answers do not follow, or nothing could end a turn.
    """
    if tokenizer.eos_token_id is None:
        raise UserError(
            "the tokenizer has no EOS token: set eos_token in its tokenizer_config.json"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    template.judge(tokenizer)
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
    """What the template writes of a small conversation.

    Attributes:
        asked: messages up to the user's, which some templates want behind a system message.
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
            raise UserError("model.chat_template: it does not write the text of a message")
        before, _, after = whole.rpartition(PROBE)
        return Probe(asked, prompt, unprompted, before, after)
    raise UserError(f"model.chat_template: it refuses a conversation: {refusals[0]}")


def _between(probe: Probe) -> str:
    """What the finished conversation has between the prompt and the answer."""
    if not probe.before.startswith(probe.prompt):
        raise UserError(
            f"model.chat_template: its prompts end in {probe.prompt[-40:]!r}, but what it writes "
            f"before an answer ends in {probe.before[-40:]!r}, so the policy would be trained on "
            "something else than it is asked; write a .jinja file whose generation prompt is what "
            "stands before an answer, and set model.chat_template"
        )
    return probe.before.removeprefix(probe.prompt)


def _turn_markers(tokenizer: PreTrainedTokenizerBase, probe: Probe, header: str) -> frozenset[str]:
    """Added tokens around turns: what users type must not become one, and no answer goes past one.

    Tokens that open an answer's own parts, as `<think>` does, are none, unless they are special.
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
    """Markers of what the generation prompt adds to a conversation."""
    prompted, unprompted = added.findall(probe.prompt + header), added.findall(probe.unprompted)
    same = takewhile(lambda pair: pair[0] == pair[1], zip(prompted, unprompted, strict=False))
    return prompted[len(list(same)) :]


def _added(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """Tokens with a text of their own, special or not; runs of white space, which some
    vocabularies add, say nothing about turns."""
    added = [token.content for token in tokenizer.added_tokens_decoder.values()]
    return frozenset(t for t in [*tokenizer.all_special_tokens, *added] if t.strip())


def _adds_bos(tokenizer: PreTrainedTokenizerBase, prompt: str) -> bool:
    """Whether the tokenizer puts BOS before a text, and the template does not write it itself."""
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer("x")["input_ids"][:1] != [bos]:
        return False
    return bos not in tokenizer.encode(prompt, add_special_tokens=False)


def _ending(tokenizer: PreTrainedTokenizerBase, after: str) -> tuple[str, int]:
    """The first added token that the template writes after a response, else EOS; the text before.

    It need not be special: some end-of-turn tokens are not marked as such.
    """
    found = any_of(_added(tokenizer)).search(after)
    if found is None:
        return "", tokenizer.eos_token_id
    return after[: found.start()], tokenizer.convert_tokens_to_ids(found.group())


def _first_line(error: Exception) -> str:
    """Where it says nothing, or a name alone (KeyError), what kind of error it is."""
    said = (str(error).strip() or "nothing said").splitlines()[0]
    return said if isinstance(error, (OSError, ValueError)) else f"{type(error).__name__}: {said}"
