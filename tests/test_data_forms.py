"""A hundred odd data files: what is kept of each, or the reason that is true."""

import csv
import datetime
import decimal
import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset, DatasetDict

from selm.data import raw_rows
from selm.data.columns import as_json
from selm.data.drops import Drops, in_words
from selm.data.parquet import read_rows, save_rows
from selm.data.portions import held_out_portion, overlap, training_portion
from selm.data.schemas import ResponseRow
from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Data, Recipe

SAMPLES = ("generation.num_samples=2", "generation.temperature=1")
ONE = ("iterations=[{objective: selm, learning_rate: 1}]", *SAMPLES)
GOOD = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(12)]
CALL = {"type": "function", "function": {"name": "look", "arguments": {"at": "sea"}}}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
HALF = "\ud83d"


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **more}


def system(content: Any) -> dict[str, Any]:
    return {"role": "system", "content": content}


def said(who: str, value: Any) -> dict[str, Any]:
    return {"from": who, "value": value}


def part(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


@pytest.fixture
def recipe_of(tiny_recipe: str, tmp_path: Path) -> Callable[..., Recipe]:
    """A file name and its bytes in; a recipe that reads it as the training split of a folder."""

    def make(content: bytes, file: str = "train.jsonl", *overrides: str) -> Recipe:
        folder = tmp_path / "own"
        folder.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
        (folder / "test.jsonl").write_text('{"prompt": "held out"}\n', encoding="utf-8")
        return load_recipe(tiny_recipe, [f"data.name_or_path={folder}", *ONE, *overrides])

    return make


def lines(rows: list[Any]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet_bytes(table: pyarrow.Table) -> bytes:
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def contents(row: dict[str, Any]) -> list[str]:
    return [f"{message['role'][0]}:{message['content']}" for message in row["prompt"]]


# One odd row among a dozen good ones: the reason why it is dropped, or its prompt and pair.
ASKED = {"prompt": "Why?", "chosen": "A", "rejected": "B"}
KEPT = (["u:Why?"], "A", "B")
ROWS: dict[str, tuple[Any, Any]] = {
    "text": (ASKED, KEPT),
    "a number as prompt": (ASKED | {"prompt": 7}, (["u:7"], "A", "B")),
    "numbers as answers": (ASKED | {"chosen": 4, "rejected": 0.5}, (["u:Why?"], "4", "0.5")),
    "truth as answers": (ASKED | {"chosen": True, "rejected": False}, (KEPT[0], "true", "false")),
    "not a number": (ASKED | {"chosen": float("nan")}, "chosen_is_no_text"),
    "infinite": (ASKED | {"rejected": float("inf")}, "rejected_is_no_text"),
    "a list of texts": (ASKED | {"chosen": ["A"]}, "chosen_is_no_text"),
    "a list of numbers as prompt": (ASKED | {"prompt": [1, 2]}, "prompt_is_no_text"),
    "an object of other keys": (ASKED | {"chosen": {"text": "A"}}, "without_role_and_content"),
    "an empty object": (ASKED | {"prompt": {}}, "without_role_and_content"),
    "a message": (
        {"prompt": user("Why?"), "chosen": assistant("A"), "rejected": assistant("B")},
        KEPT,
    ),
    "messages": (
        {"prompt": [user("Why?")], "chosen": [assistant("A")], "rejected": [assistant("B")]},
        KEPT,
    ),
    "a message beside a text": (ASKED | {"chosen": assistant("A")}, KEPT),
    "a number in a message": (ASKED | {"prompt": [user(7)]}, (["u:7"], "A", "B")),
    "a list in a list": (ASKED | {"prompt": [[user("Why?")]]}, "prompt_is_no_text"),
    "no content": (ASKED | {"prompt": [{"role": "user"}]}, "without_role_and_content"),
    "null content": (ASKED | {"prompt": [user(None)]}, "empty_prompt"),
    "null role": (ASKED | {"prompt": [{"role": None, "content": "Why?"}]}, "without_role"),
    "parts": (ASKED | {"prompt": [user([part("Wh"), part("y?")])]}, KEPT),
    "a part": (ASKED | {"prompt": [user(part("Why?"))]}, KEPT),
    "a picture in a part": (
        ASKED | {"prompt": [user([{"type": "image", "image": None}, part("Why?")])]},
        "message_has_image_audio_or_video",
    ),
    "a link to a picture": (
        ASKED | {"prompt": [user([{"type": "image_url", "image_url": {"url": "x"}}])]},
        "message_has_image_audio_or_video",
    ),
    "a part of no known kind": (
        ASKED | {"prompt": [user([{"type": "refusal", "refusal": "no"}])]},
        "message_content_is_no_text",
    ),
    "an object as content": (ASKED | {"prompt": [user({"a": 1})]}, "message_content_is_no_text"),
    "ShareGPT": (
        {
            "prompt": [said("human", "Why?")],
            "chosen": said("gpt", "A"),
            "rejected": [said("gpt", "B")],
        },
        KEPT,
    ),
    "whole dialogues": (
        {
            "prompt": None,
            "chosen": [user("Why?"), assistant("A")],
            "rejected": [user("Why?"), assistant("B")],
        },
        KEPT,
    ),
    "whole dialogues behind their first turn": (
        {
            "prompt": "Hi",
            "chosen": [user("Hi"), assistant("Hey."), user("Why?"), assistant("A")],
            "rejected": [user("Hi"), assistant("Hey."), user("Why?"), assistant("B")],
        },
        (["u:Hi", "a:Hey.", "u:Why?"], "A", "B"),
    ),
    "whole dialogues of something else": (
        {
            "prompt": "What is the sea?",
            "chosen": [user("Who?"), assistant("A")],
            "rejected": [user("Who?"), assistant("B")],
        },
        "response_to_another_prompt",
    ),
    "two dialogues": (
        ASKED
        | {
            "prompt": None,
            "chosen": [user("Who?"), assistant("A")],
            "rejected": [user("Why?"), assistant("B")],
        },
        "response_to_another_prompt",
    ),
    "a system message in the prompt alone": (
        {
            "prompt": [system("Be terse."), user("Why?")],
            "chosen": [user("Why?"), assistant("A")],
            "rejected": [user("Why?"), assistant("B")],
        },
        (["s:Be terse.", "u:Why?"], "A", "B"),
    ),
    "a system message in the dialogues alone": (
        {
            "prompt": [user("Why?")],
            "chosen": [system("Be terse."), user("Why?"), assistant("A")],
            "rejected": [system("Be terse."), user("Why?"), assistant("B")],
        },
        (["s:Be terse.", "u:Why?"], "A", "B"),
    ),
    "two system messages": (
        {
            "prompt": [system("Be terse."), user("Why?")],
            "chosen": [system("Be verbose."), user("Why?"), assistant("A")],
            "rejected": [system("Be verbose."), user("Why?"), assistant("B")],
        },
        "response_to_another_prompt",
    ),
    "a system column": (ASKED | {"system": "Be terse."}, (["s:Be terse.", "u:Why?"], "A", "B")),
    "an empty system column": (ASKED | {"system": " "}, KEPT),
    "a system column beside a system message": (
        ASKED | {"system": "S", "prompt": [system("Be terse."), user("Why?")]},
        (["s:Be terse.", "u:Why?"], "A", "B"),
    ),
    "a system column of objects": (ASKED | {"system": {"a": 1}}, "system_is_no_text"),
    "several turns as a response": (
        ASKED | {"chosen": [assistant("A"), user("And?"), assistant("A2")]},
        "response_of_several_turns",
    ),
    "a response that ends with the user": (
        ASKED | {"chosen": [user("Why?"), assistant("A"), user("And?")]},
        "dialogue_does_not_end_with_assistant",
    ),
    "an answer in the prompt": (
        ASKED | {"prompt": [user("Why?"), assistant("So.")]},
        "prompt_does_not_end_with_user",
    ),
    "hh's prompt": (
        {
            "prompt": "\n\nHuman: Hi\n\nAssistant: Hey.\n\nHuman: Why?\n\nAssistant:",
            "chosen": " A",
            "rejected": " B",
        },
        (["u:Hi", "a:Hey.", "u:Why?"], "A", "B"),
    ),
    "hh's dialogues": (
        {
            "prompt": None,
            "chosen": "\n\nHuman: Why?\n\nAssistant: A",
            "rejected": "\n\nHuman: Why?\n\nAssistant: B",
        },
        KEPT,
    ),
    "hh's dialogues of something else": (
        {
            "prompt": None,
            "chosen": "\n\nHuman: Why?\n\nAssistant: A",
            "rejected": "\n\nHuman: Who?\n\nAssistant: B",
        },
        "response_to_another_prompt",
    ),
    "hh's dialogue without an answer": (
        {
            "prompt": None,
            "chosen": "\n\nHuman: Why?\n\nAssistant: A\n\nHuman: And?",
            "rejected": "\n\nHuman: Why?\n\nAssistant: B",
        },
        "dialogue_does_not_end_with_assistant",
    ),
    "texts without a prompt": (ASKED | {"prompt": None}, "empty_prompt"),
    "no answer": (ASKED | {"chosen": None}, "empty_response"),
    "no pair beside pairs": ({"prompt": "Why?"}, "empty_response"),
    "no messages as answer": (ASKED | {"rejected": []}, "empty_response"),
    "the same answer": (ASKED | {"chosen": "B"}, "chosen_is_rejected"),
    "white space": (ASKED | {"prompt": " \n"}, "empty_prompt"),
    "the same prompt": (ASKED | {"prompt": "p3", "prompt_id": "new"}, "duplicate_prompt"),
    "an answer that calls": (
        ASKED | {"chosen": [assistant("", tool_calls=[CALL])]},
        "answer_is_a_tool_call",
    ),
    "an answer that calls, in ShareGPT": (
        ASKED | {"chosen": said("function_call", json.dumps({"name": "look", "arguments": {}}))},
        "answer_is_a_tool_call",
    ),
    "a call that is no JSON": (
        ASKED | {"prompt": [user("Why?"), assistant(None, tool_calls="look(")]},
        "tool_calls_are_no_json",
    ),
    "a call of nothing": (
        ASKED | {"prompt": [user("Why?"), assistant(None, tool_calls=[{"id": "1"}])]},
        "tool_calls_without_a_function",
    ),
    "tools that are no JSON": (ASKED | {"tools": "look("}, "tools_are_no_json"),
    "tools without a name": (ASKED | {"tools": [{"type": "function"}]}, "tools_without_a_name"),
    "tools as text": (ASKED | {"tools": json.dumps([TOOL])}, KEPT),
    "no tools": (ASKED | {"tools": []}, KEPT),
    "a picture": (ASKED | {"image": {"bytes": "x", "path": None}}, "row_has_image_audio"),
    "pictures": (ASKED | {"images": ["a.png"]}, "row_has_image_audio_or_video"),
    "no pictures": (ASKED | {"images": [], "image": None}, KEPT),
    "a sound": (ASKED | {"clip": {"array": [0.1], "sampling_rate": 1}}, "row_has_image_audio"),
    "half an emoji": (ASKED | {"prompt": f"Why {HALF}?"}, "text_with_half_a_character"),
    "half an emoji in an answer": (ASKED | {"chosen": HALF}, "text_with_half_a_character"),
    "half an emoji in another column": (ASKED | {"note": HALF}, KEPT),
    "an id that is no text": (ASKED | {"prompt_id": {"a": 1}}, KEPT),
    "an id of another row": (ASKED | {"prompt_id": "p"}, KEPT),
    "messages as JSON text": (
        {
            "prompt": json.dumps([user("Why?")]),
            "chosen": json.dumps([user("Why?"), assistant("A")]),
            "rejected": repr([user("Why?"), assistant("B")]),
        },
        KEPT,
    ),
    "messages as text that is no JSON": (
        ASKED | {"prompt": "[{'role': 'user', 'content': 'a'}\n {'role': 'user'}]"},
        "messages_written_as_text",
    ),
    "a list as text": (ASKED | {"prompt": '["Why?"]'}, (['u:["Why?"]'], "A", "B")),
    "a list": ([1, 2], "row_is_no_object"),
    "a text for a row": ("Why?", "row_is_no_object"),
    "null for a row": (None, "row_is_no_object"),
    "columns of every kind": (ASKED | {"a": [1, "b", None], "c": {"d": [{}]}, "e": 1e400}, KEPT),
    "a huge number beside": (ASKED | {"n": 10**60}, KEPT),
}


@pytest.mark.parametrize("name", ROWS)
def test_an_odd_row_is_kept_or_dropped_for_a_true_reason(name: str, recipe_of) -> None:
    row, wanted = ROWS[name]
    kept, dropped = training_portion(recipe_of(lines([*GOOD, row])), 1)
    assert [r["chosen"] for r in kept[:12]] == [r["chosen"] for r in GOOD]
    if isinstance(wanted, str):
        assert len(kept) == 12
        ((reason, count),) = dropped.items()
        assert wanted in reason and count == 1
        assert "train.jsonl row 13" in in_words(dropped)
    else:
        assert not dropped
        assert (contents(kept[12]), kept[12]["chosen"], kept[12]["rejected"]) == wanted
        as_json(kept[12]["columns"])


# Whole files of a form: the first row's prompt and pair.
FORMS: dict[str, tuple[dict[str, Any], Any]] = {
    "hh": (
        {
            "chosen": "\n\nHuman: Why {i}?\n\nAssistant: A",
            "rejected": "\n\nHuman: Why {i}?\n\nAssistant: B",
        },
        (["u:Why 0?"], "A", "B"),
    ),
    "ShareGPT": (
        {
            "conversations": [said("system", "S"), said("human", "Why {i}?")],
            "chosen": said("gpt", "A"),
            "rejected": said("gpt", "B"),
        },
        (["s:S", "u:Why 0?"], "A", "B"),
    ),
    "ShareGPT of several turns": (
        {
            "conversations": [said("human", "Hi"), said("gpt", "Hey."), said("human", "Why {i}?")],
            "chosen": said("gpt", "A"),
            "rejected": said("gpt", "B"),
        },
        (["u:Hi", "a:Hey.", "u:Why 0?"], "A", "B"),
    ),
    "ShareGPT, prompts alone": (
        {"conversations": [said("human", "Why {i}?"), said("gpt", "A")]},
        (["u:Why 0?"], None, None),
    ),
    "messages, prompts alone": (
        {"messages": [user("Why {i}?"), assistant("A")]},
        (["u:Why 0?"], None, None),
    ),
    "messages and a pair": (
        {"messages": [user("Why {i}?")], "chosen": "A", "rejected": "B"},
        (["u:Why 0?"], "A", "B"),
    ),
    "Alpaca": (
        {"instruction": "Add.", "input": "{i} + 1", "output": "A"},
        (["u:Add.\n\n0 + 1"], None, None),
    ),
    "Alpaca with pairs": (
        {"instruction": "Why {i}?", "input": "", "chosen": "A", "rejected": "B"},
        (["u:Why 0?"], "A", "B"),
    ),
    "Orca": (
        {"system": "S", "question": "Why {i}?", "chosen": "A", "rejected": "B"},
        (["s:S", "u:Why 0?"], "A", "B"),
    ),
    "messages as text": (
        {"messages": json.dumps([user("Why {i}?")]), "chosen": "A", "rejected": "B"},
        (["u:Why 0?"], "A", "B"),
    ),
    "null pairs": (
        {"prompt": "Why {i}?", "chosen": None, "rejected": None},
        (["u:Why 0?"], None, None),
    ),
    "one id for all": (
        {"prompt": "Why {i}?", "chosen": "A", "rejected": "B", "prompt_id": "v1"},
        (["u:Why 0?"], "A", "B"),
    ),
    "a tool's result last": (
        {
            "prompt": [
                user("Why {i}?"),
                assistant(None, tool_calls=[CALL]),
                {"role": "tool", "name": "look", "content": "blue"},
            ],
            "chosen": "A",
            "rejected": "B",
        },
        (["u:Why 0?", "a:", "t:blue"], "A", "B"),
    ),
}


def numbered(template: dict[str, Any], count: int) -> list[dict[str, Any]]:
    return [json.loads(json.dumps(template).replace("{i}", str(i))) for i in range(count)]


@pytest.mark.parametrize("as_parquet", [False, True])
@pytest.mark.parametrize("name", FORMS)
def test_a_dataset_of_any_known_form_is_read(name: str, as_parquet: bool, recipe_of) -> None:
    template, wanted = FORMS[name]
    rows = numbered(template, 12)
    if as_parquet:
        recipe = recipe_of(parquet_bytes(pyarrow.Table.from_pylist(rows)), "train.parquet")
    else:
        recipe = recipe_of(lines(rows))
    kept, dropped = training_portion(recipe, 1)
    assert not dropped
    assert len({row["prompt_id"] for row in kept}) == 12
    assert (contents(kept[0]), kept[0]["chosen"], kept[0]["rejected"]) == wanted


TEXT = lines(GOOD).decode()
CSV = "prompt,chosen,rejected\n" + "".join(f"p{i},good {i},bad {i}\n" for i in range(12))
DEEP = '{"prompt": "x", "a": ' + "[" * 100_000 + "]" * 100_000 + "}\n"

# Files of the same dozen rows: name, bytes, and what else is counted.
FILES: dict[str, tuple[str, bytes, dict[str, int]]] = {
    "with a byte order mark": ("train.jsonl", b"\xef\xbb\xbf" + TEXT.encode(), {}),
    "with carriage returns": ("train.jsonl", TEXT.replace("\n", "\r\n").encode(), {}),
    "with blank lines": ("train.jsonl", TEXT.replace("\n", "\n\n  \n").encode(), {}),
    "without a last newline": ("train.jsonl", TEXT.rstrip().encode(), {}),
    "compressed": ("train.jsonl.gz", gzip.compress(TEXT.encode()), {}),
    "a list, one a line": ("train.jsonl", json.dumps(GOOD).encode(), {}),
    "a list": ("train.json", json.dumps(GOOD, indent=1).encode(), {}),
    "a compressed list": ("train.json.gz", gzip.compress(json.dumps(GOOD).encode()), {}),
    "a list in an object": ("train.json", json.dumps({"v": 1, "data": GOOD}).encode(), {}),
    "lines under the name of a list": ("train.json", TEXT.encode(), {}),
    "one bad byte": ("train.jsonl", TEXT.encode() + b'{"prompt": "\xe9"}\n', {"not_utf8": 1}),
    "one bad byte in lines called a list": (
        "train.json",
        TEXT.encode() + b'{"prompt": "\xe9"}\n',
        {"not_utf8": 1},
    ),
    "half a line": ("train.jsonl", TEXT.encode() + b'{"prompt": "p1', {"no_json": 1}),
    "a number of 5,000 digits": (
        "train.jsonl",
        TEXT.encode() + b'{"prompt": ' + b"1" * 5000 + b"}",
        {"no_json": 1},
    ),
    "a row too deep": ("train.jsonl", TEXT.encode() + DEEP.encode(), {"too_deep": 1}),
    "one row of other types": (
        "train.jsonl",
        TEXT.encode() + lines([{"prompt": {"a": 1}, "chosen": [1], "rejected": 2}]),
        {"without_role_and_content": 1},
    ),
    "CSV": ("train.csv", CSV.encode(), {}),
    "CSV of Excel": ("train.csv", b"\xef\xbb\xbf" + CSV.replace("\n", "\r\n").encode(), {}),
    "CSV with semicolons": ("train.csv", CSV.replace(",", ";").encode(), {}),
    "CSV in capitals": ("train.CSV", CSV.encode(), {}),
    "compressed CSV": ("train.csv.gz", gzip.compress(CSV.encode()), {}),
    "TSV": ("train.tsv", CSV.replace(",", "\t").encode(), {}),
    "CSV with one bad byte": ("train.csv", CSV.encode() + b"\xe9,a,b\n", {"not_utf8": 1}),
    "CSV with a comma too many": ("train.csv", CSV.encode() + b"p,a,b,c\n", {"more_cells": 1}),
    "CSV with a comma too few": ("train.csv", CSV.encode() + b"p,a\n", {"empty_response": 1}),
}


@pytest.mark.parametrize("name", FILES)
def test_the_same_rows_come_out_of_every_file(name: str, recipe_of) -> None:
    file, content, counted = FILES[name]
    kept, dropped = training_portion(recipe_of(content, file), 1)
    assert [(r["prompt"][0]["content"], r["chosen"], r["rejected"]) for r in kept] == [
        tuple(row.values()) for row in GOOD
    ]
    assert len(dropped) == len(counted)
    for part_of_reason, count in counted.items():
        assert {n for reason, n in dropped.items() if part_of_reason in reason} == {count}
        assert f"{file} row 13" in in_words(dropped)


def test_cells_of_a_csv_are_text_as_it_stands(recipe_of) -> None:
    """Not what pandas makes of `None`, `NA` and `007`; a line break in quotes is text."""
    cells = [("None", "NA"), ("007", "1e3"), ("a\nb", 'say "x, y"'), ("null", "true")]
    text = "prompt,chosen,rejected\n" + "".join(
        f'p{i},"{a}","{b.replace(chr(34), chr(34) * 2)}"\n' for i, (a, b) in enumerate(cells)
    )
    kept, _ = training_portion(recipe_of(text.encode(), "train.csv"), 1)
    assert [(row["chosen"], row["rejected"]) for row in kept] == cells
    assert csv.field_size_limit() > 10**6


# Files that cannot be used at all, and what the one line says.
BROKEN: dict[str, tuple[str, bytes, list[str]]] = {
    "empty": ("train.jsonl", b"", ["cannot be read: it is empty"]),
    "blank": ("train.jsonl", b"\n \n", ["it is empty"]),
    "an empty list": ("train.json", b"[]", ["it is empty"]),
    "a header alone": ("train.csv", b"prompt,chosen,rejected\n", ["it is empty"]),
    "Latin-1": (
        "train.jsonl",
        TEXT.replace("good", "caf\xe9").encode("latin-1"),
        ["train.jsonl row 1", "byte 32 is 0xe9", "UTF-8"],
    ),
    "a list in Latin-1": (
        "train.json",
        json.dumps(GOOD).replace("good", "\xe9").encode("latin-1"),
        ["train.json cannot be read", "is 0xe9"],
    ),
    "UTF-16": ("train.jsonl", TEXT.encode("utf-16"), ["it is UTF-16; save it as UTF-8"]),
    "UTF-16 without a mark": ("train.jsonl", TEXT.encode("utf-16-le"), ["it is UTF-16"]),
    "UTF-16, the other way": ("train.csv", b"\xfe\xff" + CSV.encode("utf-16-be"), ["UTF-16"]),
    "UTF-32": ("train.jsonl", TEXT.encode("utf-32-be"), ["it is UTF-32"]),
    "nothing but nulls": ("train.jsonl", b"\0" * 4096, ["cannot be read", "row 1"]),
    "a table of another kind": ("train.jsonl", b"PAR1\x15\x04\xff\xfe" * 9, ["cannot be read"]),
    "no Parquet": ("train.parquet", TEXT.encode(), ["train.parquet cannot be read"]),
    "no bytes of Parquet": ("train.parquet", b"", ["train.parquet cannot be read"]),
    "no Arrow": ("train.arrow", TEXT.encode(), ["train.arrow cannot be read"]),
    "no gzip": ("train.jsonl.gz", TEXT.encode(), ["train.jsonl.gz cannot be read", "gzip"]),
    "half a gzip": ("train.jsonl.gz", gzip.compress(TEXT.encode())[:-20], ["cannot be read"]),
    "half a list": ("train.json", json.dumps(GOOD).encode()[:-9], ["train.json cannot be read"]),
    "one value": ("train.json", b"7", ["a single value"]),
    "columns, not rows": (
        "train.json",
        json.dumps({"prompt": {"0": "a"}, "chosen": {"0": "b"}}).encode(),
        ["one object with the keys prompt, chosen", "wanted a list of rows"],
    ),
    "splits in one file": (
        "train.json",
        json.dumps({"train": GOOD, "test": GOOD}).encode(),
        ["one object with the keys train, test"],
    ),
    "too deep": ("train.json", b"[" * 100_000, ["nested too deep"]),
    "other columns": (
        "train.jsonl",
        lines([{"question": "a", "answer": "b"}] * 12),
        ["the columns question, answer; wanted: prompt"],
    ),
    "chosen alone": ("train.jsonl", lines([{"chosen": "a"}] * 12), ["both chosen and rejected"]),
    "two columns have the same name": (
        "train.csv",
        b"prompt,prompt\na,b\n",
        ["two columns have the same name"],
    ),
    "texts and no prompt": (
        "train.jsonl",
        lines([{"chosen": "a", "rejected": "b"}] * 12),
        ["nothing left", "12 no_prompt (train.jsonl row 1)", "columns chosen, rejected"],
    ),
    "one row of a dozen": (
        "train.jsonl",
        lines([GOOD[0], *[row | {"chosen": ""} for row in GOOD[1:]]]),
        ["only 1 of 12 rows are left", "11 empty_response (train.jsonl row 2)", "wanted: prompt"],
    ),
    "answers that all call": (
        "train.jsonl",
        lines([row | {"chosen": [assistant("", tool_calls=[CALL])]} for row in GOOD]),
        ["12 answer_is_a_tool_call"],
    ),
    "pictures": (
        "train.jsonl",
        lines([row | {"image": "a.png"} for row in GOOD]),
        ["12 row_has_image_audio_or_video", "columns prompt, chosen, rejected, image"],
    ),
    "no messages": (
        "train.jsonl",
        lines([{"messages": "Hi"}] * 12),
        ["12 messages_are_no_messages"],
    ),
    "half the rows broken": (
        "train.jsonl",
        TEXT.replace('"chosen"', "chosen").encode(),
        ["12 of 12 rows", "row 1: row_is_no_json"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_is_one_line_that_says_why(name: str, recipe_of) -> None:
    file, content, words = BROKEN[name]
    recipe = recipe_of(content, file)
    with pytest.raises(UserError) as caught:
        training_portion(recipe, 1)
    message = str(caught.value)
    assert "own" in message and "\n" not in message and message.startswith("data")
    for word in words:
        assert word in message


def test_a_prompt_keeps_its_tools_and_calls_on_the_way_through_a_file(
    recipe_of, tmp_path: Path
) -> None:
    call = {"id": "c1"} | CALL | {"function": {"name": "look", "arguments": '{"at": "sea"}'}}
    prompt = [
        user("Why {i}?"),
        assistant(None, tool_calls=[call]),
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        user("So?"),
    ]
    row = {"prompt": prompt, "chosen": "A", "rejected": "B", "tools": [TOOL]}
    kept, _ = training_portion(recipe_of(lines(numbered(row, 12))), 1)
    assert kept[0]["tools"] == [TOOL]
    assert kept[0]["prompt"][1]["tool_calls"] == [{"id": "c1"} | CALL]
    assert kept[0]["prompt"][2] == {"role": "tool", "content": "blue", "tool_call_id": "c1"}
    stored = [row | {"responses": ["x"], "chosen": None, "rejected": None} for row in kept]
    for one in stored:
        one["columns"] = None
    save_rows(stored, ResponseRow, tmp_path / "train.parquet")
    again = read_rows(tmp_path / "train.parquet")
    assert [one["prompt"] for one in again] == [one["prompt"] for one in kept]
    assert [one["tools"] for one in again] == [one["tools"] for one in kept]


def test_nulls_that_parquet_puts_into_calls_are_taken_out(recipe_of) -> None:
    """One column has one type: every call gets the arguments of all of them, most of them null."""
    calls = [CALL, {"type": "function", "function": {"name": "sum", "arguments": {"of": 1}}}]
    rows = [
        {
            "prompt": [user(f"Why {i}?"), assistant("", tool_calls=[calls[i % 2]]), user("So?")],
            "chosen": "A",
            "rejected": "B",
        }
        for i in range(12)
    ]
    recipe = recipe_of(parquet_bytes(pyarrow.Table.from_pylist(rows)), "train.parquet")
    kept, _ = training_portion(recipe, 1)
    assert [row["prompt"][1]["tool_calls"][0] for row in kept[:2]] == calls


def test_columns_of_any_type_travel_along_or_are_left_out(recipe_of) -> None:
    count = len(GOOD)
    table = pyarrow.Table.from_pylist(GOOD)
    for name, values in {
        "price": pyarrow.array([decimal.Decimal("1.5")] * count),
        "day": pyarrow.array([datetime.date(2024, 1, 2)] * count),
        "late": pyarrow.array([2**50] * count, pyarrow.timestamp("s")),
        "raw": pyarrow.array([b"\xff"] * count),
        "nan": pyarrow.array([float("nan")] * count),
        "map": pyarrow.array([[("a", 1)]] * count, pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        "class": pyarrow.array(["x"] * count).dictionary_encode(),
        "nothing": pyarrow.nulls(count),
        "large": pyarrow.array(["x"] * count, pyarrow.large_string()),
    }.items():
        table = table.append_column(name, values)
    recipe = recipe_of(parquet_bytes(table), "train.parquet")
    kept, dropped = training_portion(recipe, 1)
    assert len(kept) == count and not dropped
    columns = json.loads(as_json(kept[0]["columns"]))
    assert columns["price"] == "1.5" and columns["day"] == "2024-01-02"
    assert columns["late"] is None and columns["class"] == "x"


def test_a_text_of_parquet_that_is_no_utf8_costs_its_row(recipe_of) -> None:
    good = pyarrow.Table.from_pylist(GOOD)
    raw = pyarrow.array([b"caf\xe9", b"fine"]).view(pyarrow.string())
    other = pyarrow.table({"prompt": raw, "chosen": ["a", "b"], "rejected": ["c", "d"]})
    recipe = recipe_of(parquet_bytes(pyarrow.concat_tables([good, other])), "train.parquet")
    kept, dropped = training_portion(recipe, 1)
    assert len(kept) == 13
    assert in_words(dropped) == (
        "1 row_is_not_utf8 (train.parquet row 13, byte 4 is 0xe9, which is not UTF-8)"
    )


def test_what_datasets_saves_to_disk_is_read(tiny_recipe: str, tmp_path: Path) -> None:
    both = DatasetDict({"train": Dataset.from_list(GOOD), "test": Dataset.from_list(GOOD[:2])})
    both["train"] = both["train"].map(lambda row: row | {"prompt": row["prompt"] + "!"})
    both.save_to_disk(tmp_path / "saved")
    recipe = load_recipe(tiny_recipe, [f"data.name_or_path={tmp_path / 'saved'}", *ONE])
    kept, _ = training_portion(recipe, 1)
    assert [row["prompt"][0]["content"] for row in kept] == [f"p{i}!" for i in range(12)]
    assert len(held_out_portion(recipe)[0]) == 2


def test_a_selection_reads_its_rows_and_no_others(tmp_path: Path) -> None:
    for name, rows in (("a", GOOD[:5]), ("b", GOOD[5:])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
    whole = raw_rows.table([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    for start in range(13):
        for stop in range(start, 14):
            found = [raw.values for raw in whole.select(range(start, stop))]
            assert found == GOOD[start:stop]
    places = [raw.place for raw in whole.select(range(3, 7))]
    assert places == ["a.jsonl row 4", "a.jsonl row 5", "b.jsonl row 1", "b.jsonl row 2"]


def test_held_out_prompts_that_are_trained_on_are_counted(recipe_of) -> None:
    recipe = recipe_of(lines([*GOOD, {"prompt": "held out", "chosen": "a", "rejected": "b"}]))
    trained, held_out = training_portion(recipe, 1)[0], held_out_portion(recipe)[0]
    assert overlap(trained, held_out) == 1
    assert overlap(trained[:12], held_out) == 0


def test_the_first_row_of_each_reason_is_named() -> None:
    first, second = Drops(), Drops()
    first.add("tie", "row 1")
    second.add("tie", "row 9")
    second.add("empty_prompt", "row 3")
    assert in_words(first + second) == "2 tie (row 1), 1 empty_prompt (row 3)"
    assert in_words({"tie": 2, "none": 0}) == "2 tie"
    assert first + second == {"tie": 2, "empty_prompt": 1}


def test_what_a_file_is_read_as_is_decided_by_its_suffix(tmp_path: Path) -> None:
    for name in ("pairs.xlsx", "pairs.txt", "pairs.parquet.gz", "pairs.zip"):
        (tmp_path / name).write_bytes(TEXT.encode())
        with pytest.raises(UserError, match="cannot be read; use"):
            raw_rows.table([tmp_path / name])
    assert Data(name_or_path="x").subset is None


@pytest.mark.parametrize("seed", range(3))
def test_a_damaged_arrow_file_is_one_line_and_ends_no_process(seed: int, recipe_of) -> None:
    """Some damage makes the Arrow library abort."""
    sink = pyarrow.BufferOutputStream()
    table = pyarrow.Table.from_pylist(GOOD)
    with pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = bytearray(sink.getvalue().to_pybytes())
    start = content.index(b"\xff\xff\xff\xff", 8)  # the second message: lengths and offsets
    draw = random.Random(seed)
    for place in range(start + 40, len(content) - 200, 16):
        content[place] = draw.randrange(256)
    with pytest.raises(UserError, match=r"train\.arrow cannot be read: "):
        training_portion(recipe_of(bytes(content), "train.arrow"), 1)
