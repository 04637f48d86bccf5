"""Finds secrets (tokens, keys, passwords), which must never be in a recipe, a plan or a message.

A recipe is saved beside the run and pushed with it. Anything that looks like a secret is refused,
and the message does not repeat it.
"""

import re
from collections.abc import Iterator
from typing import Any

from selm.errors import UserError

# Names of keys whose value is always a secret.
_NAMES = re.compile(
    r"(^|[_-])(api_?keys?|access_?keys?|secrets?|secret_?keys?|password|passwd|credentials?|"
    r"bearer|authorization|(hf|hub|auth|access|api|wandb|github)_?tokens?|tokens?_?secret)$"
    r"|^(token|auth)$",
    re.IGNORECASE,
)

# Words with a prefix by which their issuer marks them as secrets.
_WORD = re.compile(
    r"(?<![A-Za-z0-9])(hf_[A-Za-z0-9]{12,}|api_org_[A-Za-z0-9]{12,}|[sr]k-[A-Za-z0-9_-]{12,}"
    r"|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_\w{16,}|glpat-[\w-]{12,}|xox[abeoprs]-[\w-]{10,}"
    r"|AKIA[A-Z0-9]{12,}|AIza[\w-]{24,}|gsk_[A-Za-z0-9]{16,}|eyJ[\w-]{12,}\.[\w-]{4,}"
    r"|[Bb]earer [\w.~+/-]{8,})"
)
_USER_IN_URL = re.compile(r"(?<=://)[^/\s?#@]+@")
_KEY_IN_URL = re.compile(
    r"(?<=[?&;])((?:[\w.-]*[_.-])?(?:api_?key|key|token|secret|password|passwd|pwd|sig|signature|"
    r"auth|credential)=)[^&\s#;]+",
    re.IGNORECASE,
)

HIDDEN = "***"


def hide(text: str) -> str:
    """The text without what looks like a secret.

    >>> hide("no such file: https://me:pw@host/x?api_key=1")
    'no such file: https://***@host/x?api_key=***'
    """
    text = _WORD.sub(HIDDEN, text)
    text = _USER_IN_URL.sub(f"{HIDDEN}@", text)
    return _KEY_IN_URL.sub(rf"\1{HIDDEN}", text)


def is_secret(text: str) -> bool:
    """Whether a text is or contains something that looks like a secret."""
    return hide(text) != text


def names_a_secret(name: str) -> bool:
    """
    >>> [names_a_secret(name) for name in ("hf_token", "api_key", "api_key_env", "max_tokens")]
    [True, True, False, False]
    """
    return bool(_NAMES.search(name))


def refuse_secrets(tree: Any) -> None:
    """Check every key and value of a recipe's tree.

    Raises:
        UserError: names the key that holds a secret, but not the secret.
    """
    for path, value in _leaves(tree, ()):
        if any(is_secret(part) for part in path):
            raise UserError("a key of the recipe looks like a secret; remove it")
        key = ".".join(path)
        if path and names_a_secret(path[-1]) and value is not None and path not in _REFUSED_LATER:
            raise UserError(
                f"{key}: a recipe must not hold secrets, because it is saved with the run; {_FIX}"
            )
        if isinstance(value, str) and _USER_IN_URL.search(value):
            raise UserError(f"{key}: a URL here must not hold a user or password; {_FIX}")
        if isinstance(value, str) and is_secret(value):
            raise UserError(
                f"{key}: looks like a secret, and a recipe is saved with the run; {_FIX}"
            )


_FIX = (
    "the Hub's token is taken from `hf auth login` or HF_TOKEN, a judge's key from the environment "
    "variable that ranking.judge.api_key_env names"
)


# Keys of TRL and vLLM that are refused later, because a recipe can never set them.
_REFUSED_LATER = {("training", "hub_token"), ("generation", "vllm", "hf_token")}


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from _leaves(value, (*path, str(key)))
        if not tree:
            yield path, None
    elif isinstance(tree, list):
        for i, value in enumerate(tree):
            yield from _leaves(value, (*path, str(i)))
    else:
        yield path, tree
