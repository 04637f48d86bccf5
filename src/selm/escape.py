"""Text of models, judges, datasets and file names, made harmless for terminals.

Nothing that they wrote reaches a terminal or a report as it is: an escape sequence could rewrite
what the user sees, markup (see `markdown.py`) could forge a report or load a picture from
somewhere.
"""

import re
import unicodedata

# Overrides of the writing direction: text could be shown in another order than it has.
_BIDI = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Zl", "Zp", "Cs"}  # control characters, line separators, lone surrogates

_LINE_ENDS = re.compile(r"[ \t]*[\n\r\t]\s*")


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
