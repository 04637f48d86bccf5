"""The estimate of ranking."""

from selm.cost.devices import device_of
from selm.cost.quantities import Cost, portion_rows, text_bytes
from selm.ranking.kinds import kind_of
from selm.recipe.schema import Ranking, Recipe
from selm.training.batch import num_processes


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/rank.py`."""
    pool = recipe.generation.num_samples
    pool += 2 if recipe.ranking.pool == "dataset_and_samples" else 0
    return scores_cost(recipe, recipe.ranking, portion_rows(recipe, t), pool)


def scores_cost(recipe: Recipe, ranking: Ranking, rows: int, pool: int) -> Cost:
    """The sum over the members; rankers that load no model count as 0."""
    device, given = device_of(recipe), recipe.estimate
    workers = 1 if given.device == "cpu" else num_processes(recipe)
    parameters, tokens, flops = 0.0, 0.0, 0.0
    for member in ranking.members:
        kind, size = kind_of(member), kind_of(member).parameters(member)
        if size:
            read = rows * kind.tokens(pool, given.prompt_tokens, given.response_tokens)
            parameters, tokens, flops = parameters + size, tokens + read, flops + 2 * size * read
    bytes_each = 4 if given.device == "cpu" else 2
    return Cost(
        rows=rows,
        tokens=tokens,
        memory=device.memory(weights=bytes_each * parameters),
        disk_bytes=text_bytes(recipe, rows, given.response_tokens),
        seconds=device.start_seconds + device.seconds(flops / workers),
    )
