"""A model's folder in every state: what is wrong is one line, in the preflight and in stages."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BloomConfig,
    BloomForCausalLM,
    Gemma2Config,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from selm.errors import UserError
from selm.generation.kinds import load_engine
from selm.model import loading
from selm.recipe.schema import Generation, Model

GENERATION = Generation(engine="transformers", max_tokens=4)
SMALL = {"vocab_size": 400, "hidden_size": 16, "intermediate_size": 16}


def of(folder: Path | str, **settings: Any) -> Model:
    return Model(name_or_path=str(folder), dtype="float32", **settings)


def refusal(folder: Path | str, **settings: Any) -> str:
    """One line, the same from the preflight and from a stage."""
    said = []
    for look in (loading.inspect, loading.load):
        with pytest.raises(UserError) as caught:
            look(str(folder), of(folder, **settings))
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert "\n" not in said[0]
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        load_engine(str(folder), of(folder, **settings), GENERATION)
    return said[0]


@pytest.fixture
def folder(tiny_model: str, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


def change(file: Path, **settings: Any) -> None:
    read = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    file.write_text(json.dumps(read | settings), encoding="utf-8")


def rewrite(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Other weights in the model's file."""
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_sound_folder_is_loaded_and_inspected_without_its_weights(folder: Path) -> None:
    loaded = loading.load(str(folder), of(folder))
    looked_at = loading.inspect(str(folder), of(folder))
    assert next(loaded.parameters()).device.type == "cpu"
    assert {p.device.type for p in looked_at.parameters()} == {"meta"}
    loading.check_files(str(folder), of(folder))


def test_a_layer_that_is_not_in_the_file_is_not_made_up(folder: Path) -> None:
    rewrite(folder, lambda w: [w.pop(name) for name in list(w) if "layers.1." in name])
    said = refusal(folder)
    assert "9 weights of a LlamaForCausalLM are not in its files" in said
    assert "model.layers.1.input_layernorm.weight" in said


def test_weights_of_a_larger_model_are_refused(folder: Path) -> None:
    rewrite(folder, lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.ones(2, 2)}))
    assert "1 weights in its files do not belong to a LlamaForCausalLM: model.layers.2" in refusal(
        folder
    )


def test_weights_of_another_size_are_refused(folder: Path) -> None:
    change(folder / "config.json", intermediate_size=64)
    assert "6 weights do not have the size" in refusal(folder)


def test_tables_of_old_checkpoints_do_not_matter(folder: Path) -> None:
    extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)}
    rewrite(folder, lambda w: w.update(extra))
    loading.load(str(folder), of(folder))


def test_tied_embeddings_are_not_missing(folder: Path) -> None:
    change(folder / "config.json", tie_word_embeddings=True)
    rewrite(folder, lambda w: w.pop("lm_head.weight"))
    loading.load(str(folder), of(folder))


def test_a_reward_model_is_no_policy(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder, num_labels=1)
    LlamaForSequenceClassification(config).save_pretrained(folder)
    assert "lm_head.weight" in refusal(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(folder: Path, value: float) -> None:
    rewrite(folder, lambda w: w["model.norm.weight"].__setitem__(3, value))
    for look in (loading.load, loading.check_files):
        with pytest.raises(UserError, match=r"model\.norm\.weight has weights that are not finite"):
            look(str(folder), of(folder))


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (BertConfig(**SMALL, num_hidden_layers=1, num_attention_heads=2), BertForMaskedLM),
        (
            T5Config(vocab_size=400, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2),
            T5ForConditionalGeneration,
        ),
    ],
)
def test_a_model_that_does_not_write_from_left_to_right_is_refused(
    folder: Path, config: Any, kind: Any
) -> None:
    kind(config).save_pretrained(folder)
    assert "use a causal language model" in refusal(folder)


def test_a_model_that_calls_itself_no_decoder_and_is_one_works(folder: Path) -> None:
    config = GPTNeoXConfig(
        **SMALL, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=64
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    loading.load(str(folder), of(folder))


def test_an_adapter_is_refused_at_once_with_its_base(folder: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "adapter"
    base = AutoModelForCausalLM.from_pretrained(folder)
    get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2)).save_pretrained(adapter)
    AutoTokenizer.from_pretrained(folder).save_pretrained(adapter)
    assert f"{adapter}: it is an adapter of {folder}, not a model; merge it first" in refusal(
        adapter
    )
    shutil.copy(adapter / "adapter_config.json", folder)
    assert "is beside the model" in refusal(folder)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FILES: dict[str, Callable[[Path], Any]] = {
    "gone": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": _cut,
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "list": lambda path: path.write_text("[]", encoding="utf-8"),
    "null": lambda path: path.write_text("null", encoding="utf-8"),
    "text": lambda path: path.write_text('"a"', encoding="utf-8"),
    "latin-1": lambda path: path.write_bytes(b'{"a": "\xe9"}'),
}


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_one_line_that_names_the_folder(
    folder: Path, file: str, damage: str
) -> None:
    FILES[damage](folder / file)
    assert refusal(folder).startswith(str(folder))


@pytest.mark.parametrize("damage", FILES)
@pytest.mark.parametrize("file", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_is_one_line_or_none_at_all(
    folder: Path, file: str, damage: str
) -> None:
    FILES[damage](folder / file)
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        load_engine(str(folder), of(folder), GENERATION)


@pytest.mark.parametrize("damage", [name for name in FILES if name != "gone"])
def test_a_damaged_generation_config_is_refused(folder: Path, damage: str) -> None:
    """Its stop tokens would be lost without a word."""
    FILES[damage](folder / "generation_config.json")
    assert "generation_config.json" in refusal(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"vocab_size": "400"},
        {"vocab_size": None},
        {"vocab_size": -1},
        {"vocab_size": 10},
        {"hidden_size": 65},
        {"hidden_size": "64"},
        {"num_attention_heads": 0},
        {"num_attention_heads": 3},
        {"num_key_value_heads": 0},
        {"num_hidden_layers": "2"},
        {"num_hidden_layers": 3},
        {"hidden_act": "no_such"},
        {"model_type": "no_such"},
        {"model_type": None},
        {"dtype": "no_such"},
        {"rope_parameters": {"rope_type": "no_such"}},
        {"pad_token_id": 4000},
        {"eos_token_id": "x"},
        {"rms_norm_eps": None},
        {"max_position_embeddings": None},
        {"quantization_config": {"quant_method": "gptq"}},
    ],
    ids=str,
)
def test_a_config_that_is_wrong_is_one_line(folder: Path, settings: dict[str, Any]) -> None:
    change(folder / "config.json", **settings)
    assert refusal(folder).startswith(str(folder))


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.6},
        {"top_p": 0.9, "top_k": 5},
        {"num_beams": 1, "length_penalty": 2.0},
        {"do_sample": True, "temperature": 0.6},
    ],
    ids=str,
)
def test_a_generation_config_is_loaded_such_that_it_can_be_saved(
    folder: Path, settings: dict[str, Any], tmp_path: Path
) -> None:
    change(folder / "generation_config.json", **settings)
    loaded = loading.load(str(folder), of(folder))
    loaded.save_pretrained(tmp_path / "saved")
    saved = loading.load(str(tmp_path / "saved"), of(tmp_path / "saved"))
    assert saved.generation_config.eos_token_id == loaded.config.eos_token_id


@pytest.mark.parametrize("ends", ["x", [2, "x"], 2.5])
def test_stop_ids_that_are_no_numbers_are_refused(folder: Path, ends: Any) -> None:
    change(folder / "generation_config.json", eos_token_id=ends)
    assert "eos_token_id in its generation_config.json" in refusal(folder)


def test_a_tokenizer_with_more_ids_than_the_embedding_has_rows_is_refused(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    before = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|one|>", "<|two|>"]})
    tokenizer.save_pretrained(folder)
    with pytest.raises(UserError) as caught:
        load_engine(str(folder), of(folder), GENERATION)
    assert f"its tokenizer has ids up to {before + 1} ('<|two|>')" in str(caught.value)
    assert f"the embedding has {before} rows" in str(caught.value)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(before + 64)  # padded, as many are
    model.save_pretrained(folder)
    load_engine(str(folder), of(folder), GENERATION)


def test_a_model_without_a_longest_context_answers(folder: Path) -> None:
    BloomForCausalLM(
        BloomConfig(vocab_size=400, hidden_size=8, n_head=2, n_layer=1)
    ).save_pretrained(folder)
    said = refusal(folder)
    assert said.startswith("model.attn_implementation: 'sdpa' does not work with")
    assert said.endswith("set it to eager")
    engine = load_engine(str(folder), of(folder, attn_implementation="eager"), GENERATION)
    assert engine.max_prompt_tokens > 10**9
    assert len(engine.generate([[5, 6, 7], [8]], [0, 1])) == 2


@pytest.mark.parametrize("attention", ["no_such", "flash_attention_2"])
def test_an_attention_that_is_not_there_is_put_down_to_its_key(
    folder: Path, attention: str
) -> None:
    if attention == "flash_attention_2" and torch.cuda.is_available():
        pytest.skip("it may be there")
    assert refusal(folder, attn_implementation=attention).startswith("model.attn_implementation")


@pytest.mark.skipif(torch.cuda.is_available(), reason="it works on a GPU")
def test_an_attention_for_gpus_is_refused_without_one(folder: Path) -> None:
    said = refusal(folder, attn_implementation="flex_attention")
    assert said.startswith("model.attn_implementation: flex_attention is compiled for a GPU")


def test_sdpa_would_leave_soft_capping_out() -> None:
    config = Gemma2Config()
    with pytest.raises(UserError, match=r"soft-capping .* set it to eager"):
        loading.check_attention(config, of("x"))
    loading.check_attention(config, of("x", attn_implementation="eager"))


def test_dropout_of_attention_is_said(folder: Path) -> None:
    assert loading.dropout_note(AutoConfig.from_pretrained(folder)) == ""
    change(folder / "config.json", attention_dropout=0.1)
    assert "attention_dropout 0.1" in loading.dropout_note(AutoConfig.from_pretrained(folder))


@pytest.mark.parametrize("path", ["no/such/folder"])
def test_nothing_there_is_one_line(path: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$"):
        loading.load(path, of(path))
