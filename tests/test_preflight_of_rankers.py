"""What is wrong with a ranker is found before it has anything to do."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pairrm_weights as small
import pytest
import tokenizer_zoo
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

from selm.errors import UserError
from selm.ranking.kinds import load_ranker, look
from selm.recipe.schema import Judge, Ranking

HI = [{"role": "user", "content": "Hi"}]
ROWS = [
    {"prompt_id": f"p{i}", "prompt": HI, "chosen": "Good.", "rejected": "Bad.", "tools": None}
    | {"columns": {"level": i}}
    for i in range(3)
]
PROMPTS_ONLY = [row | {"chosen": None, "rejected": None, "columns": {}} for row in ROWS]


def refusal(ranking: Ranking, section: str = "ranking", rows: Any = ROWS) -> str:
    with pytest.raises(UserError) as caught:
        look(ranking.at(section), rows)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def function(folder: Path, body: str, parameters: str = "prompt, candidates, **columns") -> Ranking:
    (folder / "own.py").write_text(f"def reward({parameters}):\n    {body}\n", encoding="utf-8")
    return Ranking(ranker="function", name_or_path=f"{folder / 'own.py'}:reward")


def test_a_function_is_called_with_the_first_row(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    body = f"open({str(seen)!r}, 'a').write(repr((prompt, candidates, columns)) + '\\n')"
    ranking = function(tmp_path, f"{body}; return [1, 2]")
    look(ranking, ROWS)
    look(ranking, PROMPTS_ONLY)
    pair = {"chosen": "Good.", "rejected": "Bad."}
    one, other = seen.read_text(encoding="utf-8").splitlines()
    assert one == repr((HI, ["Good.", "Bad."], {"prompt_id": "p0", **pair, "level": 0}))
    none = {"chosen": None, "rejected": None}
    assert other == repr((HI, ["Yes.", "No."], {"prompt_id": "p0", **none}))


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("return None", "wanted one number per candidate, got None for p0"),
        ("import sys; sys.exit(0)", "it ends the Python process: SystemExit: 0 (line 2)"),
        ("return columns['answer']", "KeyError: 'answer' (line 2), for the prompt p0"),
    ],
)
def test_a_function_that_fails_is_found(tmp_path: Path, body: str, words: str) -> None:
    assert words in refusal(function(tmp_path, body))
    message = refusal(function(tmp_path, body), "evaluation.ranking")
    assert message.startswith("evaluation.ranking (function): ") and words in message


def test_a_column_that_a_function_wants_and_nobody_has_is_found(tmp_path: Path) -> None:
    ranking = function(tmp_path, "return [1, 2]", "prompt, candidates, answer")
    assert (
        "it needs a column 'answer'; the columns are prompt_id, chosen, rejected, level"
        in refusal(ranking)
    )


def test_members_of_an_ensemble_are_named(tmp_path: Path) -> None:
    whole = Ranking(
        ranker="ensemble", rankers=(Ranking(ranker="random"), function(tmp_path, "1 / 0"))
    )
    with pytest.raises(UserError, match=r"^ranking.rankers.1 \(function\): .*ZeroDivisionError"):
        look(whole, ROWS)
    look(Ranking(ranker="random"), ROWS)


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_judge_without_its_key_is_found(monkeypatch, key: str | None) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("SOME_KEY", key)
    ranking = Ranking(ranker="judge", name_or_path="m", judge=Judge(api_key_env="SOME_KEY"))
    assert "ranking.judge.api_key_env: SOME_KEY is not set" in refusal(ranking)
    monkeypatch.setenv("SOME_KEY", "x")
    look(ranking, ROWS)


# Reward models


def llama(**changes: Any) -> LlamaConfig:
    tokenizer = tokenizer_zoo.smollm2()
    settings = {
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64},
        **{"pad_token_id": tokenizer.pad_token_id, "num_labels": 1},
    }
    return LlamaConfig(**{**settings, **changes})


@pytest.fixture
def reward_model(tmp_path: Path) -> Path:
    LlamaForSequenceClassification(llama()).save_pretrained(tmp_path / "rm")
    tokenizer_zoo.smollm2().save_pretrained(tmp_path / "rm")
    return tmp_path / "rm"


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """None removes a weight."""
    weights = load_file(folder / "model.safetensors") | changes
    kept = {name: values for name, values in weights.items() if values is not None}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), "utf-8")


WRONG: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no head": (
        lambda folder: LlamaForCausalLM(llama()).save_pretrained(folder),
        "is not a trained reward model: score.weight are missing",
    ),
    "a layer is missing": (
        lambda folder: change_config(folder, num_hidden_layers=3),
        "is not a trained reward model: model.layers.2.",
    ),
    "a layer too many": (
        lambda folder: change_config(folder, num_hidden_layers=1),
        ", ... of its weights do not belong to the model",
    ),
    "another shape": (
        lambda folder: change_weights(folder, **{"score.weight": torch.zeros(1, 7)}),
        "score.weight are missing in its weights or have another shape",
    ),
    "several outputs": (
        lambda folder: LlamaForSequenceClassification(llama(num_labels=3)).save_pretrained(folder),
        "has 3 outputs, but a reward model has one",
    ),
    "an adapter": (
        lambda folder: (folder / "adapter_config.json").write_text("{}", "utf-8"),
        "is an adapter (adapter_config.json); merge it into its base model",
    ),
    "another tokenizer": (
        lambda folder: LlamaForSequenceClassification(llama(vocab_size=9)).save_pretrained(folder),
        "but the model has embeddings for 9, for the prompt p0",
    ),
    "a template that refuses all": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{{ raise_exception('not\nfor you') }}", "utf-8"
        ),
        " refuses user, assistant: not for you, for the prompt p0",
    ),
    "a template with a mistake": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ 1 / 0 }}", "utf-8"),
        "division by zero, for the prompt p0",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "cannot be loaded: "),
    "empty weights": (
        lambda folder: (folder / "model.safetensors").write_bytes(b""),
        "cannot be loaded: ",
    ),
    "no config": (lambda folder: (folder / "config.json").unlink(), "cannot be loaded: "),
    "a broken config": (
        lambda folder: (folder / "config.json").write_bytes(b"\xff{"),
        "cannot be loaded: ",
    ),
    "a config of nonsense": (
        lambda folder: change_config(folder, hidden_size="x"),
        "cannot be loaded: ",
    ),
    "heads of no size": (
        lambda folder: change_config(folder, num_attention_heads=0, head_dim=None),
        "cannot be loaded: ",
    ),
    "an unknown kind": (
        lambda folder: change_config(folder, model_type="nonsense"),
        "cannot be loaded: ",
    ),
    "a broken tokenizer": (
        lambda folder: (folder / "tokenizer.json").write_text("{}", "utf-8"),
        "cannot be loaded: ",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_reward_model_that_is_wrong_is_found_without_its_weights(
    reward_model: Path, wrong: str
) -> None:
    change, words = WRONG[wrong]
    change(reward_model)
    ranking = Ranking(ranker="reward_model", name_or_path=str(reward_model))
    message = refusal(ranking)
    assert words in message and str(reward_model) in message, message
    if "for the prompt" not in words:
        with pytest.raises(UserError):
            load_ranker(ranking, seed=1)


def test_a_sound_reward_model_passes(reward_model: Path, capsys) -> None:
    """What a language model leaves behind changes no score."""
    change_weights(reward_model, **{"lm_head.weight": torch.zeros(3, 3)})
    look(Ranking(ranker="reward_model", name_or_path=str(reward_model)), ROWS)
    look(Ranking(ranker="reward_model", name_or_path=str(reward_model)), PROMPTS_ONLY)


def test_a_prompt_that_the_template_refuses_is_no_reason_to_stop(reward_model: Path) -> None:
    (reward_model / "chat_template.jinja").write_text(
        "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools') }}"
        "{% endif %}{{ m.content }}{% endfor %}",
        "utf-8",
    )
    odd = ROWS[0] | {"prompt": [{"role": "tool", "content": "3"}, *HI]}
    ranking = Ranking(ranker="reward_model", name_or_path=str(reward_model))
    look(ranking, [odd, *ROWS[1:]])
    assert "no tools" in refusal(ranking, rows=[odd])


# PairRM


def pairrm_tokenizer(folder: Path, **changes: Any) -> None:
    """Its tokenizer.json, with changes."""
    from selm.ranking.pairrm_model import load

    tokenizer = load(str(folder), "main").tokenizer
    content = json.loads(tokenizer.to_str()) | changes
    Tokenizer.from_str(json.dumps(content)).save(str(folder / "tokenizer.json"))


WRONG_PAIRRM: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a weight is missing": (
        lambda folder: change_weights(folder, **{"head_layer.4.bias": None}),
        "head_layer.4.bias is missing",
    ),
    "no markers around a text": (
        lambda folder: pairrm_tokenizer(folder, post_processor=None),
        "its tokenizer does not put [CLS] and [SEP] around a text",
    ),
    "a vocabulary beyond the embedding": (
        lambda folder: (
            change_config(folder, vocab_size=1000),
            change_weights(
                folder,
                **{"pretrained_model.embeddings.word_embeddings.weight": torch.zeros(1000, 128)},
            ),
        ),
        "but the encoder has embeddings for 1000: they do not belong together",
    ),
    "heads that divide nothing": (
        lambda folder: change_config(folder, num_attention_heads=7),
        "config.json: it does not describe a DeBERTa",
    ),
    "tasks of nonsense": (
        lambda folder: change_config(folder, n_tasks="x"),
        "config.json: it does not describe a DeBERTa",
    ),
    "a config of nonsense": (
        lambda folder: change_config(folder, hidden_size="x"),
        "config.json: ",
    ),
    "a config of any depth": (
        lambda folder: (folder / "config.json").write_text("[" * 100_000, "utf-8"),
        "config.json: not valid JSON",
    ),
    "weights that are none": (
        lambda folder: (
            (folder / "model.safetensors").unlink(),
            torch.save([1, 2], folder / "pytorch_model.bin"),
        ),
        "pytorch_model.bin: cannot be read: it must hold weights by name",
    ),
    "weights cut short": (
        lambda folder: (
            (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            (folder / "pytorch_model.bin").write_bytes(b"PK\x03\x04"),
        ),
        "pytorch_model.bin: cannot be read",
    ),
}


@pytest.mark.parametrize("wrong", WRONG_PAIRRM)
def test_a_pairrm_that_is_wrong_is_found(tmp_path: Path, wrong: str) -> None:
    folder = small.write_transformers(tmp_path / "hf")
    change, words = WRONG_PAIRRM[wrong]
    change(folder)
    message = refusal(Ranking(ranker="pairrm", name_or_path=str(folder)))
    assert words in message and str(folder) in message, message


@pytest.mark.parametrize("limit", ["x", 0, 3, -1, True, 2**60])
def test_a_limit_of_nonsense_is_named(tmp_path: Path, limit: Any) -> None:
    small.write_package(tmp_path, "microsoft/deberta-v3-large")
    small.write_tokenizer(tmp_path)
    change_config(tmp_path, source_maxlength=limit)
    words = f"config.json: source_maxlength is {limit!r}: wanted a number above 3"
    assert words in refusal(Ranking(ranker="pairrm", name_or_path=str(tmp_path)))


def test_a_sound_pairrm_passes_and_prompts_that_it_reads_none_of_do_not(tmp_path: Path) -> None:
    folder = small.write_transformers(tmp_path / "hf")
    ranking = Ranking(ranker="pairrm", name_or_path=str(folder))
    odd = ROWS[0] | {"prompt": [{"role": "tool", "content": "3"}, *HI]}
    look(ranking, [odd, *ROWS[1:]])
    assert "has a turn of 'tool'" in refusal(ranking, rows=[odd])
    shutil.rmtree(folder)
