"""Reward files are ordinary Python: what works in a script works there, and what fails is named."""

import sys
from pathlib import Path

import pytest
from pools import pools_of

from selm.errors import UserError
from selm.ranking.function import FunctionRanker
from selm.ranking.siblings import siblings

HI = [{"role": "user", "content": "Hi"}]
LENGTHS = "def reward(prompt, candidates, **columns):\n    return [len(t) for t in candidates]\n"


def score(file: Path, texts: tuple[str, ...] = ("x", "yyy")) -> list[float]:
    [scores] = FunctionRanker(f"{file}:reward").score(pools_of(["p7"], [HI], [list(texts)]))
    return scores


def written(folder: Path, name: str, source: str | bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(source.encode() if isinstance(source, str) else source)
    return path


def refusal(file: Path) -> str:
    with pytest.raises(UserError) as caught:
        score(file)
    message = str(caught.value)
    assert "\n" not in message and str(file) in message
    return message


def test_a_dataclass_with_future_annotations(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        "own.py",
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Score:\n    value: float\n"
        "def reward(prompt, candidates, **columns):\n"
        "    return [Score(len(t)).value for t in candidates]\n",
    )
    assert score(file) == [1.0, 3.0]


@pytest.mark.parametrize(
    ("start", "name"), [("fork", "own.py"), ("fork", "a b-c.d.py"), ("spawn", "random.py")]
)
def test_a_pool_of_processes(tmp_path: Path, start: str, name: str) -> None:
    file = written(
        tmp_path / "a folder",
        name,
        "from multiprocessing import get_context\nfrom helper_of_pool import one\n"
        "def two(text):\n    return one(text)\n"
        "def reward(prompt, candidates, **columns):\n"
        f"    with get_context({start!r}).Pool(1) as pool:\n"
        "        return pool.map(two, candidates)\n",
    )
    helper = f"helper_{start}_{len(name)}"  # in one process, of a name there is one module
    source = file.read_text(encoding="utf-8").replace("helper_of_pool", helper)
    file.write_text(source, encoding="utf-8")
    written(file.parent, f"{helper}.py", "def one(text):\n    return float(len(text))\n")
    assert score(file) == [1.0, 3.0]


def test_modules_beside_the_file(tmp_path: Path) -> None:
    written(tmp_path, "helper_one.py", "from helper_two.part import score\n")
    written(tmp_path / "helper_two", "__init__.py", "")
    written(tmp_path / "helper_two", "part.py", "def score(text):\n    return len(text)\n")
    file = written(
        tmp_path,
        "own.py",
        "from helper_one import score\n"
        "def reward(prompt, candidates):\n    return [score(t) for t in candidates]\n",
    )
    assert score(file) == [1.0, 3.0]
    assert list(siblings(file)) == ["helper_one", "helper_two"]


def test_a_file_whose_helper_would_be_another_one_is_refused(tmp_path: Path) -> None:
    source = "import helper_twice\n" + LENGTHS
    for folder in ("a", "b"):
        written(tmp_path / folder, "helper_twice.py", "")
        written(tmp_path / folder, "own.py", source)
    assert score(tmp_path / "a" / "own.py") == [1.0, 3.0]
    message = refusal(tmp_path / "b" / "own.py")
    assert f"{tmp_path}/a/helper_twice.py of the same name; rename helper_twice.py" in message
    written(tmp_path / "c", "yaml.py", "")
    message = refusal(written(tmp_path / "c", "own.py", "import yaml\n" + LENGTHS))
    assert "imports yaml" in message and "rename yaml.py" in message


@pytest.mark.parametrize("name", ["random.py", "torch.py", "selm.py", "yaml.py", "conftest.py"])
def test_a_file_may_have_the_name_of_any_module(tmp_path: Path, name: str) -> None:
    before = {module: sys.modules.get(module) for module in ("random", "torch", "selm", "yaml")}
    source = f"import {Path(name).stem} as other\nOTHER = other.__file__\n"
    assert score(written(tmp_path, name, source + LENGTHS)) == [1.0, 3.0]
    import random
    import tempfile

    assert random.__file__ and not random.__file__.startswith(str(tmp_path))
    assert tempfile.gettempdir()
    assert {module: sys.modules.get(module) for module in before if before[module]} == {
        module: found for module, found in before.items() if found
    }


def test_two_files_of_one_name_are_two(tmp_path: Path) -> None:
    one = written(tmp_path / "a", "reward.py", LENGTHS)
    two = written(tmp_path / "b", "reward.py", LENGTHS.replace("len(t)", "-len(t)"))
    rankers = [FunctionRanker(f"{file}:reward") for file in (one, two)]
    found = [ranker.score(pools_of(["p"], [HI], [["x", "yy"]])) for ranker in rankers]
    assert found == [[[1.0, 2.0]], [[-1.0, -2.0]]]


def test_a_changed_file_is_run_as_it_is_now(tmp_path: Path) -> None:
    """The same size in the same second: cached bytecode would pass for it."""
    file = written(tmp_path, "own.py", LENGTHS.replace("len(t)", "1"))
    assert score(file) == [1.0, 1.0]
    written(tmp_path, "own.py", LENGTHS.replace("len(t)", "2"))
    assert score(file) == [2.0, 2.0]
    assert not list(tmp_path.rglob("*.pyc"))


def test_a_byte_order_mark_and_letters_of_any_script(tmp_path: Path) -> None:
    source = "WORD = 'é中'\n" + LENGTHS.replace("len(t)", "len(WORD)")
    assert score(written(tmp_path, "own.py", b"\xef\xbb\xbf" + source.encode())) == [2.0, 2.0]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            "import sys\nsys.exit(0)\n",
            "cannot be imported: it ends the Python process: SystemExit: 0 (l",
        ),
        ("exit()\n", "cannot be imported: it ends the Python process: SystemExit"),
        ("raise SystemExit\n", "it ends the Python process: SystemExit (line 1)"),
        ("class Stop(BaseException): pass\nraise Stop('x')\n", "imported: Stop: x (line 2)"),
        ("import asyncio\nraise asyncio.CancelledError\n", "CancelledError (line 2)"),
        (b"a = 'caf\xe9'\n", "cannot be imported: SyntaxError: "),
        (b"a = 1\0\n", "cannot be imported: SyntaxError: source code string cannot contain null"),
        ("def f():\n\treturn 1\n        return 2\n", "cannot be imported: TabError: "),
        ("from . import helper\n", "cannot be imported: ImportError: "),
        ("raise ValueError('\\x1b[31mred\\n' * 99)\n", "ValueError: \\x1b[31mred \\x1b[31mred"),
        (
            "class E(Exception):\n    def __str__(self): 1 / 0\nraise E\n",
            "E: (an error that cannot",
        ),
        ("other = 1\n", "has no function 'reward'"),
        ("def rewards(): pass\n", "has no function 'reward'; it has rewards"),
        ("reward = 3\n", "has no function 'reward': that is of the type int"),
        ("def reward(): pass\n", "it takes () (line 1); wanted (prompt, candidates, **columns)"),
        ("\ndef reward(candidates): pass\n", "it takes (candidates) (line 2); wanted (prompt"),
        ("def reward(*, prompt, candidates): pass\n", "it takes (*, prompt, candidates) (line 1)"),
        ("def reward(a, b, c, /): pass\n", "it takes (a, b, c, /) (line 1); wanted"),
        ("async def reward(a, b): pass\n", "it is async (line 1); wanted a plain function"),
    ],
)
def test_a_file_that_cannot_serve_is_named(tmp_path: Path, source: str, words: str) -> None:
    message = refusal(written(tmp_path, "own.py", source))
    assert words in message
    assert len(message) < 600


BODIES = {
    "return [1.0, None]": "wanted one number per candidate, got [1.0, None] for p7",
    "return '12'": "wanted one number per candidate, got the text '12' for p7",
    "return ['1', '2']": "wanted one number per candidate, got ['1', '2'] for p7",
    "return {0: 1, 1: 2}": "wanted one number per candidate, got {0: 1, 1: 2} for p7",
    "return {1.0, 2.0}": "wanted one number per candidate, got {1.0, 2.0} for p7",
    "return 1.0": "wanted one number per candidate, got 1.0 for p7",
    "return [1j, 2j]": "wanted one number per candidate, got [1j, 2j] for p7",
    "return [10 ** 400, 1]": "wanted one number per candidate, got [1000",
    "return [[1, 2], [3, 4]]": "wanted one number per candidate, got [[1, 2], [3, 4]] for p7",
    "return [1.0, -float('inf')]": "scores [1.0, -inf] for p7 are not all numbers",
    "import itertools; return itertools.count()": "3 scores for 2 candidates of p7",
    "import sys; "
    "sys.exit(0)": "it ends the Python process: SystemExit: 0 (line 2), for the prompt p7",
    "raise GeneratorExit": "GeneratorExit (line 2), for the prompt p7",
    "return (1 / 0 for _ in candidates)": "ZeroDivisionError: division by zero (line 2), for the",
    "return reward(prompt, candidates)": "RecursionError: maximum recursion depth exceeded",
}


@pytest.mark.parametrize("body", BODIES)
def test_a_call_that_fails_is_named_with_file_line_and_row(tmp_path: Path, body: str) -> None:
    file = written(tmp_path, "own.py", f"def reward(prompt, candidates):\n    {body}\n")
    message = refusal(file)
    assert BODIES[body] in message


@pytest.mark.parametrize(
    "expression",
    [
        "(1, 2)",
        "iter([1, 2])",
        "(float(n) for n in (1, 2))",
        "__import__('numpy').array([1, 2])",
        "[__import__('numpy').float32(n) for n in (1, 2)]",
        "__import__('torch').tensor([1.0, 2.0])",
        "[__import__('torch').tensor(n, dtype=__import__('torch').bfloat16) for n in (1, 2)]",
        "[__import__('fractions').Fraction(n) for n in (1, 2)]",
        "[True, 2]",
    ],
)
def test_numbers_of_any_library_are_numbers(tmp_path: Path, expression: str) -> None:
    source = f"def reward(prompt, candidates):\n    return {expression}\n"
    assert score(written(tmp_path, "own.py", source)) == [1.0, 2.0]


def test_what_the_function_does_to_its_arguments_stays_there(tmp_path: Path) -> None:
    source = (
        "def reward(prompt, candidates, **columns):\n"
        "    prompt[0]['content'] = prompt.append(1) or candidates.clear() or 'x'\n"
        "    return [1, 2]\n"
    )
    prompt, texts = [{"role": "user", "content": "Hi"}], ["a", "b"]
    FunctionRanker(f"{written(tmp_path, 'own.py', source)}:reward").score(
        pools_of(["p"], [prompt], [texts])
    )
    assert (prompt, texts) == (HI, ["a", "b"])


def test_texts_of_any_kind_reach_the_function(tmp_path: Path) -> None:
    texts = ("", "\ud800", "\x00\x1b[31m", "😀" * 1000, "\u2028")
    assert score(written(tmp_path, "own.py", LENGTHS), texts) == [0, 1, 6, 1000, 1]


def test_a_file_that_goes_elsewhere_does_not_take_us_along(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = "import os\nos.chdir('/')\n" + LENGTHS.replace("return", "os.chdir('/'); return")
    written(tmp_path, "own.py", source)
    assert score(Path("own.py")) == [1.0, 3.0]
    assert Path.cwd() == tmp_path


def test_a_relative_path_is_enough(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "sub", "own.py", "from helper_relative import score as reward\n")
    helper = LENGTHS.replace("reward", "score").replace("return", "1 / len(prompt); return")
    written(tmp_path / "sub", "helper_relative.py", helper)
    assert score(Path("sub/own.py")) == [1.0, 3.0]
