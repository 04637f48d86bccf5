"""Text of models, judges, datasets and file names, made harmless for terminals and Markdown.

Nothing that they wrote reaches a terminal or a report as it is: an escape sequence could rewrite
what the user sees, markup could forge a report or load a picture from somewhere.
"""

import re
import unicodedata

# Overrides of the writing direction: text could be shown in another order than it has.
_BIDI = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Zl", "Zp", "Cs"}  # control characters, line separators, lone surrogates

# With a meaning in Markdown or HTML. An underscore within a word has none.
_MARKUP = re.compile(r"[\\`*\[\]<>|~$&@]|(?<![^\W_])_|_(?![^\W_])")
_LINE_START = re.compile(r"^([#+=-])|^(\d{1,9})([.)])(?=\s|$)", re.MULTILINE)
_LINK = re.compile(r"(?i)\b(https?|ftp|mailto|xmpp)(?=:)|\bwww(?=\.)")
_LINE_ENDS = re.compile(r"[ \t]*[\n\r\t]\s*")
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)


def visible(text: str, keep: str = "\n\t") -> str:
    r"""Control characters in the form of Python's escapes, those in `keep` as they are.

    >>> print(visible("red: \x1b[31m, bell: \a"))
    red: \x1b[31m, bell: \x07
    """
    return "".join(
        char if char in keep or not _is_unseen(char) else _escape(char)
        for char in text.replace("\r\n", "\n")
    )


def _is_unseen(char: str) -> bool:
    return unicodedata.category(char) in _UNSEEN or char in _BIDI


def _escape(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def one_line(text: str, most: int | None = None) -> str:
    r"""Visible, on one line, and at most so many characters. Spaces stay: paths may have several.

    >>> one_line("two\n lines", most=6)
    'two li'
    """
    line = visible(_LINE_ENDS.sub(" ", text.strip()), keep="")
    return line if most is None else line[:most]


def well_formed(text: str) -> str:
    """Text that UTF-8 can hold: lone surrogates become U+FFFD. Tokenizers and servers want that."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


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


def cell(text: str) -> str:
    r"""Text that stays within one cell of a table.

    >>> cell("a | b")
    'a \\| b'
    """
    return _inline(text).replace("\n", "<br>")


def code(text: str) -> str:
    """Inline code, with longer marks where the text has some itself.

    >>> code("a`b")
    '``a`b``'
    """
    line = one_line(text)
    ticks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line.startswith("`") or line.endswith("`") else ""
    return f"{ticks}{space}{line}{space}{ticks}"


def fenced(text: str, language: str = "text") -> str:
    """A code block: newlines stay, nothing is rendered. Longer fences where the text has its own.

    >>> print(fenced("hello"))
    ```text
    hello
    ```
    """
    shown = visible(text)
    ticks = "`" * max(3, 1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{ticks}{language}\n{shown}\n{ticks}"
