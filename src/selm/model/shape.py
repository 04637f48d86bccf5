"""How large a model is: from `shapes.yaml`, or from its config.json. Imports no torch."""

import json
import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from selm.recipe.places import is_local_path


@dataclass(frozen=True)
class Shape:
    """A decoder with gated MLPs, as `config.json` has it.

    The fields after `tied` are no sizes: they say how the model may be computed.
    family: its `model_type`. own_code: whether the Hub has code for it, which transformers runs if
        it is trusted.
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    tied: bool = False
    family: str = field(default="", compare=False)
    window: int | None = field(default=None, compare=False)
    dropout: float = field(default=0.0, compare=False)
    own_code: bool = field(default=False, compare=False)

    @property
    def linears(self) -> list[tuple[int, int]]:
        """(in, out) of the matrices of one layer."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = [(self.hidden, queries), *[(self.hidden, keys)] * 2, (queries, self.hidden)]
        mlp = [*[(self.hidden, self.intermediate)] * 2, (self.intermediate, self.hidden)]
        return attention + mlp

    @property
    def multiplied(self) -> int:
        """Parameters that a token is multiplied with: all but the embedding of its input."""
        in_layers = self.layers * sum(rows * columns for rows, columns in self.linears)
        return in_layers + self.vocab * self.hidden

    @property
    def parameters(self) -> int:
        """All of them, but for some biases and norms of queries: within 0.1 %."""
        norms = (2 * self.layers + 1) * self.hidden
        return self.multiplied + norms + (0 if self.tied else self.vocab * self.hidden)

    @property
    def cache_bytes(self) -> int:
        """Of the keys and values of one token, in 16 bits."""
        return 2 * 2 * self.layers * self.kv_heads * self.head_dim

    def adapter_parameters(self, rank: int) -> int:
        """Of LoRA on all linear layers but the head."""
        return self.layers * rank * sum(rows + columns for rows, columns in self.linears)


_TABLE = yaml.safe_load(Path(__file__).with_name("shapes.yaml").read_text(encoding="utf-8"))
SHAPES = {name: Shape(**row) for name, row in _TABLE.items()}


@lru_cache
def shape_of(name_or_path: str, revision: str = "main") -> Shape | None:
    """From `SHAPES`, or from the config.json of a folder or of the Hub's cache; None if unknown."""
    if name_or_path in SHAPES:
        return SHAPES[name_or_path]
    path = _config_path(name_or_path, revision)
    if path is None:
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    return _shape(config.get("text_config", config))


def _config_path(name_or_path: str, revision: str) -> Path | None:
    if is_local_path(name_or_path):
        path = Path(name_or_path) / "config.json"
        return path if path.is_file() else None
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name_or_path):
        return None  # the Hub has no such names, and its library raises
    from huggingface_hub import try_to_load_from_cache

    cached = try_to_load_from_cache(name_or_path, "config.json", revision=revision)
    return Path(cached) if isinstance(cached, str) else None


def _shape(config: dict[str, Any]) -> Shape | None:
    """None for what is no dense decoder: mixtures of experts, and older layouts of the keys."""
    if config.keys() & {"num_experts", "num_local_experts", "n_routed_experts"}:
        return None
    try:
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        return Shape(
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config["intermediate_size"],
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden // heads,
            vocab=config["vocab_size"],
            tied=config.get("tie_word_embeddings", False),
            family=config.get("model_type", ""),
            window=config.get("sliding_window") if config.get("use_sliding_window", True) else None,
            dropout=config.get("attention_dropout") or 0.0,
            own_code="auto_map" in config,
        )
    except KeyError:
        return None
