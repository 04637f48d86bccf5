"""The preflight: what it says of a sound recipe, and that each check finds what it is for."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from selm.check.checks import CHECKS, QUICK, results
from selm.recipe.loading import load_recipe
from selm.run.plan import Run

REPOSITORY = Path(__file__).resolve().parents[1]
CPU = "estimate.device=cpu"


def found(recipe: str, *overrides: str) -> dict[str, tuple[bool, str]]:
    """Check -> (all is well, what was found)."""
    every = (CPU, *overrides)
    run = Run(load_recipe(recipe, every), recipe, every)
    return {name: (well, said) for name, well, said in results(run)}


def problem(recipe: str, check: str, *overrides: str) -> str:
    """What the check says, which must be a problem, and the only one."""
    said = found(recipe, *overrides)
    well, text = said.pop(check)
    assert not well, text
    assert all(well for well, _ in said.values()), said
    return text


@pytest.fixture
def model_copy(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def test_a_sound_recipe_passes_every_check(tiny_recipe: str) -> None:
    said = found(tiny_recipe)
    assert list(said) == list(CHECKS)
    assert all(well for well, _ in said.values()), said
    assert said["data"][1] == "pairs; 12 + 12 training and 8 held-out rows"
    assert said["batch"][1].startswith("global batch 4 = 1 processes x 2 rows x 2")
    assert "a label is 'Yes.<|im_end|>'" in said["tokens"][1]
    assert "prompts end in" in said["tokens"][1]
    assert "<|im_end|>" in said["stop ids"][1]
    assert "0.0% of them truncated" in said["lengths"][1]


def test_an_engine_that_is_not_installed_is_said(tiny_recipe: str, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *others: None if name == "vllm" else find(name, *others),
    )
    said = problem(tiny_recipe, "packages", "generation.engine=vllm")
    assert said.startswith("generation.engine: vllm is not installed; run `make setup VLLM=1`")
    assert QUICK["packages"] is CHECKS["packages"], "run.sh says it, too"


def test_the_script_prints_a_line_per_check_and_exits_with_2_on_a_problem(tiny_recipe: str) -> None:
    command = [sys.executable, "scripts/check.py", tiny_recipe, CPU, "training.max_length=1000"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    problem, *others = sorted(done.stdout.splitlines())
    assert done.returncode == 2, done.stderr
    assert problem.startswith("PROBLEM model     training.max_length: 1000 tokens")
    assert [line[:7] for line in others] == ["ok     "] * (len(CHECKS) - 1)


def test_help_names_every_check() -> None:
    command = [sys.executable, "scripts/check.py", "--help"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for name in CHECKS:
        assert f"\n    {name} " in done.stdout


def test_a_context_that_is_too_short_is_found(tiny_recipe: str) -> None:
    text = problem(tiny_recipe, "model", "generation.max_tokens=512")
    assert text == "generation.max_tokens: 513 tokens, but the model's context has 512"


def test_a_folder_without_weights_is_found(tiny_recipe: str, model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    assert "has no weights" in problem(tiny_recipe, "model", f"model.name_or_path={model_copy}")


def test_a_trouble_of_several_checks_is_told_once(tiny_recipe: str, model_copy: Path) -> None:
    (model_copy / "tokenizer.json").write_text("{", encoding="utf-8")
    said = found(tiny_recipe, f"model.name_or_path={model_copy}")
    told = [text for well, text in said.values() if not well]
    assert "its tokenizer cannot be loaded" in told[0]
    assert told[1:] == ["not checked, see above"] * 3


def test_two_bos_are_found(tiny_recipe: str, tmp_path: Path) -> None:
    template = tmp_path / "twice.jinja"
    template.write_text(
        "{{ bos_token }}{{ bos_token }}"
        "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}",
        encoding="utf-8",
    )
    text = problem(tiny_recipe, "tokens", f"model.chat_template={template}")
    assert "starts with two BOS tokens" in text


def test_prompts_that_leave_no_room_and_responses_that_are_cut_are_found(tiny_recipe: str) -> None:
    said = problem(tiny_recipe, "lengths", "training.max_length=40")
    assert "leave no room for a response after 100% of the prompts" in said
    said = problem(tiny_recipe, "lengths", "training.max_length=100")
    assert "100 tokens truncate" in said


def test_answers_that_leave_no_room_for_prompts_in_the_context_are_found(tiny_recipe: str) -> None:
    said = problem(tiny_recipe, "lengths", "generation.max_tokens=511")
    assert said.startswith("generation.max_tokens: 511 tokens leave no room in the model's context")
    assert "for 100% of the prompts" in said


def test_lengths_that_the_estimates_do_not_expect_are_named(tiny_recipe: str) -> None:
    said = found(tiny_recipe, "estimate.prompt_tokens=500")["lengths"][1]
    assert "estimate.prompt_tokens is 500: set it to" in said


def test_columns_and_splits_that_are_not_there_are_found(tiny_recipe: str, tmp_path: Path) -> None:
    rows = [{"question": "Hi"}] * 20
    data = tmp_path / "odd.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    said = found(tiny_recipe, f"data.name_or_path={data}")
    assert "has the columns question; wanted: prompt" in said["data"][1]
    assert said["lengths"] == (False, "not checked, see above")
    said = found(tiny_recipe, "data.train_split=nowhere")
    assert "has no split 'nowhere'" in said["data"][1]


def test_a_wrong_number_of_rows_is_found(tiny_recipe: str) -> None:
    said = found(tiny_recipe, "data.train_rows=99")
    assert "the recipe says 99" in said["data"][1]


def rows_of(path: str) -> list[dict]:
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_every_row_is_looked_at_not_the_first_ones(tiny_recipe: str, tmp_path: Path) -> None:
    pair = {"chosen": "Well.", "rejected": "No."}
    good = [{"prompt": f"Say {i}.", **pair} for i in range(300)]
    turns = [{"role": "user", "content": text} for text in ("Once.", "Twice.")]
    odd = [{"prompt": turns, **pair}, {"prompt": "", **pair}]
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m.role }}\n"
        "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.jsonl", [*good, *odd])
    write(tmp_path / "d" / "test.jsonl", [{"prompt": f"Hold {i}.", **pair} for i in range(4)])
    data = f"data.name_or_path={tmp_path / 'd'}"
    said = found(tiny_recipe, data, f"model.chat_template={strict}")
    assert all(well for well, _ in said.values()), said
    assert "151 + 150 training and 4 held-out rows" in said["data"][1]
    assert "1 empty_prompt (train.jsonl" in said["data"][1]
    assert "refused: 1 " in said["lengths"][1]


def test_prompts_both_trained_on_and_held_out_are_counted(
    tiny_recipe: str, tiny_data: str, tmp_path: Path
) -> None:
    train, test = (rows_of(f"{tiny_data}/{name}.jsonl") for name in ("train", "test"))
    write(tmp_path / "train.jsonl", train)
    write(tmp_path / "test.jsonl", [*test, *train[:3]])
    data = f"data.name_or_path={tmp_path}"
    well, said = found(tiny_recipe, data)["data"]
    assert well and said.endswith("3 of the held-out prompts are also trained on")
    write(tmp_path / "test.jsonl", train[:5])
    assert "all 5 held-out prompts are also trained on" in problem(tiny_recipe, "data", data)


def test_a_place_that_cannot_be_written_to_is_found(
    tiny_recipe: str, model_copy: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    said = found(tiny_recipe, f"output_dir={tmp_path / 'file'}")["output"]
    assert said == (False, f"output_dir: {tmp_path / 'file'} is a file; name a folder")
    assert "cannot be written" in found(tiny_recipe, "output_dir=/proc/runs")["output"][1]
    inside = f"output_dir={model_copy / 'runs'}"
    said = problem(tiny_recipe, "output", f"model.name_or_path={model_copy}", inside)
    assert "is inside the model's folder" in said
    before = sorted(tmp_path.rglob("*"))
    assert found(tiny_recipe, f"output_dir={tmp_path / 'runs'}")["output"][0]
    assert sorted(tmp_path.rglob("*")) == before, "nothing is left"


def test_a_hub_cache_that_cannot_be_written_is_not_put_down_to_the_data(
    tiny_recipe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "/proc/no/hub")
    overrides = (CPU, "model.name_or_path=owner/name")
    run = Run(load_recipe(tiny_recipe, overrides), tiny_recipe, overrides)
    (said,) = results(run, {"output": CHECKS["output"]})
    said = said[1:]
    assert not said[0]
    assert said[1].startswith("HF_HOME: the Hub's cache /proc/no/hub cannot be written")


def test_a_tokenizer_beyond_the_embedding_is_found(tiny_recipe: str, model_copy: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_copy)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|one|>", "<|two|>"]})
    tokenizer.save_pretrained(model_copy)
    said = found(tiny_recipe, f"model.name_or_path={model_copy}")["template"]
    assert not said[0]
    assert "its tokenizer has ids up to 401 ('<|two|>'), but the embedding has 400 rows" in said[1]


def test_what_training_would_refuse_is_found(tiny_recipe: str) -> None:
    said = problem(tiny_recipe, "training", "training.lora={target_modules: [q_porj]}")
    assert said.startswith("training.lora.target_modules: ")


def test_the_quick_part_says_the_same(tiny_recipe: str, model_copy: Path) -> None:
    (model_copy / "model.safetensors").unlink()
    overrides = (CPU, f"model.name_or_path={model_copy}")
    run = Run(load_recipe(tiny_recipe, overrides), tiny_recipe, overrides)
    said = {name: well for name, well, _ in results(run, QUICK)}
    assert list(said) == list(QUICK)
    assert [name for name, well in said.items() if not well] == ["model"]


def test_prompts_alone_want_several_samples(tiny_recipe: str, tmp_path: Path) -> None:
    data = tmp_path / "prompts.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"Hi {i}"}) + "\n" for i in range(20)), encoding="utf-8"
    )
    only = f"data.name_or_path={data}"
    assert "has prompts only" in found(tiny_recipe, only)["data"][1]
    said = found(tiny_recipe, only, "generation.num_samples=2", "generation.temperature=1")
    assert said["data"] == (True, "prompts only; 9 + 9 training and 2 held-out rows")


def test_a_judges_missing_key_and_a_rankers_missing_function_are_found(
    tiny_recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.chdir(REPOSITORY)
    judge = "ranking={ranker: judge, name_or_path: gpt, judge: {api_key_env: NO_SUCH_KEY}}"
    assert "NO_SUCH_KEY is not set" in problem(tiny_recipe, "rankers", judge)
    (tmp_path / "reward.py").write_text("", encoding="utf-8")
    function = f"ranking={{ranker: function, name_or_path: '{tmp_path}/reward.py:reward'}}"
    assert "reward" in problem(tiny_recipe, "rankers", function)


def test_a_push_without_a_token_is_found(
    tiny_recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    said = problem(tiny_recipe, "hub", "hub.push=true", "hub.namespace=me")
    assert said.startswith("hub.push: no token")


def test_a_model_too_large_for_disk_and_memory_is_found(tiny_recipe: str, model_copy: Path) -> None:
    config = json.loads((model_copy / "config.json").read_text(encoding="utf-8"))
    huge = {"hidden_size": 65536, "intermediate_size": 262144, "num_hidden_layers": 400}
    (model_copy / "config.json").write_text(json.dumps(config | huge), encoding="utf-8")
    said = found(tiny_recipe, f"model.name_or_path={model_copy}")
    assert "name a folder on a larger disk" in said["disk"][1]
    assert "will not fit" in said["memory"][1]
    assert not said["disk"][0]
    assert not said["memory"][0]


def test_a_recipe_for_gpus_wants_some(tiny_recipe: str) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert "this machine has no NVIDIA GPU" in problem(
        tiny_recipe, "memory", "estimate.device=h100"
    )


def test_rows_that_the_template_refuses_are_dropped_and_named(
    tiny_recipe: str, tmp_path: Path
) -> None:
    """As the stages do it; a template that takes none of them is a problem."""
    strict = tmp_path / "strict.jinja"
    strict.write_text(
        "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        encoding="utf-8",
    )
    user = {"role": "user", "content": "And this?"}
    twice = {"prompt": [user, user], "chosen": "Yes.", "rejected": "No."}
    once = [{"prompt": f"Is it {i}?", "chosen": "Yes.", "rejected": "No."} for i in range(20)]
    own = tmp_path / "own.jsonl"

    def said(rows: list[dict]) -> dict[str, tuple[bool, str]]:
        own.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return found(tiny_recipe, f"data.name_or_path={own}", f"model.chat_template={strict}")

    well, text = said([twice, *once])["tokens"]
    assert well and "dropped: 1 refused_by_template (prompt " in text
    rows = [twice | {"prompt": [user, user | {"content": f"{i}?"}]} for i in range(20)]
    well, text = said(rows)["tokens"]
    assert not well and "it refuses all of the first 18 prompts: 18 refused_by_template" in text
