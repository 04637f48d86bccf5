"""Preference rows as the trainer sees them."""

from copy import copy
from functools import cache
from typing import Any

import tokenizer_zoo

from selm.data.prompts import as_messages
from selm.model.chat import Chat
from selm.model.probe import make_chat
from selm.training.examples import ROLES, tokenize

PROMPT = [{"role": "user", "content": "What is the sea?"}]


@cache
def chat() -> Chat:
    return make_chat(tokenizer_zoo.smollm2())


def row(**changes: Any) -> dict[str, Any]:
    return {
        "prompt": PROMPT,
        "chosen": as_messages(changes.pop("chosen", "The sea is the sea.")),
        "rejected": as_messages(changes.pop("rejected", "None.")),
        "explored": "A city on the river Seine.",
        "explored_role": "neither",
        "chosen_finish_reason": "stop",
        "rejected_finish_reason": "stop",
        "explored_finish_reason": "stop",
    } | changes


def labels(text: str, finished: bool = True) -> list[int]:
    return chat().response_ids(PROMPT, text, finished)


def prompt_length() -> int:
    return len(chat().prompt_ids(PROMPT))


def test_an_example_is_the_prompt_and_each_response_with_its_end_of_turn() -> None:
    examples, dropped = tokenize([row()], chat(), None, with_explored=True)
    assert examples == [
        {
            "prompt_ids": chat().prompt_ids(PROMPT),
            "chosen_ids": labels("The sea is the sea."),
            "rejected_ids": labels("None."),
            "explored_ids": labels("A city on the river Seine."),
            "explored_role": 2,
        }
    ]
    assert not dropped


def test_an_explored_response_that_is_in_the_pair_is_not_repeated() -> None:
    for role in ("chosen", "rejected"):
        examples, _ = tokenize([row(explored_role=role)], chat(), None, with_explored=True)
        assert examples[0]["explored_ids"] == []
        assert examples[0]["explored_role"] == ROLES[role]
    assert ROLES == {"chosen": 0, "rejected": 1, "neither": 2}


def test_offline_rows_need_no_explored_columns() -> None:
    offline = {key: row()[key] for key in ("prompt", "chosen", "rejected")}
    examples, _ = tokenize([offline], chat(), None, with_explored=False)
    assert examples[0]["explored_ids"] == []
    assert examples[0]["chosen_ids"] == labels("The sea is the sea.")


def test_each_response_is_cut_for_itself() -> None:
    """The short one stays whole, with its end-of-turn; the long ones lose theirs."""
    room = len(labels("None."))
    examples, _ = tokenize([row()], chat(), prompt_length() + room, with_explored=True)
    assert examples[0]["rejected_ids"] == labels("None.")
    assert examples[0]["chosen_ids"] == labels("The sea is the sea.")[:room]
    assert examples[0]["explored_ids"] == labels("A city on the river Seine.")[:room]
    assert chat().end_of_turn not in examples[0]["chosen_ids"] + examples[0]["explored_ids"]


def test_a_response_that_was_cut_when_generated_has_no_end_of_turn() -> None:
    for which in ("chosen", "rejected", "explored"):
        examples, _ = tokenize(
            [row(**{f"{which}_finish_reason": "length"})], chat(), None, with_explored=True
        )
        for other in ("chosen", "rejected", "explored"):
            ends = examples[0][f"{other}_ids"].count(chat().end_of_turn)
            assert ends == (0 if other == which else 1)


def test_what_leaves_nothing_to_learn_is_dropped_and_counted() -> None:
    rows = [
        row(),
        row(prompt=[{"role": "user", "content": "the sea " * 100}]),
        row(chosen="The same start, then this", rejected="The same start, then that"),
    ]
    room = len(labels("The same", finished=False))
    examples, dropped = tokenize(rows, chat(), prompt_length() + room, with_explored=True)
    assert len(examples) == 1
    assert dropped == {"prompt_longer_than_max_length": 1, "identical_after_truncation": 1}


def test_a_prompt_that_fills_max_length_is_too_long_and_one_token_less_is_not() -> None:
    for max_length, kept in ((prompt_length(), 0), (prompt_length() + 1, 1)):
        examples, _ = tokenize([row()], chat(), max_length, with_explored=True)
        assert len(examples) == kept


def test_an_empty_answer_of_the_policy_is_an_end_of_turn() -> None:
    examples, _ = tokenize([row(rejected="", explored="")], chat(), None, with_explored=True)
    assert examples[0]["rejected_ids"] == examples[0]["explored_ids"] == [chat().end_of_turn]


def test_a_response_without_a_token_of_its_own_is_dropped_and_counted() -> None:
    """The policy was cut before it said anything, or said special tokens only."""
    for which in ("chosen", "rejected", "explored"):
        for nothing in ("", "<|im_start|>", "<|im_end|><|endoftext|>"):
            cut = {which: nothing, f"{which}_finish_reason": "length"}
            examples, dropped = tokenize([row(**cut), row()], chat(), None, with_explored=True)
            assert len(examples) == 1
            assert dropped == {"empty_response": 1}


def test_a_response_with_another_opening_than_the_prompt_is_dropped_and_counted() -> None:
    thinking = make_chat(copy(tokenizer_zoo.qwen3()))
    rows = [row(chosen="<think>\nHm.\n</think>\n\nWater."), row()]
    examples, dropped = tokenize(rows, thinking, None, with_explored=True)
    assert len(examples) == 1
    assert dropped == {"response_not_behind_its_prompt": 1}
