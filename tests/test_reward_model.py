"""Reward models of three kinds, tiny and random: decoder with a template, text pairs, own code."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizer_zoo
import torch
from jinja2 import Template
from pools import pools_of
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from selm.errors import UserError
from selm.ranking.kinds import in_words, load_ranker, ranking_facts
from selm.ranking.reward_model import RewardModelRanker
from selm.recipe.loading import load_recipe
from selm.recipe.schema import Ranking

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Name three points about the sea."},
    {"role": "assistant", "content": "Salt, waves, fish."},
    {"role": "user", "content": "And of the moon?"},
]
PROMPTS = [[{"role": "user", "content": "Hi"}], TURNS, [{"role": "user", "content": "a " * 30}]]
CANDIDATES = [
    ["Hello.", "", "Hello. " * 12, "<|im_end|> None"],
    ["It is far away.", "x"],
    ["naïve 中文 🙂", "a", "No."],
]
IDS = ["p0", "p1", "p2"]
LIMIT = 256

# As in ArmoRM: a transformer of the user's own, whose output has a `score` beside the logits.
OWN_CODE = """
from dataclasses import dataclass
import torch
from transformers import LlamaModel, LlamaPreTrainedModel
from transformers.utils import ModelOutput

@dataclass
class Output(ModelOutput):
    rewards: torch.Tensor | None = None
    score: torch.Tensor | None = None

class OwnRewardModel(LlamaPreTrainedModel):
    def __init__(self, config):
        super().__init__(config)
        self.model = LlamaModel(config)
        self.rewards = torch.nn.Linear(config.hidden_size, 5)
        self.post_init()

    def forward(self, input_ids, attention_mask=None):
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        last = attention_mask.sum(-1) - 1
        rewards = self.rewards(hidden[torch.arange(len(last)), last])
        return Output(rewards=rewards, score=rewards.max(-1).values)
"""


def llama_config(tokenizer: PreTrainedTokenizerBase, **changes: object) -> LlamaConfig:
    settings = {
        **{"vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3},
        **{"max_position_embeddings": LIMIT, "pad_token_id": tokenizer.pad_token_id},
    }
    return LlamaConfig(**{**settings, "num_labels": 1, **changes})


def saved(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> str:
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def deberta_tokenizer() -> PreTrainedTokenizerBase:
    """A unigram vocabulary, [CLS] a [SEP] b [SEP] with token types, no chat template."""
    specials = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=specials, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(tokenizer_zoo.TEXT, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **{"pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"},
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        model_max_length=LIMIT,
    )


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Kind -> folder of a reward model."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in ("skywork", "deberta", "armo", "nopad")}
    chat, pairs = tokenizer_zoo.smollm2(), deberta_tokenizer()
    deberta = DebertaV2Config(
        **{"vocab_size": len(pairs), "hidden_size": 32, "intermediate_size": 64},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "initializer_range": 0.3},
        **{"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
        **{"position_biased_input": False, "type_vocab_size": 2, "num_labels": 1},
        **{"max_position_embeddings": LIMIT, "pad_token_id": 0},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        skywork = LlamaForSequenceClassification(llama_config(chat))
        nopad = LlamaForSequenceClassification(llama_config(chat, pad_token_id=None))
        of = {
            "skywork": saved(skywork, chat, made["skywork"]),
            "nopad": saved(nopad, chat, made["nopad"]),
            "deberta": saved(DebertaV2ForSequenceClassification(deberta), pairs, made["deberta"]),
            "armo": saved(skywork, chat, made["armo"]),
        }
        own = torch.nn.Linear(32, 5)
    give_own_code(made["armo"], own)
    return of


def give_own_code(folder: Path, head: torch.nn.Linear) -> None:
    (folder / "own_code.py").write_text(OWN_CODE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["auto_map"] = {"AutoModelForSequenceClassification": "own_code.OwnRewardModel"}
    config["architectures"] = ["OwnRewardModel"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    weights = load_file(folder / "model.safetensors")
    del weights["score.weight"]
    weights |= {"rewards.weight": head.weight.data, "rewards.bias": head.bias.data}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


OPTIONS = {"armo": {"output_key": "score", "trust_remote_code": True}}
# Scores are up to 4 here: some hundred roundings of fp32 on the way through two layers.
ROUNDING = 250 * 4 * torch.finfo(torch.float32).eps
KINDS = ("skywork", "deberta", "armo", "nopad")


def ranking_of(folder: str, kind: str = "", **changes: object) -> Ranking:
    options = {**OPTIONS.get(kind, {}), **changes}
    return Ranking(ranker="reward_model", name_or_path=folder, **options)


def plain_score(folder: str, kind: str, prompt: Sequence[dict[str, str]], text: str) -> float:
    """One text, the way the model cards do it: no padding, no batch, no cache of ours."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, trust_remote_code=kind == "armo", dtype=torch.float32
    ).eval()
    if kind == "deberta":
        asked = prompt[0]["content"]
        if len(prompt) > 1:
            asked = "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in prompt)
        inputs = tokenizer(asked, text, return_tensors="pt")
    else:
        messages = [*prompt, {"role": "assistant", "content": text}]
        inputs = tokenizer.apply_chat_template(messages, return_tensors="pt", return_dict=True)
    assert inputs["input_ids"].shape[1] <= LIMIT
    with torch.inference_mode():
        output = model(**inputs)
    return float(output["score"][0] if kind == "armo" else output["logits"][0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_plain_forward(folders, kind: str) -> None:
    """Padding only reorders additions; scores differ by far more."""
    ranker = load_ranker(ranking_of(folders[kind], kind), seed=1)
    scores = ranker.score(pools_of(IDS, PROMPTS, CANDIDATES))
    expected = [
        [plain_score(folders[kind], kind, prompt, text) for text in texts]
        for prompt, texts in zip(PROMPTS, CANDIDATES, strict=True)
    ]
    for found, wanted in zip(scores, expected, strict=True):
        assert found == pytest.approx(wanted, abs=ROUNDING)
    assert max(expected[0]) - min(expected[0]) > 0.01
    assert not ranker.pairwise


@pytest.mark.parametrize("kind", KINDS)
def test_scores_depend_on_the_text_alone(folders, kind: str) -> None:
    """Not on batch size, order, or which other texts there are."""
    wanted = RewardModelRanker(ranking_of(folders[kind], kind)).score(
        pools_of(IDS, PROMPTS, CANDIDATES)
    )
    for budget in (1, 100, 100_000):
        ranker = RewardModelRanker(ranking_of(folders[kind], kind, tokens_per_batch=budget))
        backwards = ranker.score(
            pools_of(IDS[::-1], PROMPTS[::-1], [row[::-1] for row in CANDIDATES[::-1]])
        )
        for found, row in zip(backwards, wanted[::-1], strict=True):
            assert found == pytest.approx(row[::-1], abs=ROUNDING)
        alone = ranker.score(pools_of(["p1"], PROMPTS[1:2], [CANDIDATES[1][:1] * 2]))
        assert alone[0] == pytest.approx(wanted[1][:1] * 2, abs=ROUNDING)


def test_a_template_without_system_messages_gets_them_in_the_users_turn(
    folders, tmp_path: Path
) -> None:
    """As for the policy's template: Gemma's, for one, refuses them."""
    tokenizer = AutoTokenizer.from_pretrained(folders["skywork"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}"
        "{% endif %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    )
    model = AutoModelForSequenceClassification.from_pretrained(folders["skywork"])
    folder = saved(model, tokenizer, tmp_path)
    folded = [{"role": "user", "content": f"Be brief.\n\n{TURNS[1]['content']}"}, *TURNS[2:]]
    ranker = RewardModelRanker(ranking_of(folder))
    assert ranker.score(pools_of(["p"], [TURNS], [["x"]])) == ranker.score(
        pools_of(["p"], [folded], [["x"]])
    )


def test_a_template_that_refuses_a_prompt_is_named(folders, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["skywork"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    model = AutoModelForSequenceClassification.from_pretrained(folders["skywork"])
    ranker = RewardModelRanker(ranking_of(saved(model, tokenizer, tmp_path)))
    prompt = [{"role": "tool", "content": "3"}, {"role": "user", "content": "Hi"}]
    with pytest.raises(UserError, match=r"refuses tool, user, assistant.*no tools.*prompt p7"):
        ranker.score(pools_of(["p7"], [prompt], [["x"]]))


def test_the_template_renders_what_it_is_expected_to(folders) -> None:
    """Ours through tokens, jinja on its own: the reward model reads the template's text."""
    encoder = RewardModelRanker(ranking_of(folders["skywork"])).encoder
    messages = [*TURNS, {"role": "assistant", "content": "It is far."}]
    text = Template(tokenizer_zoo.SMOLLM2_TEMPLATE).render(messages=messages)
    assert encoder.tokenizer.decode(encoder.encode(TURNS, "It is far.").ids) == text


# Texts that are too long


@pytest.mark.parametrize("kind", ["skywork", "deberta"])
def test_a_long_prompt_loses_its_start_and_a_response_never_its_end(
    folders, capsys, kind: str
) -> None:
    ranking = ranking_of(folders[kind])
    ranker = RewardModelRanker(ranking)
    long_prompt = [{"role": "user", "content": "old " * 600 + "new"}]
    long_text = "begin " + "word " * 600 + "end"
    texts = ["short", "short", long_text]
    encoded = [ranker.encoder.encode(long_prompt, text) for text in texts]
    assert [len(found.ids) for found in encoded] == [LIMIT] * 3
    assert [found.cut for found in encoded] == ["prompt", "prompt", "response"]
    seen = [ranker.encoder.tokenizer.decode(found.ids).replace(" ", "") for found in encoded]
    assert "new" in seen[0] and "short" in seen[0]
    assert "word" in seen[2] and "begin" not in seen[2] and "old" not in seen[2]
    assert seen[2].replace("[SEP]", "").replace("<|im_end|>", "").rstrip().endswith("end")
    if kind == "deberta":
        assert encoded[0].ids[0] == encoded[2].ids[0] == 1  # [CLS]
        assert len(encoded[0].token_types) == LIMIT

    ranker.score(pools_of(["p", "q"], [long_prompt, PROMPTS[0]], [texts, ["x"]]))
    said = capsys.readouterr().out
    assert f"2 of 3 texts are longer than its {LIMIT} tokens and lost their start, 1" in said
    facts = ranking_facts(
        ranking, pools_of(["p", "q"], [long_prompt, PROMPTS[0]], [texts, ["x"]]), None
    )
    assert facts == {
        f"reward_model {folders[kind]}": {"texts": 3, "cut_prompts": 2, "cut_responses": 1}
    }
    assert in_words(facts).endswith("3 texts, 2 cut_prompts, 1 cut_responses")


def test_a_text_of_just_the_limit_is_not_cut(folders) -> None:
    encoder = RewardModelRanker(ranking_of(folders["skywork"])).encoder
    base = len(encoder.encode(PROMPTS[0], "x").ids)
    encoder.limit = base
    assert encoder.encode(PROMPTS[0], "x").cut == ""
    encoder.limit = base - 1
    assert encoder.encode(PROMPTS[0], "x").cut == "prompt"


# Wrong models


def refusal(ranking: Ranking) -> str:
    with pytest.raises(UserError) as caught:
        load_ranker(ranking, seed=1).score(pools_of(IDS, PROMPTS, CANDIDATES))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_several_outputs_are_refused(folders, tmp_path: Path) -> None:
    tokenizer = tokenizer_zoo.smollm2()
    model = LlamaForSequenceClassification(llama_config(tokenizer, num_labels=3))
    folder = saved(model, tokenizer, tmp_path)
    assert "has 3 outputs, but a reward model has one" in refusal(ranking_of(folder))
    message = refusal(ranking_of(folder, output_key="logits"))
    assert "'logits' of" in message and "has the shape" in message
    message = refusal(ranking_of(folders["skywork"], output_key="score"))
    assert "has no 'score'; it has logits" in message


def test_a_language_model_without_a_head_is_refused(tmp_path: Path) -> None:
    tokenizer = tokenizer_zoo.smollm2()
    folder = saved(LlamaForCausalLM(llama_config(tokenizer)), tokenizer, tmp_path)
    message = refusal(ranking_of(folder))
    assert "is not a trained reward model: score.weight are missing in its weights" in message


def test_weights_of_another_shape_or_damaged_are_refused(folders, tmp_path: Path) -> None:
    source, target = Path(folders["skywork"]), tmp_path / "model.safetensors"
    for path in source.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(target) | {"score.weight": torch.zeros(1, 7)}
    save_file(weights, target, metadata={"format": "pt"})
    assert "score.weight are missing in its weights or have another" in refusal(
        ranking_of(str(tmp_path))
    )
    target.write_bytes(target.read_bytes()[:1000])
    assert f"{tmp_path} cannot be loaded: Error while" in refusal(ranking_of(str(tmp_path)))
    target.unlink()
    assert "cannot be loaded: Error no file named model.safe" in refusal(ranking_of(str(tmp_path)))


def test_code_of_its_own_is_not_run_unasked(folders) -> None:
    message = refusal(ranking_of(folders["armo"], output_key="score"))
    assert "is not a trained reward model" in message or "trust_remote_code=true" in message


def test_code_of_its_own_for_another_transformers_is_named(folders, tmp_path: Path) -> None:
    for path in Path(folders["armo"]).iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    source = OWN_CODE.replace("LlamaPreTrainedModel\n", "LlamaPreTrainedModel, OfAnotherVersion\n")
    (tmp_path / "own_code.py").write_text(source, encoding="utf-8")
    message = refusal(ranking_of(str(tmp_path), "armo"))
    assert "cannot be loaded: cannot import name 'OfAnotherVersion'" in message


def test_a_score_that_is_no_number_names_the_prompt(folders, tmp_path: Path) -> None:
    for path in Path(folders["skywork"]).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights["score.weight"][:] = float("nan")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert "the score nan for the prompt p0 is not a number" in refusal(ranking_of(str(tmp_path)))


def test_a_missing_folder_is_refused_before_anything_runs(tiny_recipe: str) -> None:
    ranker = ["ranking.ranker=reward_model"]
    with pytest.raises(UserError, match=r"ranking.name_or_path: missing \(a model with one output"):
        load_recipe(tiny_recipe, ranker)
    with pytest.raises(UserError, match=r"ranking.name_or_path: no such file: \./no/such"):
        load_recipe(tiny_recipe, [*ranker, "ranking.name_or_path=./no/such"])


def test_bfloat16_is_close(folders) -> None:
    """Eight bits of mantissa through two layers: a few per cent, how many the processor decides."""
    exact = RewardModelRanker(ranking_of(folders["skywork"])).score(
        pools_of(IDS, PROMPTS, CANDIDATES)
    )
    ranker = RewardModelRanker(ranking_of(folders["skywork"], dtype="bfloat16"))
    assert next(ranker.model.parameters()).dtype == torch.bfloat16
    rounded = ranker.score(pools_of(IDS, PROMPTS, CANDIDATES))
    flat = [[score for row in rows for score in row] for rows in (rounded, exact)]
    assert np.corrcoef(*flat)[0, 1] > 0.98
    assert np.abs(np.subtract(*flat)).mean() < 0.2


@pytest.mark.parametrize("kind", ["skywork", "deberta"])
def test_texts_of_any_kind_are_scored(folders, kind: str) -> None:
    texts = ["", "\ud800", "\x00\x1b[31m", "\u2028\u202e"]
    prompt = [{"role": "user", "content": "a\udfff"}]
    [scores] = RewardModelRanker(ranking_of(folders[kind])).score(
        pools_of(["p"], [prompt], [texts])
    )
    assert all(map(math.isfinite, scores))


def test_facts_leave_refused_prompts_out(folders, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders["skywork"])
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}"
    )
    model = AutoModelForSequenceClassification.from_pretrained(folders["skywork"])
    ranking = ranking_of(saved(model, tokenizer, tmp_path))
    prompts = [[{"role": "tool", "content": "3"}, *PROMPTS[0]], PROMPTS[0]]
    [facts] = ranking_facts(
        ranking, pools_of(["p", "q"], prompts, [["x", "y"], ["x"]]), None
    ).values()
    assert facts["texts"] == 1
