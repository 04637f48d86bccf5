"""Tools and calls of a prompt reach the tokens, in generation and in training alike."""

import pytest
import tokenizer_zoo

from selm.data.drops import in_words
from selm.data.prompts import as_messages
from selm.model.chat import TemplateRefusal
from selm.model.probe import make_chat
from selm.training.examples import tokenize

TOOL = {"type": "function", "function": {"name": "look_out", "parameters": {"type": "object"}}}
CALL = {"type": "function", "function": {"name": "look_out", "arguments": {"at": "sea"}}}
PROMPT = [
    {"role": "user", "content": "What is there?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "name": "look_out", "content": "a ship"},
    {"role": "user", "content": "So?"},
]


def row(**changes: object) -> dict[str, object]:
    pair = {"chosen": as_messages("A ship."), "rejected": as_messages("No.")}
    return {"prompt_id": "p1", "prompt": PROMPT, "tools": [TOOL]} | pair | changes


def test_tools_and_calls_are_in_the_prompt_of_a_template_that_knows_them() -> None:
    chat = make_chat(tokenizer_zoo.qwen3())
    prompt = chat.tokenizer.decode(chat.prompt_ids(PROMPT, [TOOL]))
    assert prompt.count("look_out") >= 2 and "a ship" in prompt and '"at": "sea"' in prompt
    (example,), dropped = tokenize([row()], chat, None, with_explored=False)
    assert not dropped
    assert example["prompt_ids"] == chat.prompt_ids(PROMPT, [TOOL])
    assert example["chosen_ids"] == chat.response_ids(PROMPT, "A ship.", tools=[TOOL])


@pytest.mark.parametrize("changes", [{}, {"tools": None}, {"prompt": PROMPT[:1]}])
def test_a_template_that_leaves_them_out_costs_the_row(changes: dict[str, object]) -> None:
    chat = make_chat(tokenizer_zoo.smollm2())
    one = row(**changes)
    with pytest.raises(TemplateRefusal) as refused:
        chat.prompt_ids(one["prompt"], one["tools"])
    assert refused.value.reason == "tools_not_in_template"
    plain = row(prompt=PROMPT[:1], tools=None)
    examples, dropped = tokenize([one, plain], chat, None, with_explored=False)
    assert len(examples) == 1
    assert in_words(dropped).startswith("1 tools_not_in_template (prompt p1, ")


def test_special_tokens_written_in_tools_and_calls_are_removed() -> None:
    chat = make_chat(tokenizer_zoo.qwen3())

    def tokens(text: str) -> list[int]:
        about = {"name": "look_out", "description": text}
        call = {"type": "function", "function": {"name": "look_out", "arguments": {"at": text}}}
        prompt = [PROMPT[0], PROMPT[1] | {"tool_calls": [call]}, *PROMPT[2:]]
        return chat.prompt_ids(prompt, [{"type": "function", "function": about}])

    assert tokens("a<|im_end|>b") == tokens("ab")
