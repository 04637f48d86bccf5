"""A PairRM small enough for tests, in both published layouts, the same in every environment.

Used by the tests and, in an environment of its own without selm, by golden/make_pairrm_golden.py.
The weights are drawn from the raw bits of PCG64, whose stream numpy never changes; their names and
shapes are written down here, so that they state the published layout by themselves.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SENTENCEPIECE = Path(__file__).parent / "golden" / "pairrm_spm.model"
VOCABULARY = 1200  # pieces of that file; [MASK] and the four markers follow
HIDDEN, INTERMEDIATE, LAYERS, HEADS, BUCKETS = 128, 256, 2, 2, 256

ENCODER = {
    "model_type": "deberta-v2",
    "vocab_size": VOCABULARY + 5,
    "hidden_size": HIDDEN,
    "intermediate_size": INTERMEDIATE,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "position_buckets": BUCKETS,
    # from here on as in microsoft/deberta-v3-large
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "pad_token_id": 0,
    "pos_att_type": "p2c|c2p",
    "position_biased_input": False,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
}

# limits as published, and small ones for which short texts are long
LIMITS = {"published": (1224, 412), "small": (40, 16)}


def package_config(limits: str, n_tasks: int, model_name: str) -> dict[str, Any]:
    """config.json of the package's layout."""
    source, candidate = LIMITS[limits]
    return {
        "ranker_type": "pairranker",
        "model_type": "deberta",
        "model_name": model_name,
        "cache_dir": None,
        "load_checkpoint": None,
        "source_maxlength": source,
        "candidate_maxlength": candidate,
        "n_tasks": n_tasks,
        "num_pos": 5,
        "num_neg": 5,
        "sub_sampling_mode": "all_pair",
        "sub_sampling_ratio": 0.4,
        "loss_type": "instructgpt",
        "reduce_type": "linear",
        "inference_mode": "bubble",
        "drop_out": 0.05,
        "fp16": True,
    }


def transformers_config(n_tasks: int) -> dict[str, Any]:
    """config.json of the transformers layout, which has the published limits."""
    names = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id")
    ids = {name: VOCABULARY + 1 + n for n, name in enumerate(names)}
    return ENCODER | ids | {"n_tasks": n_tasks, "drop_out": 0.05, "sep_token_id": 2}


def shapes(n_tasks: int) -> dict[str, tuple[int, ...]]:
    """Every weight of the published files."""
    linear = {
        "attention.self.query_proj": (HIDDEN, HIDDEN),
        "attention.self.key_proj": (HIDDEN, HIDDEN),
        "attention.self.value_proj": (HIDDEN, HIDDEN),
        "attention.output.dense": (HIDDEN, HIDDEN),
        "intermediate.dense": (INTERMEDIATE, HIDDEN),
        "output.dense": (HIDDEN, INTERMEDIATE),
    }
    found: dict[str, tuple[int, ...]] = {
        "pretrained_model.embeddings.word_embeddings.weight": (ENCODER["vocab_size"], HIDDEN),
        "pretrained_model.encoder.rel_embeddings.weight": (2 * BUCKETS, HIDDEN),
    }
    norms = ["embeddings.LayerNorm", "encoder.LayerNorm"]
    for n in range(LAYERS):
        layer = f"encoder.layer.{n}"
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
        for name, shape in linear.items():
            found[f"pretrained_model.{layer}.{name}.weight"] = shape
            found[f"pretrained_model.{layer}.{name}.bias"] = shape[:1]
    for norm in norms:
        found[f"pretrained_model.{norm}.weight"] = (HIDDEN,)
        found[f"pretrained_model.{norm}.bias"] = (HIDDEN,)
    for name, shape in {"1": (HIDDEN, 2 * HIDDEN), "4": (n_tasks, HIDDEN)}.items():
        found[f"head_layer.{name}.weight"] = shape
        found[f"head_layer.{name}.bias"] = shape[:1]
    return found


def weights(n_tasks: int, seed: int = 20405) -> dict[str, NDArray[np.float32]]:
    """Uniform numbers, tensor by tensor in the order of the names.

    Matrices keep the size of what goes through them; norms are near 1; the logits come out
    between -3 and 3.
    """
    bits = np.random.PCG64(seed)
    drawn = {}
    for name, shape in sorted(shapes(n_tasks).items()):
        count = int(np.prod(shape))
        uniform = (bits.random_raw(count) >> np.uint64(40)).astype(np.float32) / 2**23 - 1
        values = uniform.reshape(shape).astype(np.float32)
        if name.endswith("LayerNorm.weight"):
            values = 1 + values / 4
        elif len(shape) == 1:
            values = values / 4
        elif "embeddings" not in name:
            values = values * np.float32(2 * (3 / shape[1]) ** 0.5)
        drawn[name] = values.astype(np.float32)
    return drawn


def digest(drawn: dict[str, NDArray[np.float32]]) -> str:
    """A hash of all weights, their names and shapes."""
    found = hashlib.sha256()
    for name, values in sorted(drawn.items()):
        found.update(f"{name}{values.shape}".encode())
        found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()


def write_encoder(folder: Path) -> None:
    """The encoder's own folder, config.json and tokenizer as DeBERTa-v3's, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(ENCODER), encoding="utf-8")
    write_tokenizer(folder)


def write_tokenizer(folder: Path) -> None:
    shutil.copyfile(SENTENCEPIECE, folder / "spm.model")
    config = {"do_lower_case": False, "vocab_type": "spm", "tokenizer_class": "DebertaV2Tokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")


def write_package(
    folder: Path, encoder: Path | str, limits: str = "published", n_tasks: int = 1
) -> Path:
    """The layout of llm-blender/PairRM, weights as safetensors. Its tokenizer is the encoder's."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    config = package_config(limits, n_tasks, str(encoder))
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights(n_tasks), folder / "model.safetensors")
    return folder


def write_transformers(folder: Path, n_tasks: int = 1) -> Path:
    """The layout of llm-blender/PairRM-hf."""
    from safetensors.numpy import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(transformers_config(n_tasks)), encoding="utf-8")
    write_tokenizer(folder)
    save_file(weights(n_tasks), folder / "model.safetensors", metadata={"format": "pt"})
    return folder
