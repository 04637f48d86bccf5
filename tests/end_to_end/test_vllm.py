"""The generate stage with the real vLLM engine, on a CPU after `make setup VLLM=1`."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_converse import COLD, ROWS, TEMPERATURES

from selm.data.parquet import read_rows
from selm.run import artifacts

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.slow,
]


def responses(project) -> list:
    return read_rows(artifacts.folder(project.recipe, "responses", 1) / "train.parquet")


def test_greedy_answers_are_those_of_transformers(project, finished) -> None:
    """The same token ids go in, so in fp32 the same answers come out, ended for the same reason."""
    vllm = project.with_overrides("generation.engine=vllm")
    done = vllm.stage("generate", 1)
    assert done.returncode == 0, done.stderr
    assert responses(vllm) == responses(finished)
    assert "Traceback" not in done.stdout + done.stderr


def test_samples_are_seeded_by_prompt_and_index(project) -> None:
    sampling = project.with_overrides(
        "generation.engine=vllm",
        "generation.num_samples=2",
        "generation.temperature=1.0",
        "data.limit=8",
    )
    assert sampling.stage("generate", 1).returncode == 0
    first = responses(sampling)
    assert any(row["responses"][0] != row["responses"][1] for row in first)
    shutil.rmtree(artifacts.folder(sampling.recipe, "responses", 1))
    again = sampling.with_overrides("generation.shard_size=1")
    assert again.stage("generate", 1).returncode == 0
    assert responses(again) == first


def test_an_option_that_vllm_refuses_is_one_line(project) -> None:
    """Longer than the model's context, which only vLLM finds out."""
    failed = project.with_overrides("generation.engine=vllm", "generation.vllm.max_model_len=99999")
    done = failed.stage("generate", 1)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: generation.vllm: "), last
    assert "max_model_len" in last
    assert "Traceback" not in done.stderr


CONVERSES = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
    "from test_converse import ROWS, conversed, load_recipe\n"
    "found = conversed(ROWS, load_recipe(sys.argv[2], sys.argv[4:]), Path(sys.argv[3]))\n"
    "(Path(sys.argv[3]) / 'rows.json').write_text(json.dumps(found.rows), encoding='utf-8')\n"
)


def test_conversations_mix_temperatures(project, tmp_path: Path) -> None:
    """At temperature 0 they are those of transformers; samples do not depend on their shard."""

    def rows(engine: str, shard_size: int) -> list[dict[str, Any]]:
        folder = tmp_path / f"{engine}-{shard_size}"
        overrides = [f"generation.engine={engine}", f"generation.shard_size={shard_size}"]
        arguments = [Path(__file__).parents[1], project.recipe_path, folder, *overrides]
        subprocess.run(
            [sys.executable, "-c", CONVERSES, *map(str, arguments)],
            env=project.all_environment(),
            check=True,
        )
        return json.loads((folder / "rows.json").read_text(encoding="utf-8"))

    together = rows("vllm", 100)
    assert [row["prompt_id"] for row in together] == [row["prompt_id"] for row in ROWS]
    assert rows("vllm", 3) == together
    cold = [TEMPERATURES[row["prompt_id"]] == COLD for row in together]
    same = [row == other for row, other in zip(together, rows("transformers", 100), strict=True)]
    assert all(same[i] for i, is_cold in enumerate(cold) if is_cold) and not all(same)
