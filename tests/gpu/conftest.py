"""Tests that need a GPU: without one each is skipped, and imported all the same."""

from pathlib import Path

import pytest
import torch
from end_to_end.conftest import Project

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder; `gpus(n)` says how many GPUs a test needs."""
    there = torch.cuda.device_count()
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        item.add_marker(pytest.mark.gpu)
        marker = item.get_closest_marker("gpus")
        needed = 1 if marker is None else marker.args[0]
        if there < needed:
            reason = f"needs {needed} GPU{'s' * (needed > 1)}, sees {there}; run: pytest tests/gpu"
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def project(tiny_recipe: str, tmp_path: Path) -> Project:
    """The tiny recipe with nothing done yet."""
    return Project(tiny_recipe, tmp_path / "runs")


@pytest.fixture(scope="session")
def ranked(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The tiny recipe, in fp32, with preferences to train on; trainings take copies of it."""
    return _ranked(Project(tiny_recipe, tmp_path_factory.mktemp("ranked") / "runs"))


@pytest.fixture(scope="session")
def ranked_16(tiny_recipe: str, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same in bf16, from the start: a change of the dtype makes everything stale."""
    folder = tmp_path_factory.mktemp("ranked-16") / "runs"
    return _ranked(Project(tiny_recipe, folder).with_overrides("model.dtype=bfloat16"))


def _ranked(project: Project) -> Project:
    for script in ("generate", "rank"):
        done = project.stage(script, 1)
        assert done.returncode == 0, done.stderr
    return project
