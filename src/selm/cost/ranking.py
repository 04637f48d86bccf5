"""What ranking takes."""

from selm.cost.devices import device_of
from selm.cost.quantities import Cost, portion_rows, text_bytes
from selm.model.shape import shape_of
from selm.recipe.schema import Ranking, Recipe
from selm.training.batch import num_processes

PAIRRM_PARAMETERS = 435e6
PAIRRM_TOKENS = 2048  # of one comparison, at most


def cost(recipe: Recipe, t: int) -> Cost:
    """The estimate of `scripts/rank.py`."""
    pool = recipe.generation.num_samples
    pool += 2 if recipe.ranking.pool == "dataset_and_samples" else 0
    return scores_cost(recipe, recipe.ranking, portion_rows(recipe, t), pool)


def scores_cost(recipe: Recipe, ranking: Ranking, rows: int, pool: int) -> Cost:
    """PairRM compares all ordered pairs, a reward model reads each response. What functions and
    judges take is theirs to say: 0 here."""
    device, given = device_of(recipe), recipe.estimate
    workers = 1 if given.device == "cpu" else num_processes(recipe)
    parameters, tokens = 0.0, 0.0
    for member in ranking.rankers or (ranking,):
        size, texts = _ranking_model(member), pool
        length = given.prompt_tokens + given.response_tokens
        if member.ranker == "pairrm":
            texts = pool * (pool - 1)
            length = min(length + given.response_tokens, PAIRRM_TOKENS)
        parameters += size
        tokens += rows * texts * length if size else 0
    bytes_each = 4 if given.device == "cpu" else 2
    return Cost(
        rows=rows,
        tokens=tokens,
        memory=device.memory(weights=bytes_each * parameters),
        disk_bytes=text_bytes(recipe, rows, given.response_tokens),
        seconds=device.start_seconds + device.seconds(tokens * 2 * parameters / workers),
    )


def _ranking_model(ranking: Ranking) -> float:
    """Parameters of the model that ranks, if there is one whose size is known."""
    if ranking.ranker == "pairrm":
        return PAIRRM_PARAMETERS
    if ranking.ranker == "reward_model" and ranking.name_or_path:
        shape = shape_of(ranking.name_or_path, ranking.revision)
        return shape.parameters if shape else 0.0
    return 0.0
