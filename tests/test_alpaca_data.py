"""AlpacaEval's files: read from a folder or from the Hub, or refused in a line."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import alpaca_files
import pytest
from loopback_hub import LoopbackHub, User

from selm.errors import UserError
from selm.evaluation import alpaca_data
from selm.recipe.loading import load_recipe

ENTRY = {"instruction": "Why?", "output": "So."}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[{", "is no JSON in UTF-8"),
        ("[" * 100_000, "is no JSON in UTF-8"),
        ({}, "is no JSON list of instructions"),
        ([], "is no JSON list of instructions"),
        (["Why?"], "entry 0: wanted an object with instruction and output"),
        ([ENTRY, {"instruction": "How?"}], "entry 1: output is missing or is no text"),
        ([{"instruction": 3, "output": "x"}], "entry 0: instruction is missing or is no text"),
        ([{"instruction": " \n", "output": "x"}], "entry 0: the instruction is empty"),
        ([ENTRY, {"instruction": "How?", "output": ""}, ENTRY], "entries 0 and 2 are one instruc"),
    ],
)
def test_other_files_are_refused_in_a_line(
    tiny_recipe: str, tmp_path: Path, content: Any, words: str
) -> None:
    data = alpaca_files.write(tmp_path, content)
    recipe = load_recipe(tiny_recipe, [f"benchmarks.data={data}"])
    with pytest.raises(UserError) as caught:
        alpaca_data.instructions(recipe)
    message = str(caught.value)
    path = tmp_path / "alpaca_eval" / alpaca_data.QUESTIONS
    assert message.startswith(f"benchmarks.data: {path}")
    assert words in message
    assert message.isprintable()


def test_a_file_of_our_own_needs_only_instruction_and_output(
    tiny_recipe: str, tmp_path: Path
) -> None:
    data = alpaca_files.write(tmp_path, [ENTRY])
    [found] = alpaca_data.instructions(load_recipe(tiny_recipe, [f"benchmarks.data={data}"]))
    assert (found.text, found.output, found.generator) == ("Why?", "So.", "unknown")


def test_a_folder_without_the_file_is_refused_with_the_recipe(
    tiny_recipe: str, tmp_path: Path
) -> None:
    own = ["benchmarks.names=[alpaca_eval]", f"benchmarks.data={tmp_path}"]
    with pytest.raises(UserError, match=r"^benchmarks\.data: there is no .*gpt4_baseline\.json; p"):
        load_recipe(tiny_recipe, own)


FETCH = """
import sys
from selm.errors import UserError
from selm.evaluation import alpaca_data
from selm.recipe.loading import load_recipe
recipe = load_recipe(sys.argv[1])
try:
    known = alpaca_data.instructions(recipe)
    print(len(known), len(alpaca_data.reference(recipe, known).gamed))
except UserError as error:
    print(error)
"""


def fetched(recipe: str, **environment: str) -> str:
    """In a process of its own, for the client reads the Hub's address when it is imported."""
    command = [sys.executable, "-c", FETCH, recipe]
    done = subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_hubs_files_are_read_and_kept(tiny_recipe: str, tmp_path: Path) -> None:
    """The second time from the cache, with the Hub gone; a Hub without the table is no error."""
    folder = alpaca_files.write(tmp_path, alpaca_files.entries(12), table=True) / "alpaca_eval"
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    hub = LoopbackHub([User("me", "hf_me")]).start()
    online = {"HF_ENDPOINT": hub.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    try:
        without = {alpaca_data.QUESTIONS: files[alpaca_data.QUESTIONS]}
        hub.create("datasets", alpaca_data.REPO, private=False, files=without)
        home = {"HF_HOME": str(tmp_path / "home")}
        assert fetched(tiny_recipe, **online, **home) == "12 0"
        hub.create("datasets", alpaca_data.REPO, private=False, files=files)
        assert fetched(tiny_recipe, **online, **home) == "12 24"
    finally:
        hub.stop()
    assert fetched(tiny_recipe, **home, HF_HUB_OFFLINE="1") == "12 24"


def test_without_hub_and_file_the_key_and_the_file_are_named(
    tiny_recipe: str, tmp_path: Path
) -> None:
    said = fetched(tiny_recipe, HF_HOME=str(tmp_path), HF_HUB_OFFLINE="1")
    wanted = f"benchmarks.data: set it to a folder with alpaca_eval/{alpaca_data.QUESTIONS}, for"
    assert said.startswith(wanted)
    assert "\n" not in said
