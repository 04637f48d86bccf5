"""YAML as dicts, lists and words, where numbers, true and false keep the text that was written.

    parse("{run_name: 007, seed: 7}") == {"run_name": Written("007", 7), "seed": Written("7", 7)}

The key decides whether a word is a number: `run_name: 007` is text, `revision: 1.10` is not 1.1,
and `save_strategy: no` means "no". Mistakes that YAML accepts silently, such as a key that is
written twice, are refused in one line.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from selm.errors import UserError

# More than any recipe needs; nested aliases could grow beyond any memory.
MOST_NODES = 20_000
DEEPEST = 50

_WORDS = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_NULLS = {"", "~", "null"}
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", re.IGNORECASE
)
_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {_TAG + name for name in ("str", "int", "float", "bool", "null")}


@dataclass(frozen=True)
class Written:
    """A number, true or false, and the text that was written."""

    text: str
    value: int | float | bool

    def __repr__(self) -> str:
        return self.text


class _Loader(yaml.SafeLoader):
    """Finds only the structure; this module decides what a plain word means."""

    yaml_implicit_resolvers: dict[str, Any] = {}


def read(path: str | Path) -> Any:
    """The tree of a file in UTF-8, with a byte order mark or without.

    Raises:
        UserError: it cannot be read, or is not YAML that this module accepts; names the line.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(f"{path}: line {line} is not UTF-8; save the file as UTF-8") from error
    try:
        return parse(text)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def parse(text: str) -> Any:
    """The tree of a text; raises UserError with the line."""
    root = _compose(text)
    return None if root is None else _Builder().build(root, 0)


def parse_value(text: str) -> Any:
    """The right side of an override; unless it is a list or a mapping, all of it is one word.

    So `data.name_or_path=/data/run #3` has no comment and needs no quotes.
    """
    root = _compose(text)
    is_word = isinstance(root, yaml.ScalarNode) and root.style is None
    if root is None or (is_word and root.tag in _SCALAR_TAGS):
        return word(text.strip())
    return _Builder().build(root, 0)


def word(text: str) -> Any:
    """The value of an unquoted word."""
    if text.lower() in _NULLS:
        return None
    if text.lower() in _WORDS:
        return Written(text, _WORDS[text.lower()])
    if _INTEGER.fullmatch(text) and len(text) < 100:
        return Written(text, int(text))
    if _FLOAT.fullmatch(text):
        return Written(text, float(text.lower().replace(".inf", "inf").replace(".nan", "nan")))
    return text


def plain(tree: Any) -> Any:
    """The tree with values instead of written words."""
    if isinstance(tree, Written):
        return tree.value
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return [plain(item) for item in tree] if isinstance(tree, list) else tree


def as_text(tree: Any) -> Any:
    """The tree with every word as it was written."""
    if isinstance(tree, Written):
        return tree.text
    return [as_text(item) for item in tree] if isinstance(tree, list) else tree


def _compose(text: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark else ""
        said = error.problem or error.context
        raise UserError(f"not valid YAML: {where}{said}") from error
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        code = error.character if isinstance(error.character, int) else ord(error.character)
        raise UserError(
            f"not valid YAML: line {line}: the character U+{code:04X} is not allowed"
        ) from error
    except RecursionError as error:
        raise UserError("not valid YAML: too many nested brackets") from error


class _Builder:
    """Turns nodes into dicts and lists; each alias becomes a copy."""

    def __init__(self) -> None:
        self.nodes = 0

    def build(self, node: yaml.Node, depth: int) -> Any:
        self.nodes += 1
        if depth > DEEPEST:
            raise UserError(
                f"{_line(node)}: more than {DEEPEST} levels deep, or an alias of itself"
            )
        if self.nodes > MOST_NODES:
            raise UserError(f"{_line(node)}: more than {MOST_NODES:,} values, including aliases")
        if isinstance(node, yaml.ScalarNode) and node.tag in _SCALAR_TAGS:
            return word(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
            return [self.build(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
            return self._mapping(node, depth)
        raise UserError(
            f"{_line(node)}: tags such as {node.tag.replace(_TAG, '!!')} are not allowed"
        )

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise UserError(f"{_line(key)}: a key must be a word, not a list or a mapping")
            if key.value == "<<" and key.style is None:
                merged = self._merge(self.build(value, depth + 1), value) | merged
                continue
            if key.value in own:
                raise UserError(f"{_line(key)}: the key {key.value!r} is written twice")
            own[key.value] = self.build(value, depth + 1)
        return merged | own

    def _merge(self, tree: Any, node: yaml.Node) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        for part in tree if isinstance(tree, list) else [tree]:
            if not isinstance(part, dict):
                raise UserError(f"{_line(node)}: << needs a mapping or a list of mappings")
            merged = part | merged
        return merged


def _line(node: yaml.Node) -> str:
    return f"line {node.start_mark.line + 1}"
