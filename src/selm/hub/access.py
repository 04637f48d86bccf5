"""Checks that this machine's token may push, before the work."""

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from huggingface_hub import get_token
from huggingface_hub.errors import (
    HFValidationError,
    OfflineModeIsEnabled,
)
from huggingface_hub.utils import validate_repo_id

from selm.errors import OutsideError, UserError
from selm.huggingface import API, first_line, patiently, repo_info
from selm.recipe.schema import Recipe
from selm.run.on_hub import Place, place


def check_access(recipe: Recipe) -> None:
    """UserError if the token may not push to the recipe's namespace. Sends one request."""
    namespace = recipe.hub.namespace
    assert namespace is not None  # `load_recipe` has checked it
    try:
        validate_repo_id(place(recipe, "preferences", 1).repo)
    except HFValidationError as error:
        raise UserError(f"run_name, hub.namespace: {first_line(error)}") from error
    token = get_token()
    if token is None:
        raise UserError("hub.push: no token on this machine; run `hf auth login` or set HF_TOKEN")
    if not (token.isascii() and token.isprintable()):
        raise UserError(
            "hub.push: the token on this machine has characters that a token cannot have"
        )
    try:
        who = patiently("asking who the token belongs to", lambda: API.whoami(cache=True))
    except OfflineModeIsEnabled as error:
        raise UserError(
            "hub.push: HF_HUB_OFFLINE is set; unset it, or set hub.push=false"
        ) from error
    except OutsideError as error:
        if error.status != 401:
            raise
        raise UserError(
            f"hub.push: {API.endpoint} does not know the token on this machine (401); make a new "
            "one with write access, and use `hf auth login` or HF_TOKEN"
        ) from error
    refusal = why_not(who, namespace)
    if refusal is not None:
        raise UserError(refusal)


def why_not(who: Mapping[str, Any], namespace: str) -> str | None:
    """Why the token that `whoami` describes cannot push to a namespace; None if it can.

    A fine-grained token lists what it may do, for single users and organisations. If the answer
    does not say what the token may do (OAuth), `make_repository` finds out.
    """
    token = who.get("auth", {}).get("accessToken") or {}
    name = who["name"]
    if token.get("role") == "read":
        return f"hub.push: the token of {name} is read-only; make one with write access"
    if token.get("role") == "fineGrained":
        scopes = token.get("fineGrained", {}).get("scoped", [])
        may_write = {s["entity"].get("name") for s in scopes if "repo.write" in s["permissions"]}
        if namespace not in may_write:
            return (
                f"hub.namespace: the fine-grained token of {name} has no write access to the "
                f"repositories of {namespace}; add it at {API.endpoint}/settings/tokens"
            )
        return None
    roles = {name: "admin"} | {o["name"]: o.get("roleInOrg", "write") for o in who.get("orgs", [])}
    if namespace not in roles:
        return (
            f"hub.namespace: the token belongs to {name}, who may not write to {namespace}; "
            f"possible: {', '.join(roles)}"
        )
    if roles[namespace] == "read":
        return f"hub.namespace: {name} may only read in the organisation {namespace}"
    return None


def make_repository(recipe: Recipe, where: Place) -> None:
    """Create the repository if there is none.

    UserError if the Hub refuses, or if an existing one is public although the recipe is private, or
    holds something else.
    """
    try:
        info = patiently(
            f"looking for {where.repo}", lambda: repo_info(where.repo, where.repo_type)
        )
        if info is None:
            patiently(
                f"creating {where.repo}",
                lambda: API.create_repo(
                    where.repo,
                    repo_type=where.repo_type,
                    private=recipe.hub.private,
                    exist_ok=True,
                ),
            )
            return
    except OutsideError as error:
        if error.status not in (401, 402, 403):
            raise
        raise UserError(f"hub.namespace: {error}") from error
    if recipe.hub.private and not info.private:
        raise UserError(
            f"hub.private: {where.repo} is public; make it private in its settings, or set "
            "hub.private=false"
        )
    names = {sibling.rfilename for sibling in info.siblings or []}
    is_ours = any(PurePosixPath(name).name == "manifest.json" for name in names)
    if names - {".gitattributes", "README.md"} and not is_ours:
        raise UserError(
            f"hub.namespace: {where.repo} already exists and holds something else; use another "
            "run_name"
        )
