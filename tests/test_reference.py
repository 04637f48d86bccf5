"""The reference's log-probs outlive a training, for as long as model and rows are the same."""

import struct
from pathlib import Path
from typing import Any

from datasets import Dataset

from selm.recipe.loading import load_recipe
from selm.training.reference import ReferenceCache, cache_of

ROWS = {"prompt_ids": [[5, 6], [7]], "chosen_ids": [[8], [9, 1]], "explored_role": [0, 2]}
FOUND = {"ref_chosen_logps": [-1.5, -0.1], "ref_explored_logps": [-300.25, -2.0]}


def computed(cache: ReferenceCache, **changes: Any) -> bool:
    """Whether log-probs had to be computed; they are right either way."""
    calls = []

    def compute() -> dict[str, list[float]]:
        calls.append(1)
        return FOUND

    assert cache.get(Dataset.from_dict(ROWS | changes), compute) == FOUND
    return bool(calls)


def test_the_same_rows_and_model_are_computed_once(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path / "iter-1" / "reference", "a model")
    assert computed(cache)
    assert not computed(cache)
    assert not computed(ReferenceCache(cache.folder, "a model"))


def test_other_rows_and_other_models_are_computed_and_take_the_place(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, "a model")
    assert computed(cache)
    assert computed(cache, chosen_ids=[[8], [9]])
    assert computed(cache, explored_role=[0, 1])
    assert computed(ReferenceCache(tmp_path, "another model"))
    assert len(list(tmp_path.iterdir())) == 1
    assert computed(cache)


def test_a_file_that_was_cut_while_written_is_not_read(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, "a model")
    computed(cache)
    (kept,) = tmp_path.iterdir()
    kept.rename(kept.with_suffix(".tmp"))
    assert computed(cache)
    assert [path.name for path in tmp_path.iterdir()] == [kept.name]


def test_a_damaged_file_is_computed_again(tmp_path: Path, capsys) -> None:
    cache = ReferenceCache(tmp_path, "a model")
    computed(cache)
    (kept,) = tmp_path.iterdir()
    whole = kept.read_bytes()
    value = struct.pack("<d", FOUND["ref_explored_logps"][0])
    for damaged in (b"", whole[:50], whole.replace(value, struct.pack("<d", -300.5))):
        assert damaged != whole
        kept.write_bytes(damaged)
        assert computed(cache)
        assert f"damaged: {kept}" in capsys.readouterr().out
    assert not computed(cache)


def test_settings_of_the_training_alone_leave_the_key_as_it_is(tiny_recipe: str) -> None:
    def cache(*overrides: str) -> ReferenceCache:
        return cache_of(load_recipe(tiny_recipe, overrides), 1)

    plain = cache()
    assert plain.folder.parts[-3:] == ("tiny", "iter-1", "reference")
    for override in ("training.beta=0.5", "training.alpha=0.2", "training.forward=padded"):
        assert cache(override) == plain
    assert cache("iterations.0.learning_rate=0.5") == plain
    for override in ("model.dtype=bfloat16", "training.lora={r: 4}"):
        assert cache(override) != plain
