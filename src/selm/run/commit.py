"""The commit of this code."""

import subprocess
from pathlib import Path


def code_commit() -> str | None:
    """The commit, with `-dirty` if files were changed; None outside a checkout or without git.

    Git also refuses a checkout that belongs to another user (safe.directory): None.
    """
    here = str(Path(__file__).parent)
    asked = ["git", "-C", here, "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        done = subprocess.run(
            asked, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
    except OSError:  # git is missing or may not be run
        return None
    return done.stdout.strip() or None
