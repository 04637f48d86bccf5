"""The questions of MT-Bench: from a folder, or from the Hub, which here is on this machine."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback_hub import LoopbackHub, User
from mt_bench_questions import (
    BY_CATEGORY,
    QUESTIONS,
    REFERENCES,
    jsonl,
    question,
    recipe_of,
    reference,
    write,
)

from selm.errors import UserError
from selm.evaluation import mt_bench_data
from selm.evaluation.mt_bench import MT_BENCH


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `benchmarks.data`."""
    return write(tmp_path_factory.mktemp("questions"), QUESTIONS, REFERENCES)


BROKEN = {
    "no JSON": ['{"question_id": 1', r"question\.jsonl line 2: no JSON"],
    "no object": ["[1, 2]", "line 2: wanted an object"],
    "one turn": [question(1, "math", turns=["Why?"]), "line 2: turns: wanted 2, got 1"],
    "three turns": [question(1, "math", turns=["Why?"] * 3), "line 2: turns: wanted 2, got 3"],
    "no turns": [{"question_id": 1, "category": "math"}, "line 2: turns: wanted a list of 2"],
    "an empty turn": [question(1, "math", turns=["Why?", " "]), "line 2: turns: a turn is empty"],
    "no id": [{"category": "math", "turns": ["a", "b"]}, "line 2: question_id: wanted a number"],
    "no category": [{"question_id": 1, "turns": ["a", "b"]}, "line 2: category: wanted a text"],
    "twice": [question(81, "math"), "line 2: question_id 81 is there a second time"],
    "a short reference": [question(1, "math", reference=["a"]), "line 2: reference: wanted 2"],
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_line_that_is_not_as_it_should_be_is_named(
    what: str, tiny_recipe: str, tmp_path: Path
) -> None:
    line, said = BROKEN[what]
    write(tmp_path, [question(81, "writing"), line], [])
    recipe = recipe_of(tiny_recipe, tmp_path)
    with pytest.raises(UserError, match=f"benchmarks.data: .*{said}") as caught:
        MT_BENCH.check(recipe)
    assert len(str(caught.value).splitlines()) == 1


def test_local_files_that_are_no_questions_are_named(tiny_recipe: str, tmp_path: Path) -> None:
    recipe = recipe_of(tiny_recipe, tmp_path)
    with pytest.raises(UserError, match=r"benchmarks\.data: .*question\.jsonl is not there"):
        MT_BENCH.check(recipe)
    write(tmp_path, [], [])
    with pytest.raises(UserError, match=r"benchmarks\.data: .*question\.jsonl holds no question"):
        MT_BENCH.check(recipe)
    write(tmp_path, QUESTIONS, [reference(81), {"question_id": 82, "choices": []}])
    with pytest.raises(UserError, match=r"gpt-4\.jsonl line 2: choices: wanted a list"):
        MT_BENCH.check(recipe)
    write(tmp_path, QUESTIONS, [])
    (tmp_path / "mt_bench" / "question.jsonl").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match=r"question\.jsonl cannot be read as text in UTF-8"):
        MT_BENCH.check(recipe)


def test_the_files_on_this_disk_count(tiny_recipe: str, questions: Path, tmp_path: Path) -> None:
    assert MT_BENCH.files(recipe_of(tiny_recipe, None)) == {}
    recipe = recipe_of(tiny_recipe, questions)
    there = questions / "mt_bench"
    references = {"reference_answer/gpt-4.jsonl": there / "reference_answer" / "gpt-4.jsonl"}
    assert dict(MT_BENCH.files(recipe)) == {"question.jsonl": there / "question.jsonl"}
    assert dict(MT_BENCH.references(recipe)) == references
    assert set(mt_bench_data.references(recipe)) == {"81", "84"}
    (write(tmp_path, QUESTIONS, []) / "mt_bench" / "reference_answer" / "gpt-4.jsonl").unlink()
    only = recipe_of(tiny_recipe, tmp_path, "http://localhost:1", "benchmarks.limit=4")
    assert list(MT_BENCH.files(only)) == ["question.jsonl"]
    assert MT_BENCH.references(only) == mt_bench_data.references(only) == {}
    rows = mt_bench_data.questions(only)
    assert [row["prompt_id"] for row in rows] == ["81", "82", "83", "84"]
    assert rows[3]["columns"]["reference"] == ["a short one", "and another"]


ASKS_THE_HUB = (
    "import sys\n"
    "from selm.errors import OutsideError, UserError\n"
    "from selm.evaluation import mt_bench_data\n"
    "from selm.recipe.loading import load_recipe\n"
    "try:\n"
    "    recipe = load_recipe(sys.argv[1])\n"
    "    rows, references = mt_bench_data.questions(recipe), mt_bench_data.references(recipe)\n"
    "except (OutsideError, UserError) as error:\n"
    "    sys.exit(f'{type(error).__name__}: {error}')\n"
    "for row in rows:\n"
    "    print(row['prompt_id'], *references.get(row['prompt_id'], []))\n"
)


@pytest.fixture
def hub(tmp_path: Path) -> Any:
    """The two spaces at their commits."""
    started = LoopbackHub([User("lmsys", "hf_a"), User("pe-nlp", "hf_b")]).start()
    for name, lines in (
        ("question.jsonl", QUESTIONS),
        ("reference_answer/gpt-4.jsonl", REFERENCES),
    ):
        at = mt_bench_data._ON_HUB[name]
        files = {f"data/mt_bench/{name}": jsonl(lines).encode()}
        repo = started.create("spaces", at.repo, private=False, files=files)
        repo.tags[at.revision] = repo.branches["main"][-1].oid
    yield started
    started.stop()


def ask(hub: LoopbackHub, home: Path, recipe: str, **environment: str) -> Any:
    online = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    return subprocess.run(
        [sys.executable, "-c", ASKS_THE_HUB, recipe],
        env=os.environ | online | {"HF_HUB_DISABLE_XET": "1"} | environment,
        capture_output=True,
        text=True,
    )


def test_the_questions_come_from_the_hub_once(
    hub: LoopbackHub, tiny_recipe: str, tmp_path: Path
) -> None:
    offline = ask(hub, tmp_path, tiny_recipe, HF_HUB_OFFLINE="1")
    assert (offline.returncode, offline.stdout) == (1, "")
    assert offline.stderr.startswith("OutsideError: benchmarks.data: null, so that mt_bench reads ")
    assert "HF_HUB_OFFLINE is set" in offline.stderr and len(offline.stderr.splitlines()) == 1
    first = ask(hub, tmp_path, tiny_recipe)
    assert first.returncode == 0, first.stderr
    lines = first.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(BY_CATEGORY.values())
    assert lines[3] == "84 <<reference 84.1>> <<reference 84.2>>" and lines[4] == "85"
    hub.log.clear()
    again = ask(hub, tmp_path, tiny_recipe)
    assert again.stdout == first.stdout and hub.log == []


def test_without_the_copy_of_the_space_there_are_the_short_references(
    hub: LoopbackHub, tiny_recipe: str, tmp_path: Path
) -> None:
    del hub.repos["spaces", mt_bench_data._ON_HUB[mt_bench_data.REFERENCES].repo]
    found = ask(hub, tmp_path, tiny_recipe)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == list(BY_CATEGORY.values())
    hub.repos.clear()
    gone = ask(hub, tmp_path / "other", tiny_recipe)
    assert gone.stderr.startswith("UserError: benchmarks.data: null") and gone.returncode == 1
    assert "no longer there" in gone.stderr
