"""No secret gets into a recipe, and none into the line that refuses it."""

import subprocess
import sys
from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.recipe.secrets import hide, names_a_secret

REPOSITORY = Path(__file__).resolve().parents[1]
HF, OPENAI = "hf_abcdefghijklmnopqrstuvwxyz012345", "sk-proj-abcdefghij0123456789"


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)


@pytest.mark.parametrize(
    ("override", "secret"),
    [
        (f"generation.vllm.hf_token={HF}", HF),
        ("generation.vllm.hf_token=opensesame", "opensesame"),
        ("generation.vllm={hf_overrides: {api_key: opensesame}}", "opensesame"),
        (f"generation.vllm.quantization={OPENAI}", OPENAI),
        (f"generation.vllm={{hf_token: {HF}, hf_token: {HF}}}", HF),
        (f"generation.vllm.hf_token=[{HF}", HF),
        ("generation.vllm.hf_token=[opensesame", "opensesame"),
        (f"training.hub_token={HF}", HF),
        (f"training.optim={HF}", HF),
        (f"training.logging_steps={OPENAI}", OPENAI),
        (f"seed={HF}", HF),
        (f"run_name=/{HF}", HF),
        (f"hub.namespace={HF}", HF),
        (f"model.api_key={OPENAI}", OPENAI),
        ("model.password=opensesame", "opensesame"),
        (f"{HF}=1", HF),
        (HF, HF),
        ("data.name_or_path=https://me:opensesame@host/x.jsonl", "opensesame"),
        ("data.name_or_path=https://host/x.jsonl?api_key=opensesame", "opensesame"),
        ("data.name_or_path=https://host/x?a=1&X-Amz-Signature=opensesame", "opensesame"),
        ("ranking.judge.base_url=https://host/v1?key=opensesame", "opensesame"),
        ("ranking.judge.base_url=https://me:opensesame@host/v1", "opensesame"),
        (f"ranking.judge.api_key_env={OPENAI}", OPENAI),
        (f"training.lora={{target_modules: [{HF}]}}", HF),
        ("iterations=[{objective: selm, learning_rate: Bearer abcdefgh1234}]", "abcdefgh1234"),
    ],
)
def test_a_secret_is_refused_unprinted(override: str, secret: str) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe("recipes/zephyr-7b-sft/selm.yaml", [override])
    assert secret not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_secret_in_the_file_is_refused_unprinted(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for text in (f"model: {{token: {HF}}}", f"a: {HF}\na: 1", f"a: '{HF}", f"{HF}: 1", f"- {HF}"):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(UserError) as caught:
            load_recipe(path)
        assert HF not in hide(str(caught.value))
        assert HF not in str(caught.value) or text.startswith("a")


@pytest.mark.parametrize(
    "words", [[f"--generation.vllm.hf_token={HF}"], [f"training.x={HF}"], [f"--token={HF}"]]
)
def test_the_command_line_prints_none(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/plan.py", "recipes/zephyr-7b-sft/selm.yaml", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert HF not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "innocent",
    [
        *(
            "models/hf_smollm2",
            "task-1/sk-learn",
            "a.b@c",
            "http://localhost:8000/v1",
            "max_tokens",
        ),
        *("https://host/x?split=train", "key=value", "hf://datasets/a/b", "someone/hf_data"),
    ],
)
def test_what_is_no_secret_is_left_alone(innocent: str) -> None:
    assert hide(innocent) == innocent


def test_names_of_keys_that_only_sound_like_secrets_are_left_alone() -> None:
    names = ("api_key_env", "max_tokens", "prompt_tokens", "pad_token", "tokens_per_batch")
    assert not any(names_a_secret(name) for name in names)
