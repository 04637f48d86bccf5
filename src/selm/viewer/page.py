"""Makes report.html of its content: one file with the scripts, the style and the packed data.

The file asks nobody for anything: its Content-Security-Policy forbids every request, and only the
scripts and the style that were written here run, named by their hashes. Text of models and
datasets is in it as compressed data alone, so that no text can end a tag or begin one.
"""

import base64
import gzip
import hashlib
import html
import json
import re
from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

from selm.viewer.content import Content
from selm.viewer.limits import fit

STATIC = Path(__file__).parent / "static"
MOST_BYTES = 14_000_000  # of the packed data, which leaves room for the rest of 15 MB
LEVEL = 6  # gzip's 9 takes twice as long for one per cent

# Each module after those that it imports. They become one script, because a page that is opened
# from a disk may not import files.
MODULES = (
    *("dom", "text", "diff", "unpack"),
    *("scale", "frame", "points", "forest", "shares", "matrix", "curves"),
    *("save", "table", "chart", "overview", "training"),
    *("rows", "prompts", "compare", "answers", "pairs", "main"),
)
STYLES = ("page", "charts", "answers")

_IMPORT = re.compile(r"^import \{[^}]*\} from \"\./[\w-]+\.js\";\n", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(async )?(function|const|let|class) )", re.MULTILINE)


def page(content: Content, most_bytes: int = MOST_BYTES) -> str:
    """The text of report.html.

    Args:
        most_bytes: of the packed data; what does not fit is left out, and the page says what.
    """
    _, parts = fit(content, packed, most_bytes)
    script, style = bundle(), "\n".join(_read(f"{name}.css") for name in STYLES)
    return Template(_read("page.html")).substitute(
        title=html.escape(content["title"]),
        policy=html.escape(_policy(script, style)),
        style=style,
        data="\n".join(_data(f"data-{name}", text) for name, text in parts.items()),
        script=script,
    )


def packed(value: Any) -> str:
    """A value as JSON, compressed, in letters and digits: nothing in it can end a tag.

    The time of the compression is left out of it, so that equal runs give equal pages.
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    found = gzip.compress(text.encode("ascii"), LEVEL, mtime=0)
    return base64.b64encode(found).decode("ascii")


def bundle(modules: tuple[str, ...] = MODULES) -> str:
    """The modules as one script: without their imports, whose names are all in one scope."""
    texts = (_EXPORT.sub("", _IMPORT.sub("", _read(f"{name}.js"))) for name in modules)
    return "\n".join(texts)


def _read(name: str) -> str:
    return (STATIC / name).read_text(encoding="utf-8")


def _policy(script: str, style: str) -> str:
    """What the page may do. Pictures: only those that it draws itself to be saved."""
    rules: Mapping[str, str] = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


def _data(name: str, text: str) -> str:
    return f'<script type="application/octet-stream" id="{name}">{text}</script>'
