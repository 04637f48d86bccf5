"""Chat templates as files and as programs."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizer_zoo
from test_chat import CHATML, CHATML_TEMPLATE, LLAMA, said, with_template

from selm.errors import UserError
from selm.model import template
from selm.model.chat import Chat
from selm.model.probe import load_chat, make_chat
from selm.recipe.schema import Model

BAR = CHATML_TEMPLATE.replace("{{ m.role }}", "{{ m.role }}\uff5c")  # as DeepSeek's
BAR = BAR.replace("assistant\n", "assistant\uff5c\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with_template(CHATML_TEMPLATE, *CHATML).save_pretrained(tmp_path)
    return tmp_path


def loaded(folder: Path, file: str | None = None) -> Chat:
    return load_chat(str(folder), Model(name_or_path=str(folder), chat_template=file))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_is_utf8_with_or_without_a_mark(folder: Path, encoding: str) -> None:
    file = folder / "own.jinja"
    file.write_text(BAR, encoding=encoding, newline="\r\n")
    chat, expected = loaded(folder, str(file)), make_chat(with_template(BAR, *CHATML))
    assert chat.prompt_ids(said("Hi")) == expected.prompt_ids(said("Hi"))
    assert "user\uff5c" in chat.tokenizer.decode(chat.prompt_ids(said("Hi")))


def test_the_models_own_template_may_begin_with_a_mark(folder: Path) -> None:
    expected = loaded(folder).prompt_ids(said("Hi"))
    file = folder / "chat_template.jinja"
    file.write_text(CHATML_TEMPLATE, encoding="utf-8-sig")
    assert loaded(folder).prompt_ids(said("Hi")) == expected


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (BAR.encode("utf-16"), "is not UTF-8 (byte 0); save it as UTF-8"),
        ("{# \xe9 #}".encode("latin-1") + BAR.encode(), "is not UTF-8 (byte 3)"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"a\n{% for m in %}", "line 2: Expected an expression"),
        (b"a\n\n{{ messages | nothing }}", "line 3: No filter named 'nothing'"),
        (b"{% if true %}", "line 1: Unexpected end of template"),
        (b"\n{{ range(9) | random }}", "line 2: it draws at random"),
        (b"{% if false %}{{ lipsum(1) }}{% endif %}", "line 1: it draws at random"),
    ],
)
def test_a_file_that_is_no_template_is_one_line(folder: Path, content: bytes, line: str) -> None:
    file = folder / "own.jinja"
    file.write_bytes(content)
    with pytest.raises(UserError) as error:
        loaded(folder, str(file))
    said_so = str(error.value)
    assert said_so.startswith(f"model.chat_template: {file}") and line in said_so
    assert "\n" not in said_so


def test_a_folder_or_a_missing_file_is_one_line(folder: Path) -> None:
    for file in (folder, folder / "missing.jinja"):
        with pytest.raises(UserError, match=rf"model\.chat_template: {file}: "):
            template.read(str(file))


def test_the_models_own_broken_template_names_the_model(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}", encoding="utf-8")
    with pytest.raises(UserError, match=f"the template of {folder}, line 1: Expected"):
        loaded(folder)
    (folder / "chat_template.jinja").write_text("", encoding="utf-8")
    with pytest.raises(UserError, match=r"no chat template; set model\.chat_template"):
        loaded(folder)


@pytest.mark.parametrize("value", [5, {"name": "default", "template": "x"}, ["x"], [{"name": 1}]])
def test_a_template_of_another_kind_is_one_line(folder: Path, value: Any) -> None:
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8")) | {"chat_template": value}
    file.write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(UserError, match=rf"^{folder}: [^\n]+$"):
        loaded(folder)


def named(folder: Path, templates: dict[str, str]) -> Path:
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    config["chat_template"] = [{"name": k, "template": v} for k, v in templates.items()]
    file.write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_of_several_templates_the_default_one_is_taken_and_that_for_tools(folder: Path) -> None:
    expected = loaded(folder).prompt_ids(said("Hi"))
    for_tools = "{% for t in tools %}{{ t.name }}{% endfor %}" + CHATML_TEMPLATE
    chat = loaded(named(folder, {"tool_use": for_tools, "default": CHATML_TEMPLATE}))
    assert chat.prompt_ids(said("Hi")) == expected
    assert "look" in chat.tokenizer.decode(chat.prompt_ids(said("Hi"), [{"name": "look"}]))
    chat.tokenizer.save_pretrained(folder / "saved")
    assert loaded(folder / "saved").prompt_ids(said("Hi")) == expected


def test_several_templates_without_a_default_are_refused(folder: Path) -> None:
    named(folder, {"rag": CHATML_TEMPLATE, "tool_use": CHATML_TEMPLATE})
    with pytest.raises(UserError, match=r"\(rag, tool_use\) is called default"):
        loaded(folder)


def test_check_says_what_a_template_does_that_nobody_would_expect() -> None:
    dated = make_chat(with_template(tokenizer_zoo._trl_template("llama3_2"), *LLAMA))
    assert "today's date is always 26 Jul 2024" in dated.facts()
    assert dated.tokenizer.decode(dated.prompt_ids(said("Hi"))).count("26 Jul 2024") == 1
    qwen3 = make_chat(with_template(tokenizer_zoo._trl_template("qwen3"), *CHATML))
    assert (
        "prompts end in '<think>\\n\\n</think>\\n\\n', as finished answers begin" in qwen3.facts()
    )
    plain = make_chat(with_template(CHATML_TEMPLATE, *CHATML))
    assert plain.facts() == "BOS none, a turn ends in <|im_end|>, system messages are kept"
