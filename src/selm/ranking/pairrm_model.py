"""PairRM's network and its published files, without the package that they were published with.

Two layouts hold the same weights:

    llm-blender/PairRM      config.json of the llm-blender package; the encoder's own is elsewhere
    llm-blender/PairRM-hf   config.json of transformers

Beside it each has model.safetensors (or pytorch_model.bin) and the tokenizer of DeBERTa-v3.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import Unigram
from torch import Tensor, nn
from transformers import DebertaV2Config, DebertaV2Model

from selm.errors import UserError
from selm.escape import one_line
from selm.ranking.pairrm import MARKERS
from selm.recipe.places import is_local_path

_TOKENIZER_FILES = ("tokenizer.json", "spm.model")

# What the encoders of the DeBERTa-v3 family share (microsoft/deberta-v3-*, config.json). Their
# sizes are read off the weights; a head has 64 dimensions in all of them.
DEBERTA_V3 = {
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-7,
    "max_position_embeddings": 512,
    "max_relative_positions": -1,
    "norm_rel_ebd": "layer_norm",
    "pad_token_id": 0,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "relative_attention": True,
    "share_att_key": True,
    "type_vocab_size": 0,
}
_HEAD_DIMENSIONS = 64

# What damaged files of torch raise beside UnpicklingError.
_OF_PICKLE = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError)


class PairRM(nn.Module):
    """DeBERTa and a head that reads the states at the markers. Attributes as in the weights."""

    def __init__(self, encoder: DebertaV2Config, n_tasks: int) -> None:
        super().__init__()
        hidden = encoder.hidden_size
        self.pretrained_model = DebertaV2Model(encoder)
        # Two dropouts keep the numbers of the published weights: head_layer.1 and head_layer.4.
        self.head_layer = nn.Sequential(
            nn.Dropout(0.0),
            nn.Linear(2 * hidden, hidden),
            nn.Tanh(),
            nn.Dropout(0.0),
            nn.Linear(hidden, n_tasks),
        )

    def forward(self, input_ids_B_T: Tensor, mask_B_T: Tensor, markers_B_3: Tensor) -> Tensor:
        """`logits_B`, float32: above 0 where candidate 1 is better.

        Args:
            mask_B_T: True where there is a token, False where there is padding.
            markers_B_3: positions of the source's marker, candidate 1's and candidate 2's.
        """
        output = self.pretrained_model(input_ids=input_ids_B_T, attention_mask=mask_B_T.long())
        rows = torch.arange(len(markers_B_3), device=markers_B_3.device).unsqueeze(1)
        states_B_3_H = output.last_hidden_state[rows, markers_B_3].float()
        source, first, second = states_B_3_H.unbind(dim=1)
        left = self.head_layer(torch.cat([source, first], dim=-1))
        right = self.head_layer(torch.cat([source, second], dim=-1))
        return (left - right).mean(dim=-1)


@dataclass(frozen=True)
class Published:
    """A loaded PairRM.

    Attributes:
        tokenizer: writes [CLS] ... [SEP] and knows `MARKERS`; it neither cuts nor pads.
        source_limit, candidate_limit: tokens of each part, [CLS] and [SEP] included.
    """

    model: PairRM
    tokenizer: Tokenizer
    source_limit: int = 1224
    candidate_limit: int = 412


def load(name_or_path: str, revision: str, section: str = "ranking") -> Published:
    """Load either layout in float32, in evaluation mode, on the CPU.

    Args:
        name_or_path: a folder or a Hub id.
        revision: of the Hub id.
        section: of the recipe, for errors.

    Raises:
        UserError: a file or a weight is missing or of another shape, or it is not a PairRM.
    """
    try:
        return _published(name_or_path, revision)
    except UserError as error:
        raise UserError(f"{section}.name_or_path: {error}") from error


def _published(name_or_path: str, revision: str) -> Published:
    folder = _folder(name_or_path, revision)
    config = _config(folder)
    weights_file = _file(folder, ("model.safetensors", "pytorch_model.bin"))
    weights = _weights(weights_file)
    if "ranker_type" in config:
        base = _base(folder, config)
        tokenizer = _tokenizer(_with_tokenizer(folder, base, config))
        encoder = _package_encoder(base, weights, tokenizer.get_vocab_size(), weights_file)
        limits = {
            f"{part}_limit": limit
            for part in ("source", "candidate")
            if (limit := _limit(folder, config, f"{part}_maxlength")) is not None
        }
    else:
        tokenizer = _tokenizer(folder)
        encoder = _transformers_encoder(folder, config, tokenizer)
        limits = {}
    model = _network(encoder, config, folder / "config.json")
    _check_tokenizer(tokenizer, encoder, folder)
    _check_weights(weights, model.state_dict(), weights_file)
    model.load_state_dict(weights)
    return Published(model.eval(), tokenizer, **limits)


def _network(encoder: DebertaV2Config, config: Mapping[str, Any], file: Path) -> PairRM:
    try:
        return PairRM(encoder, config.get("n_tasks", 1))
    except (ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError) as error:
        reason = one_line(" ".join(str(error).split()), most=200)
        raise UserError(f"{file}: it does not describe a DeBERTa: {reason}") from error


def _check_tokenizer(tokenizer: Tokenizer, encoder: DebertaV2Config, folder: Path) -> None:
    """Check that texts get [CLS] and [SEP], and that every id has an embedding."""
    first, *_, last = tokenizer.encode(f"{MARKERS[0]}x").tokens or [""]
    if (first, last) != ("[CLS]", "[SEP]"):
        raise UserError(f"{folder}: its tokenizer does not put [CLS] and [SEP] around a text")
    largest = max(tokenizer.get_vocab().values())
    if largest >= encoder.vocab_size:
        raise UserError(
            f"{folder}: its tokenizer has the id {largest}, but the encoder has embeddings for "
            f"{encoder.vocab_size}: they do not belong together"
        )


def _folder(name_or_path: str, revision: str) -> Path:
    if is_local_path(name_or_path):
        return Path(name_or_path)
    folder = _download(name_or_path, revision, ["*.json", "spm.model", "model.safetensors"])
    if not (folder / "model.safetensors").is_file():
        _download(name_or_path, revision, ["pytorch_model.bin"])
    return folder


def _download(name: str, revision: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{name}, revision {revision}, is not a folder here and cannot "
            f"be loaded from the Hub: {reason}"
        ) from error


def _file(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(f"{folder} has no {' or '.join(names)}")


def _config(folder: Path) -> dict[str, Any]:
    file = _file(folder, ("config.json",))
    try:
        config = dict(json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{file}: not valid JSON for a model: {error}") from error
    kinds = {
        "ranker_type": config.get("ranker_type", "pairranker") == "pairranker",
        "model_type": str(config.get("model_type")).startswith("deberta"),
    }
    for key, fits in kinds.items():
        if not fits:
            raise UserError(f"{file}: {key} is {config.get(key)!r}, so this is not a PairRM")
    return config


def _limit(folder: Path, config: Mapping[str, Any], key: str) -> int | None:
    """Tokens of a part: its markers, one token of text at least, and whatever is left out."""
    value = config.get(key)
    if value is not None and (type(value) is not int or not 4 <= value <= 10**6):
        raise UserError(f"{folder / 'config.json'}: {key} is {value!r}: wanted a number above 3")
    return value


def _weights(file: Path) -> dict[str, Tensor]:
    try:
        if file.suffix == ".safetensors":
            weights = load_file(file)
        else:
            weights = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, *_OF_PICKLE) as error:
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(weights, Mapping) or not all(map(torch.is_tensor, weights.values())):
        raise UserError(f"{file}: cannot be read: it must hold weights by name")
    # A buffer that transformers before 4.31 saved among the weights.
    return {key: w for key, w in weights.items() if not key.endswith(".position_ids")}


def _check_weights(weights: Mapping[str, Tensor], wanted: Mapping[str, Tensor], file: Path) -> None:
    for key, tensor in wanted.items():
        if key not in weights:
            raise UserError(f"{file}: {key} is missing: these are not the weights of a PairRM")
        if weights[key].shape != tensor.shape:
            raise UserError(
                f"{file}: {key} has the shape {list(weights[key].shape)}, wanted by config.json "
                f"and the tokenizer: {list(tensor.shape)}"
            )
    unknown = sorted(weights.keys() - wanted.keys())
    if unknown:
        raise UserError(f"{file}: {unknown[0]} does not belong to the model of config.json")


def _base(folder: Path, config: Mapping[str, Any]) -> Path | None:
    """The encoder's own folder, if `model_name` is one: beside the ranker's or anywhere here."""
    name = str(config.get("model_name") or "")
    for path in (folder / name, Path(name)):
        if name and path.is_dir():
            return path
    return None


def _package_encoder(
    base: Path | None, weights: Mapping[str, Tensor], vocab_size: int, weights_file: Path
) -> DebertaV2Config:
    """The package loads its encoder by name and makes its embeddings as many as its tokens.

    Where the name is not of a folder, the encoder is one of the DeBERTa-v3 family. Nothing needs
    to be downloaded for it: the package overwrites all of its weights.
    """
    if base is not None:
        encoder = _encoder_config(_file(base, ("config.json",)).parent)
        encoder.vocab_size = vocab_size
        return encoder
    layer = "pretrained_model.encoder.layer.{}.intermediate.dense.weight"
    buckets = "pretrained_model.encoder.rel_embeddings.weight"
    for key in (layer.format(0), buckets):
        if key not in weights:
            raise UserError(f"{weights_file}: {key} is missing: these are not a PairRM's weights")
    intermediate, hidden = weights[layer.format(0)].shape
    return DebertaV2Config(
        **DEBERTA_V3,
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_attention_heads=max(1, hidden // _HEAD_DIMENSIONS),
        num_hidden_layers=sum(layer.format(n) in weights for n in range(len(weights))),
        position_buckets=weights[buckets].shape[0] // 2,
    )


def _transformers_encoder(
    folder: Path, config: Mapping[str, Any], tokenizer: Tokenizer
) -> DebertaV2Config:
    keys = ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id")
    for key, marker in zip(keys, MARKERS, strict=False):
        if config.get(key) != tokenizer.token_to_id(marker):
            raise UserError(
                f"{folder / 'config.json'}: {key} is {config.get(key)}, but {marker} is "
                f"{tokenizer.token_to_id(marker)} in the tokenizer beside it"
            )
    return _encoder_config(folder)


def _encoder_config(folder: Path) -> DebertaV2Config:
    try:
        return DebertaV2Config.from_pretrained(folder)
    except (OSError, ValueError, TypeError, StrictDataclassError) as error:
        reason = one_line(" ".join(str(error).split()), most=200)
        raise UserError(f"{folder / 'config.json'}: it cannot be used: {reason}") from error


def _with_tokenizer(folder: Path, base: Path | None, config: Mapping[str, Any]) -> Path:
    """The package takes the tokenizer of its encoder; the published folder has a copy."""
    for path in (folder, base):
        if path is not None and any((path / name).is_file() for name in _TOKENIZER_FILES):
            return path
    name = str(config.get("model_name") or "")
    if not name or is_local_path(name):
        return folder
    try:
        return _download(name, "main", list(_TOKENIZER_FILES))
    except UserError as error:
        raise UserError(f"{folder} has no {' or '.join(_TOKENIZER_FILES)}; {error}") from error


def _tokenizer(folder: Path) -> Tokenizer:
    """DeBERTa-v3's, as transformers 4 made it and PairRM was trained with.

    transformers 5 makes another one of the same files, without the vocabulary's own Unicode
    normalisation: ligatures, full-width letters and no-break spaces get other tokens there.
    """
    file = _file(folder, _TOKENIZER_FILES)
    try:
        read = _from_json if file.name == "tokenizer.json" else _from_sentencepiece
        tokenizer = read(file)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise UserError(f"{file}: cannot be read: {' '.join(str(error).split())[:200]}") from error
    tokenizer.add_tokens(list(MARKERS))
    return tokenizer


def _from_json(file: Path) -> Tokenizer:
    """A saved tokenizer keeps how it last cut and padded."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _from_sentencepiece(file: Path) -> Tokenizer:
    """The conversion of transformers 4 (`DebertaV2Converter`): characters unknown to the vocabulary
    become [UNK], not bytes."""
    proto = sentencepiece_model_pb2.ModelProto.FromString(file.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces]
    tokenizer = Tokenizer(Unigram(pieces, proto.trainer_spec.unk_id, byte_fallback=False))
    steps = [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    if proto.normalizer_spec.precompiled_charsmap:
        steps.insert(1, normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap))
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = [AddedToken(name, special=True) for name in ("[PAD]", "[CLS]", "[SEP]", "[MASK]")]
    tokenizer.add_special_tokens([*specials, AddedToken("[UNK]", normalized=True, special=True)])
    ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair=None, special_tokens=ends
    )
    return tokenizer
