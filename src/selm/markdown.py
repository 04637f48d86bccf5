"""Markdown of reports and cards, in which foreign text has no effect (see `escape.py`)."""

import re
import textwrap
from collections.abc import Sequence

from selm.escape import one_line, visible

# Characters with a meaning in Markdown or HTML. An underscore within a word has none.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&@]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^([#+=-])|^(\d{1,9})([.)])(?=\s|$)", re.MULTILINE)
_LINK = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(?=:)|\bwww(?=\.)")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


def literal(text: str) -> str:
    r"""Text that Markdown shows as it is: no markup, no HTML, no links, no pictures.

    >>> print(literal("a *b* <b> ![c](http://d) snake_case"))
    a \*b\* \<b\> !\[c\](http\://d) snake_case
    """
    plain = _INDENT.sub(lambda found: "\u00a0" * len(found.group().expandtabs(4)), _inline(text))
    return _LINE_START.sub(_escaped_start, plain)


def _inline(text: str) -> str:
    plain = _MARKUP.sub(lambda found: f"\\{found.group()}", visible(text))
    return _LINK.sub(lambda found: f"{found.group()}\\", plain)


def _escaped_start(found: re.Match[str]) -> str:
    sign, number, dot = found.groups()
    return f"\\{sign}" if sign else f"{number}\\{dot}"


def code(text: str) -> str:
    """Inline code, with longer marks if the text contains some.

    >>> code("a`b")
    '``a`b``'
    """
    line = one_line(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(text: str, language: str = "text") -> str:
    """A code block: newlines stay, nothing is rendered. Fences are longer if the text has some.

    >>> print(fenced("hello"))
    ```text
    hello
    ```
    """
    shown = visible(text)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{ticks}{language}\n{shown}\n{ticks}"


def wrapped(text: str, width: int = 96) -> str:
    """The text with long lines broken at spaces; its own newlines stay."""
    return "\n".join(
        textwrap.fill(line, width, replace_whitespace=False) for line in text.strip().split("\n")
    )


def quoted(text: str) -> str:
    r"""A block quote with the text's line breaks (two spaces at a line's end keep one).

    >>> quoted("a\nb")
    '> a  \n> b'
    """
    return "  \n".join(f"> {line}".rstrip() for line in text.strip().split("\n"))


def cell(text: str) -> str:
    r"""Text that stays within one cell of a table.

    >>> cell("a | b")
    'a \\| b'
    """
    return _inline(text).replace("\n", "<br>")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    r"""A Markdown table whose columns also line up as plain text; the first `left` align left.

    >>> print(table(["word", "n"], [["a|b", "12"]]))
    | word |  n |
    | ---- | -: |
    | a\|b | 12 |
    """
    head, *body = ([cell(text) for text in row] for row in [header, *rows])
    widths = [max(2, *map(len, column)) for column in zip(head, *body, strict=True)]
    sides = ["<" if i < left else ">" for i in range(len(head))]
    rule = [
        "-" * width if side == "<" else "-" * (width - 1) + ":"
        for side, width in zip(sides, widths, strict=True)
    ]
    return "\n".join(
        f"| {' | '.join(map('{:{}{}}'.format, line, sides, widths))} |"
        for line in [head, rule, *body]
    )
