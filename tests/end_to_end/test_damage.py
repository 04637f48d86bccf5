"""Whatever is damaged in a run's folder: the same command ends well, with the same results."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from damages import DAMAGES, cut, flipped

from selm.recipe.loading import as_yaml
from selm.run import artifacts
from selm.run.stages import name, stages

pytestmark = pytest.mark.slow


def damage(path: Path, how: Callable[[bytes], bytes]) -> bytes:
    """As a disk does it, without a new time stamp; returns what the file held."""
    about, content = path.stat(), path.read_bytes()
    path.write_bytes(how(content))
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    return content


def test_damage_to_any_file_of_an_artifact_is_found(project_copy) -> None:
    """And it is said which file, and everything is current again when it is mended."""
    recipe = project_copy.recipe
    tried = 0
    for kind, t in stages(recipe):
        folder = artifacts.folder(recipe, kind, t)
        for path in [path for path in folder.rglob("*") if path.is_file()]:
            for how in DAMAGES:
                content = damage(path, how)
                if content == path.read_bytes():
                    continue  # an empty file
                found = artifacts.state(recipe, kind, t)
                assert not found.current, (path, how)
                assert found.why.startswith(f"damaged: {path.relative_to(folder)} "), (path, how)
                if kind != "report":
                    assert (kind, t) not in artifacts.done(recipe)
                path.write_bytes(content)
                tried += 1
        assert artifacts.state(recipe, kind, t).current, name(kind, t)
    assert tried > 100


def test_damage_beside_the_artifacts_changes_nothing(project_copy) -> None:
    """Settings, plan, logs, curves, locks, remembered hashes and reference log-probs."""
    kept = [name(*stage) for stage in stages(project_copy.recipe)]
    before = rewards(project_copy)
    others = [
        path
        for path in project_copy.output_dir.rglob("*")
        if path.is_file() and not any(f"/{part}/" in str(path) for part in kept)
    ]
    assert {"recipe.yaml", "plan.sh"} <= {path.name for path in others}
    assert any(path.parent.name == "reference" for path in others)
    for number, path in enumerate(others):
        damage(path, DAMAGES[number % len(DAMAGES)])
    done = project_copy.run()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout.count("already done") == len(kept)
    assert rewards(project_copy) == before
    as_it_was = as_yaml(project_copy.recipe)
    assert (project_copy.folder / "recipe.yaml").read_text(encoding="utf-8") == as_it_was


def test_what_is_damaged_is_made_again_with_the_same_results(project_copy) -> None:
    """Weights of the last checkpoint, and the log-probs that its training needs."""
    before = rewards(project_copy)
    last = project_copy.folder / "iter-2"
    damage(last / "checkpoint" / "model.safetensors", flipped)
    (reference,) = (last / "reference").iterdir()
    damage(reference, cut)
    done = project_copy.run()
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert re.search(r"iter-2/checkpoint: made again: damaged: model\.safetensors ", said)
    assert f"damaged: {reference} has changed since it was written" in said
    assert rewards(project_copy) == pytest.approx(before, abs=1e-6)


def rewards(project) -> list[float]:
    text = (project.folder / "report" / "metrics.json").read_text(encoding="utf-8")
    return [entry["reward_mean"] for entry in json.loads(text)["iterations"]]
