"""What a recipe's file is refused with."""

from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import load_recipe


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message
