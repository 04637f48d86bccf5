"""Makes text from models, judges, datasets and file names harmless for terminals.

Such text is never printed unchanged: an escape sequence could rewrite what the user sees, and
markup in a report (see `markdown.py`) could forge it or load a picture from the network.
"""

import re
import unicodedata

# Characters that change the writing direction, so that text is shown in another order.
_BIDI = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
_UNSEEN = {"Cc", "Zl", "Zp", "Cs"}  # control characters, line separators, lone surrogates

_LINE_ENDS = re.compile(r"[ \t]*[\n\r\t]\s*")


def visible(text: str, keep: str = "\n\t") -> str:
    r"""The text with control characters as Python escapes, except those in `keep`.

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
    r"""The visible text on one line, at most `most` characters. Repeated spaces stay, as in paths.

    >>> one_line("two\n lines", most=6)
    'two li'
    """
    line = visible(_LINE_ENDS.sub(" ", text.strip()), keep="")
    return line if most is None else line[:most]


def well_formed(text: str) -> str:
    """Text for tokenizers and servers, which need UTF-8: lone surrogates become U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
