"""The examples of a batch in one row: each prompt once, no padding.

All examples of a batch lie one behind the other in a single row. An example is its prompt without
the last token, then one block per response that begins with that last token, so that each position
of a block predicts one token of its response:

    prompt[:-1] | prompt[-1] chosen[:-1] | prompt[-1] rejected[:-1] | prompt[-1] explored[:-1]

Positions restart after the prompt in every block, and a block sees only its prompt and itself. So
each response is computed as if it were the only one after the prompt.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """Where an example lies in the row: half-open ranges of the prompt and of each block."""

    prompt: tuple[int, int]
    blocks: tuple[tuple[int, int], ...]


def lay_out(
    prompts: Sequence[list[int]], responses: Sequence[Sequence[list[int]]]
) -> tuple[list[int], list[int], list[Example]]:
    """Token ids and positions of the row, and where each example lies in it.

    >>> lay_out([[5, 6]], [[[7, 8], [9]]])
    ([5, 6, 7, 6], [0, 1, 2, 1], [Example(prompt=(0, 1), blocks=((1, 3), (3, 4)))])
    """
    ids: list[int] = []
    positions: list[int] = []
    examples = []
    for prompt, texts in zip(prompts, responses, strict=True):
        start, shared = len(ids), len(prompt) - 1
        ids += prompt[:-1]
        positions += range(shared)
        blocks = []
        for text in texts:
            blocks.append((len(ids), len(ids) + len(text)))
            ids += [prompt[-1], *text[:-1]]
            positions += range(shared, shared + len(text))
        examples.append(Example((start, start + shared), tuple(blocks)))
    return ids, positions, examples
