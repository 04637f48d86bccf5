"""The ranker that is a Python function of the user's: `path/to/file.py:function`."""

import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from selm.errors import UserError
from selm.ranking import Prompt


class FunctionRanker:
    """Calls `function(prompt, candidates) -> one number per candidate`, higher is better.

    `prompt` is the list of messages. Example: recipes/smollm2-135m-instruct/reward.py.
    """

    pairwise = False

    def __init__(self, name_or_path: str) -> None:
        self.name = name_or_path
        self.function = _load(name_or_path)

    def score(
        self, prompt_ids: Sequence[str], prompts: Sequence[Prompt], candidates: Sequence[list[str]]
    ) -> list[list[float]]:
        """See `Ranker`.

        Raises:
            UserError: the function returned the wrong number of scores, or one that is no number.
        """
        return [
            self._scores(prompt_id, list(prompt), texts)
            for prompt_id, prompt, texts in zip(prompt_ids, prompts, candidates, strict=True)
        ]

    def _scores(
        self, prompt_id: str, prompt: list[dict[str, str]], texts: list[str]
    ) -> list[float]:
        scores = list(self.function(prompt, texts))
        if len(scores) != len(texts):
            raise UserError(
                f"{self.name}: {len(scores)} scores for {len(texts)} candidates of {prompt_id}"
            )
        numbers = [float(score) for score in scores]
        if any(not math.isfinite(number) for number in numbers):
            raise UserError(f"{self.name}: scores {numbers} for {prompt_id} are not all numbers")
        return numbers


def _load(name_or_path: str) -> Callable[..., Sequence[float]]:
    file, _, function_name = name_or_path.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"ranking.name_or_path: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function = vars(module).get(function_name)
    if not callable(function):
        raise UserError(f"ranking.name_or_path: {file} has no function {function_name!r}")
    return function
