"""Real tokenizers with their chat templates, built without a model hub.

Each function returns a transformers tokenizer that behaves like the one its model ships, above
all in what it adds by itself (BOS) and what its template writes:

| name    | vocabulary                         | adds BOS itself     | template                    |
|---------|------------------------------------|---------------------|-----------------------------|
| smollm2 | trained here                       | no                  | adds a system prompt        |
| llama3  | Llama 3's (in `llama-models`)      | `<|begin_of_text|>` | writes the same BOS again   |
| zephyr  | Mistral 7B's (in `mistral-common`) | `<s>`               | no BOS, turns end in `</s>` |
| phi3    | trained here                       | `<s>`               | no BOS, ends in two tokens  |
| qwen    | trained here                       | no, it has none     | Qwen 2.5's, system prompt   |
| qwen3   | trained here                       | no, it has none     | Qwen 3's, empty thinking    |

"Trained here": byte-level BPE on a few sentences, so it encodes any text; the special tokens and
the template are the real ones.
"""

from __future__ import annotations

import importlib.util
import json
from functools import lru_cache
from pathlib import Path
from shutil import copyfile
from tempfile import TemporaryDirectory

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

TEXT = (
    "You are a helpful assistant. The quick brown fox jumps over the lazy dog.",
    "What is the capital of France? The capital of France is Paris, a city on the river Seine.",
    "Write one sentence about the sea, without commas, and end it with a question mark.",
    "Here are three points: first, read the prompt; second, think; third, answer it briefly.",
    "In 2024 there were 1,234 of them, or 56.7 per cent; None of these words is special.",
)

# SmolLM2-135M-Instruct's own.
SMOLLM2_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# HuggingFaceH4/mistral-7b-sft-beta's and zephyr-7b-beta's own.
ZEPHYR_TEMPLATE = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
    "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)

LLAMA3_SPECIALS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{i}|>" for i in range(5, 251)),
)


@lru_cache
def smollm2() -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=_train(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], digits=True),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
        chat_template=SMOLLM2_TEMPLATE,
        model_max_length=8192,
    )


@lru_cache
def llama3() -> PreTrainedTokenizerBase:
    """Llama-3-8B-Instruct's: BOS from the tokenizer and from the template, turns end in eot_id.

    Its eos token is `<|eot_id|>` here, as the Instruct repository has it since May 2024; the
    generation config lists `<|end_of_text|>` as well.
    """
    # The converter's default pattern, by which text is split before BPE, is Llama 3's.
    vocabulary = str(shipped("llama_models", "llama3/tokenizer.model"))
    tokenizer = TikTokenConverter(vocabulary, extra_special_tokens=LLAMA3_SPECIALS).converted()
    _add_bos(tokenizer, "<|begin_of_text|>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=_trl_template("llama3"),
        model_max_length=8192,
    )


@lru_cache
def zephyr() -> PreTrainedTokenizerBase:
    """mistral-7b-sft-beta's: BOS only from the tokenizer, `</s>` ends turns and is the padding."""
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "legacy": True,
        "model_max_length": 2048,
        "pad_token": "</s>",
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    with TemporaryDirectory() as folder:
        model = shipped("mistral_common", "data/tokenizer.model.v1")
        copyfile(model, Path(folder, "tokenizer.model"))
        Path(folder, "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = ZEPHYR_TEMPLATE
    return tokenizer


@lru_cache
def phi3() -> PreTrainedTokenizerBase:
    """Phi-3-mini-4k-instruct's specials: turns end in `<|end|>`, the eos is `<|endoftext|>`."""
    specials = ["<unk>", "<s>", "</s>", "<|endoftext|>", "<|assistant|>", "<|system|>"]
    specials += ["<|end|>", "<|user|>"]
    tokenizer = _train(specials)
    _add_bos(tokenizer, "<s>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<unk>",
        chat_template=_trl_template("phi3"),
        model_max_length=4096,
    )


@lru_cache
def qwen() -> PreTrainedTokenizerBase:
    return _qwen("qwen2_5")


@lru_cache
def qwen3() -> PreTrainedTokenizerBase:
    return _qwen("qwen3")


ZOO = {
    "smollm2": smollm2,
    "llama3": llama3,
    "zephyr": zephyr,
    "phi3": phi3,
    "qwen": qwen,
    "qwen3": qwen3,
}


def _qwen(template: str) -> PreTrainedTokenizerBase:
    return PreTrainedTokenizerFast(
        tokenizer_object=_train(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], digits=True),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_trl_template(template),
        model_max_length=32768,
    )


def _train(specials: list[str], digits: bool = False) -> Tokenizer:
    """Byte-level BPE with some hundred tokens; the special ones come first, from id 0."""
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    split_digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = (
        pre_tokenizers.Sequence([split_digits, byte_level]) if digits else byte_level
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def _add_bos(tokenizer: Tokenizer, bos: str) -> None:
    """Makes `add_special_tokens=True` put `bos` first."""
    tokenizer.post_processor = TemplateProcessing(
        single=f"{bos}:0 $A:0",
        pair=f"{bos}:0 $A:0 {bos}:1 $B:1",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )


def _trl_template(name: str) -> str:
    return shipped("trl", f"chat_templates/{name}.jinja").read_text(encoding="utf-8")


def shipped(package: str, path: str) -> Path:
    """A data file inside an installed package, found without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is missing: run `make setup`")
    return Path(spec.origin).parent / path
