"""A recipe's YAML: words are what their key wants, and nothing is taken in silence."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from refusals import refusal

from selm.errors import UserError
from selm.recipe.loading import as_yaml, load_recipe
from selm.recipe.schema import Recipe
from selm.recipe.yaml_tree import MOST_NODES, Written, parse, parse_value, plain

REPOSITORY = Path(__file__).resolve().parents[1]
BASE = """\
run_name: {run_name}
model: {{name_or_path: m/m, revision: {revision}}}
data: {{name_or_path: d/d}}
iterations: [{{objective: selm, learning_rate: 1e-6}}]
"""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def load(tmp_path: Path, *overrides: str, run_name: str = "x", revision: str = "main") -> Recipe:
    text = BASE.format(run_name=run_name, revision=revision)
    return load_recipe(written(tmp_path, text), overrides)


@pytest.mark.parametrize(
    "text", ["007", "1.10", "0123456", "1e5", "0x10", "no", "on", "True", "2024-01-01", "1_000"]
)
def test_text_stays_as_it_was_written(tmp_path: Path, text: str) -> None:
    """In the file, as an override, and in the resolved recipe that is saved beside the run."""
    loaded = load(tmp_path, run_name=text, revision=text)
    assert (loaded.run_name, loaded.model.revision) == (text, text)
    assert load(tmp_path, f"model.revision={text}").model.revision == text
    again = load_recipe(written(tmp_path, as_yaml(loaded)))
    assert again == loaded
    assert yaml.safe_load(as_yaml(loaded))["run_name"] == text


def test_numbers_are_numbers_with_or_without_a_dot() -> None:
    assert plain(parse("[1e-8, 1.0e-8, .5, -3, 1_000, +2]")) == [1e-8, 1e-8, 0.5, -3, 1000, 2]
    assert parse("{a: no}") == {"a": Written("no", False)}
    assert parse("[null, ~, '', \"1\"]") == [None, None, "", "1"]
    assert parse("1:30") == "1:30"  # not 90


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: the key 'a' is written twice"),
        ("a: {b: 1, b: 1}", "line 1: the key 'b' is written twice"),
        ("a:\n  - c: 1\n    c: 2\n", "line 3: the key 'c'"),
        ("? [a]\n: 1\n", "line 1: a key must be a word"),
        ("a: !!python/name:os.system x", "tags such as"),
        ("a: !foo x", "tags such as !foo"),
        ("a: &x [*x]", "an alias of itself"),
        ("a:\n\tb: 1\n", "line 2"),
        ("a: [1", "line 1"),
        ("a: 'x", "not valid YAML"),
        ("a: *nothing", "undefined alias"),
        ("a: \x07", "U+0007"),
        ("[" * 60 + "]" * 60, "levels deep"),
        ("[" * 20_000, "too many nested brackets"),
        ("a: 1\n---\nb: 2\n", "document"),
        ("<<: 3", "<< needs a mapping"),
    ],
)
def test_what_yaml_would_do_in_silence_or_not_at_all_is_one_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_aliases_of_aliases_end() -> None:
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    for i in range(9):
        text += f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n"
    with pytest.raises(UserError, match=f"more than {MOST_NODES:,} values"):
        parse(text)


def test_merged_keys_give_way_to_own_ones() -> None:
    assert plain(parse("{a: &a {x: 1, y: 2}, b: {<<: *a, y: 3}}"))["b"] == {"x": 1, "y": 3}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/data/run #3", "/data/run #3"),
        ("#3", "#3"),
        ("train[:4]", "train[:4]"),
        ("", None),
        ("5e-7", Written("5e-7", 5e-7)),
        ("[a, 1]", ["a", Written("1", 1)]),
        ("'a # b'", "a # b"),
    ],
)
def test_an_override_is_one_word_to_its_end(text: str, value: Any) -> None:
    assert parse_value(text) == value


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("run_name: caf\xe9\n".encode("latin-1"), "line 1 is not UTF-8"),
        ("run_name: x\n".encode("utf-16"), "is not UTF-8"),
        (b"run_name: x\nrun_name: y\n", "line 2: the key 'run_name' is written twice"),
        (b"\x00", "U+0000"),
        (b"model: [1, 2]\nrun_name: x\n", "model: "),
        (b"run_name: x\nmodel:\ndata:\niterations:\n", "model: "),
        (b"1: 2\n", ": missing"),
        (b"? {a: 1}\n: 2\n", "a key must be a word"),
        (b"run_name: [x]\n", "run_name: "),
    ],
)
def test_a_strange_recipe_file_is_refused_in_one_line(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = written(tmp_path, content)
    message = refusal(path)
    assert message.startswith(f"{path}: ")
    assert said in message


def test_a_byte_order_mark_and_line_ends_of_windows_change_nothing(tmp_path: Path) -> None:
    text = BASE.format(run_name="x", revision="main").replace("\n", "\r\n")
    marked = load_recipe(written(tmp_path, b"\xef\xbb\xbf" + text.encode()))
    assert marked == load(tmp_path)


def test_a_recipe_that_is_a_folder_or_too_long_a_name_is_refused(tmp_path: Path) -> None:
    assert "no such recipe file" in refusal(tmp_path)
    assert "no such recipe file" in refusal(tmp_path / ("x" * 5000))


@pytest.mark.parametrize("override", ["seed=[", "seed={a: 1, a: 2}", "seed=!x y", "seed=&a *a"])
def test_an_override_of_broken_yaml_names_its_key(tmp_path: Path, override: str) -> None:
    path = written(tmp_path, BASE.format(run_name="x", revision="main"))
    assert refusal(path, override).startswith("seed: ")


@pytest.mark.parametrize("override", [".=1", "training..alpha=1", "training.=1", "a b=1", "é=1=2"])
def test_an_override_without_a_proper_key_is_refused(tmp_path: Path, override: str) -> None:
    path = written(tmp_path, BASE.format(run_name="x", revision="main"))
    message = refusal(path, override)
    assert "wanted an override such as" in message or "unknown key" in message
