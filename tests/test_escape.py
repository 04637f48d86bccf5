"""What others wrote is shown as they wrote it, and does nothing."""

import re

import pytest

from selm.escape import one_line, visible, well_formed
from selm.markdown import cell, code, fenced, literal

EVIL = [
    "\x1b]0;title\x07\x1b[2J\x1b[31m",
    "a\x00b\x7fc\x9b31m",
    "\u202egnp.exe\u2066",
    "line\u2028separator\u2029\x0b\x0c\x85",
    "\rerror: overwritten",
    "\ud800 \udfff",
    "![x](http://evil/x.png) [x](http://evil) <http://evil> http://evil www.evil.com me@evil.com",
    "<img src=x> </details> <!-- & &lt; <script>alert(1)</script>",
    "# head\n## head\n- item\n+ item\n1. item\n2) item\n> quote\n===\n---\n***\n    code\n\tcode",
    "```\ncode\n```\n~~~\n`a` ``b``",
    "a | b \\| c \\",
    "$x$ $$y$$ **bold** _it_ __it__ ~~gone~~ a_b_c",
]


@pytest.mark.parametrize("text", EVIL)
def test_nothing_unseen_is_left(text: str) -> None:
    for made in (visible(text), literal(text), cell(text), code(text), fenced(text)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", made)
        made.encode()
    assert "\n" not in one_line(text) + cell(text) + code(text)


@pytest.mark.parametrize("text", EVIL)
def test_markdown_shows_the_text_itself(text: str) -> None:
    """By a parser of Markdown: one paragraph per block, no markup, no link, no picture."""
    parser = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    kinds = {
        child.type
        for token in parser.parse(literal(text))
        for child in [token, *(token.children or [])]
    }
    plain = {"paragraph_open", "paragraph_close", "inline", "text", "softbreak", "text_special"}
    assert kinds <= plain
    shown = "".join(
        child.content if child.content else "\n"
        for token in parser.parse(literal(text))
        for child in token.children or []
    )
    squeezed = [re.sub(r"\s+", " ", part).strip() for part in (shown, visible(text))]
    assert squeezed[0] == squeezed[1]


@pytest.mark.parametrize("text", EVIL)
def test_code_stays_code(text: str) -> None:
    parser = pytest.importorskip("markdown_it").MarkdownIt("gfm-like", {"linkify": False})
    [fence] = parser.parse(fenced(text))
    assert (fence.type, fence.content) == ("fence", visible(text) + "\n")
    _, inline, _ = parser.parse(f"x {code(text)} y")
    assert [child.type for child in inline.children] == ["text", "code_inline", "text"]


def test_plain_words_stay_as_they_are() -> None:
    for text in (
        "2 too_long, 3 tie",
        "0.5 flip_rate",
        "judge gpt: 12 verdicts",
        "naïve 中文 🙂 👩‍👩‍👧",
    ):
        assert visible(text) == literal(text) == cell(text) == one_line(text) == text
    assert one_line("/a  folder/x") == "/a  folder/x"
    assert visible("a\r\nb\tc") == "a\nb\tc"


def test_lone_surrogates_alone_are_replaced() -> None:
    assert well_formed("a\ud800b \ud83d\ude00 é") == "a\ufffdb 😀 é"
    assert well_formed("plain") == "plain"
