"""The zoo's tokenizers behave like the ones they stand for."""

from __future__ import annotations

import re
from importlib.metadata import requires
from pathlib import Path

import pytest
import sentencepiece
import tokenizer_zoo
from packaging.requirements import Requirement
from transformers import AutoTokenizer, MistralConfig, MixtralConfig, PretrainedConfig

USER = [{"role": "user", "content": "Hi 12"}]
CHAT = [*USER, {"role": "assistant", "content": "Yo."}]
TEXTS = [*tokenizer_zoo.TEXT, "naïve 你好 🙂\n\nand a second line"]

PROMPTS = {
    "smollm2": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging"
    " Face<|im_end|>\n<|im_start|>user\nHi 12<|im_end|>\n<|im_start|>assistant\n",
    "llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi 12<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "zephyr": "<|user|>\nHi 12</s>\n<|assistant|>\n",
    "phi3": "<|user|>\nHi 12<|end|>\n<|assistant|>\n",
    "qwen": "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful"
    " assistant.<|im_end|>\n<|im_start|>user\nHi 12<|im_end|>\n<|im_start|>assistant\n",
    "qwen3": "<|im_start|>user\nHi 12<|im_end|>\n<|im_start|>assistant\n",
}
# What the template writes after an assistant's words.
ENDINGS = {
    "smollm2": "<|im_end|>\n",
    "llama3": "<|eot_id|>",
    "zephyr": "</s>\n",
    "phi3": "<|end|>\n<|endoftext|>",
    "qwen": "<|im_end|>\n",
    "qwen3": "<|im_end|>\n",
}
ADDED_BOS = {"llama3": "<|begin_of_text|>", "zephyr": "<s>", "phi3": "<s>"}

every_tokenizer = pytest.mark.parametrize("name", tokenizer_zoo.ZOO)


@every_tokenizer
@pytest.mark.parametrize("text", TEXTS)
def test_any_text_survives_encoding_and_decoding(name: str, text: str) -> None:
    tokenizer = tokenizer_zoo.ZOO[name]()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@every_tokenizer
def test_bos_is_added_where_the_real_tokenizer_adds_it(name: str) -> None:
    tokenizer = tokenizer_zoo.ZOO[name]()
    plain = tokenizer.encode("Hi", add_special_tokens=False)
    added = tokenizer.encode("Hi")[: -len(plain)]
    assert tokenizer.convert_ids_to_tokens(added) == (
        [ADDED_BOS[name]] if name in ADDED_BOS else []
    )


@every_tokenizer
def test_the_template_renders_the_prompt(name: str) -> None:
    tokenizer = tokenizer_zoo.ZOO[name]()
    rendered = tokenizer.apply_chat_template(USER, tokenize=False, add_generation_prompt=True)
    assert rendered == PROMPTS[name]


@every_tokenizer
def test_the_template_ends_an_answer_with_one_token_for_the_turn(name: str) -> None:
    tokenizer = tokenizer_zoo.ZOO[name]()
    rendered = tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert rendered.endswith("Yo." + ENDINGS[name])
    first_id = tokenizer.encode(ENDINGS[name], add_special_tokens=False)[0]
    assert tokenizer.convert_ids_to_tokens(first_id) == ENDINGS[name].split("\n")[0]


def test_llama3_template_encoded_with_specials_has_the_double_bos() -> None:
    """The trap that the code under test must avoid is really there."""
    tokenizer = tokenizer_zoo.llama3()
    rendered = tokenizer.apply_chat_template(USER, tokenize=False)
    assert tokenizer.encode(rendered)[:2] == [tokenizer.bos_token_id] * 2


def test_llama3_has_the_real_ids() -> None:
    tokenizer = tokenizer_zoo.llama3()
    ids = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|eot_id|>": 128009}
    assert len(tokenizer) == 128256
    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    assert tokenizer.encode("Hello world", add_special_tokens=False) == [9906, 1917]


@pytest.mark.parametrize("text", TEXTS)
def test_zephyr_encodes_as_its_sentencepiece_model(text: str) -> None:
    model = tokenizer_zoo.shipped("mistral_common", "data/tokenizer.model.v1")
    expected = sentencepiece.SentencePieceProcessor(str(model)).encode(text)
    assert tokenizer_zoo.zephyr().encode(text, add_special_tokens=False) == expected


SMALL = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}


@pytest.mark.parametrize("kind", [MistralConfig, MixtralConfig])
def test_a_tokenizer_is_loaded_from_a_folder_as_users_have_them(
    kind: type[PretrainedConfig], tmp_path: Path
) -> None:
    """The config.json beside it decides which code of transformers reads the tokenizer."""
    kind(num_key_value_heads=4, **SMALL).save_pretrained(tmp_path)
    tokenizer_zoo.zephyr().save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for text in TEXTS:
        assert loaded.encode(text) == tokenizer_zoo.zephyr().encode(text)


def test_the_locks_hold_what_mistral_common_imports() -> None:
    """Without VLLM=1 too: transformers imports it for every checkpoint of type mistral."""
    locks = [
        Path(f"requirements/{name}.lock").read_text(encoding="utf-8") for name in ("cpu", "dev")
    ]
    locked = {_plain(line.split("==")[0]) for lock in locks for line in lock.splitlines()}
    for line in requires("mistral-common") or []:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            assert {_plain(name) for name in (wanted.name, *wanted.extras)} <= locked


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
