"""SELMTrainer against TRL's DPOTrainer and against the formula written out by hand, in fp32."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoTokenizer, LlamaForCausalLM, PreTrainedModel
from trl import DPOConfig, DPOTrainer

from selm.data.prompts import as_messages, as_text
from selm.model.chat import Chat
from selm.model.probe import make_chat
from selm.recipe.loading import load_recipe
from selm.run import artifacts
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, length, tokenize
from selm.training.objective import TERMS
from selm.training.reference import ReferenceCache
from selm.training.resume import last_complete_checkpoint, seal
from selm.training.run import reference_path
from selm.training.trainer import REF_COLUMNS, SELMTrainer

# What the fp32 sum of a response's log-probs, at most 64 of about 10 each, may be off by: 8e-5.
# Losses and rewards hold beta = 0.1 of it; a wrong sign, row or token changes them by 1e-2.
ROUNDING = 64 * 10 * torch.finfo(torch.float32).eps
CLOSE = {"rtol": 1e-4, "atol": ROUNDING}
# Gradients of up to 10 per weight, of which the two paths add up the parts in different orders.
CLOSE_GRADIENTS = {"rtol": 1e-4, "atol": 5e-5}
# Weights after three steps of SGD at 0.1, each of which moves some of them by more than 1e-2.
CLOSE_WEIGHTS = {"rtol": 1e-4, "atol": 5e-5}
# Weights after one step: the learning rate, 0.1, times what gradients are off by, twice.
CLOSE_STEP = {"rtol": 1e-5, "atol": 1e-5}
BETA, ALPHA = 0.1, 0.05
QUESTIONS = ("What is the sea?", "Who likes bread?", "Name three points about rain.", "Hi.")
ANSWERS = ("The sea is old maps.", "None.", "A city on the river. It is a red fox, and more of it.")


@pytest.fixture(scope="module")
def chat(tiny_model: str) -> Chat:
    return make_chat(AutoTokenizer.from_pretrained(tiny_model))


@pytest.fixture
def reference(tiny_model: str) -> PreTrainedModel:
    """Loaded for each test: TRL replaces the forward of the models it is given."""
    return LlamaForCausalLM.from_pretrained(tiny_model).eval()


@pytest.fixture
def policy(reference: PreTrainedModel) -> PreTrainedModel:
    """The reference with noise on its weights: log-ratios away from zero."""
    moved = copy.deepcopy(reference)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return moved.train()


def preferences() -> list[dict[str, Any]]:
    """Twelve rows of the schema PREFERENCES; the explored response has each role four times."""
    rows = []
    for i, role in enumerate(["chosen", "rejected", "neither"] * 4):
        question = QUESTIONS[i % len(QUESTIONS)]
        times = 2 if i < 2 else 1  # so that some rows are longer
        chosen, rejected, third = (f"{ANSWERS[(i + j) % 3]} {i}" * times for j in range(3))
        rows.append(
            {
                "prompt": [{"role": "user", "content": f"{question} {i}"}],
                "chosen": as_messages(chosen),
                "rejected": as_messages(rejected),
                "explored": {"chosen": chosen, "rejected": rejected}.get(role, third),
                "explored_role": role,
            }
        )
    return rows


@pytest.fixture(params=["shared", "padded"])
def make_trainer(
    chat: Chat, reference: PreTrainedModel, tmp_path: Path, request: pytest.FixtureRequest
) -> Callable[..., Any]:
    """A SELMTrainer of a policy against the reference, on the twelve rows, on either path."""

    def make(policy: PreTrainedModel, **settings: Any) -> SELMTrainer:
        rows, dropped = tokenize(preferences(), chat, 256, with_explored=True)
        assert not dropped
        return SELMTrainer(
            model=policy,
            ref_model=settings.pop("ref_model", reference),
            reference_cache=settings.pop("reference_cache", None),
            args=SELMConfig(
                output_dir=str(tmp_path),
                **_arguments()
                | {"alpha": ALPHA, "max_length": 256, "forward": request.param}
                | settings,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=chat.tokenizer,
        )

    return make


def _arguments() -> dict[str, Any]:
    """SGD, so that a wrong gradient is a wrong step; a row order that both trainers share."""
    return {
        "beta": BETA,
        "learning_rate": 0.1,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "per_device_train_batch_size": 4,
        "gradient_checkpointing": False,
        "use_cpu": True,
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "disable_tqdm": True,
        "seed": 3,
    }


def trl_trainer(policy: Any, reference: Any, chat: Chat, folder: Path, **settings: Any) -> Any:
    """TRL's own trainer on the same conversations as text; it tokenises them in its own way, and
    computes the reference on the fly."""
    rows = [
        {
            "prompt": chat.tokenizer.apply_chat_template(
                row["prompt"], tokenize=False, add_generation_prompt=True
            ),
            "chosen": as_text(row["chosen"]),
            "rejected": as_text(row["rejected"]),
        }
        for row in preferences()
    ]
    return DPOTrainer(
        model=policy,
        ref_model=reference,
        args=DPOConfig(output_dir=str(folder), **_arguments() | settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=chat.tokenizer,
    )


def batch_of(trainer: DPOTrainer, count: int) -> dict[str, torch.Tensor]:
    return trainer.data_collator([trainer.train_dataset[i] for i in range(count)])


def gradients(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_same_weights(one: PreTrainedModel, other: PreTrainedModel) -> None:
    parameters = [dict(model.named_parameters()) for model in (one, other)]
    torch.testing.assert_close(*parameters, **CLOSE_WEIGHTS)


def by_hand(model: PreTrainedModel, chat: Chat, prompt: Any, response: str) -> torch.Tensor:
    """log pi(response, end of turn | prompt): one sequence, no padding, full logits."""
    head, body = chat.prompt_ids(prompt), chat.response_ids(prompt, response)
    logits = model(input_ids=torch.tensor([head + body])).logits[0, len(head) - 1 : -1]
    return logits.log_softmax(-1)[range(len(body)), body].sum()


def selm_by_hand(policy: Any, reference: Any, chat: Chat, alpha: float) -> list[torch.Tensor]:
    """Eq. 3.2 per row: -log sigmoid(beta * margin) + alpha * beta * log-ratio of the explored."""
    losses = []
    for row in preferences():
        ratios = {}
        for which in ("chosen", "rejected", "explored"):
            text = row[which] if which == "explored" else as_text(row[which])
            with torch.no_grad():
                ref = by_hand(reference, chat, row["prompt"], text)
            ratios[which] = by_hand(policy, chat, row["prompt"], text) - ref
        margin = BETA * (ratios["chosen"] - ratios["rejected"])
        losses.append(-margin.sigmoid().log() + alpha * BETA * ratios["explored"])
    return losses


@pytest.mark.parametrize(
    ("settings", "optimism"),
    [
        *(({}, term) for term in TERMS),
        ({"loss_type": ["ipo"]}, "selm"),
        ({"loss_type": ["sigmoid", "sft"]}, "selm"),
    ],
)
def test_without_optimism_it_is_trls_dpo(
    optimism: str,
    settings: dict[str, Any],
    make_trainer: Any,
    policy: Any,
    tiny_model: str,
    chat: Chat,
    tmp_path: Path,
) -> None:
    twin = copy.deepcopy(policy)
    ours = make_trainer(policy, alpha=0.0, **settings)
    trls = trl_trainer(
        twin, LlamaForCausalLM.from_pretrained(tiny_model), chat, tmp_path, **settings
    )
    ours.args.optimism = optimism
    losses = [
        trainer.compute_loss(trainer.model, batch_of(trainer, 12)) for trainer in (ours, trls)
    ]
    torch.testing.assert_close(*losses, **CLOSE)
    assert losses[0].item() > 0.1
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(gradients(policy), gradients(twin), **CLOSE_GRADIENTS)


def test_a_whole_training_without_optimism_is_trls(
    make_trainer: Any, policy: Any, tiny_model: str, chat: Chat, tmp_path: Path
) -> None:
    """Three steps: same rows in the same order, same weights, same logged metrics."""
    twin, before = copy.deepcopy(policy), copy.deepcopy(policy)
    ours = make_trainer(policy, alpha=0.0, num_train_epochs=1)
    trls = trl_trainer(
        twin, LlamaForCausalLM.from_pretrained(tiny_model), chat, tmp_path, num_train_epochs=1
    )
    ours.train()
    trls.train()
    assert_same_weights(policy, twin)
    assert (policy.lm_head.weight - before.lm_head.weight).abs().max() > 1e-2
    for mine, theirs in zip(ours.state.log_history[:3], trls.state.log_history[:3], strict=True):
        for key in ("loss", "rewards/margins", "rewards/chosen", "logps/chosen", "logps/rejected"):
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=ROUNDING), key


def test_with_optimism_it_is_the_formula_for_every_role(
    make_trainer: Any, policy: Any, reference: Any, chat: Chat
) -> None:
    trainer = make_trainer(policy)
    for role, rows in _rows_by_role().items():
        batch = trainer.data_collator([trainer.train_dataset[i] for i in rows])
        assert batch["explored_role"].tolist() == [ROLES[role]] * len(rows)
        assert len(batch["completion_mask"]) == (3 if role == "neither" else 2) * len(rows)
        with torch.no_grad():
            wanted = selm_by_hand(policy, reference, chat, ALPHA)
            ours = trainer.compute_loss(trainer.model, batch)
        torch.testing.assert_close(ours, torch.stack([wanted[i] for i in rows]).mean(), **CLOSE)


def _rows_by_role() -> dict[str, list[int]]:
    roles = [row["explored_role"] for row in preferences()]
    return {role: [i for i, found in enumerate(roles) if found == role] for role in ROLES}


def test_gradients_with_optimism_are_those_of_the_formula(
    make_trainer: Any, policy: Any, reference: Any, chat: Chat
) -> None:
    twin = copy.deepcopy(policy)
    trainer = make_trainer(policy)
    trainer.compute_loss(trainer.model, batch_of(trainer, 12)).backward()
    torch.stack(selm_by_hand(twin, reference, chat, ALPHA)).mean().backward()
    torch.testing.assert_close(gradients(policy), gradients(twin), **CLOSE_GRADIENTS)


@pytest.mark.parametrize("optimism", ["xpo", "geb", "vpo"])
def test_other_terms_are_dpo_and_their_formula(
    optimism: str, make_trainer: Any, policy: Any, reference: Any, chat: Chat
) -> None:
    """Loss and gradients; a term that reads the rejected response computes no third one."""
    twin = copy.deepcopy(policy)
    trainer = make_trainer(policy, optimism=optimism)
    wanted = torch.stack(selm_by_hand(twin, reference, chat, 0.0))
    wanted = wanted + torch.stack(term_by_hand(optimism, twin, reference, chat))
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, 12))
    torch.testing.assert_close(loss, wanted.mean(), **CLOSE)
    loss.backward()
    wanted.mean().backward()
    torch.testing.assert_close(gradients(policy), gradients(twin), **CLOSE_GRADIENTS)
    logged = {key for key in trainer._metrics["train"] if key.endswith(("/explored", "/optimism"))}
    explored = {"rewards/explored", "logps/explored"} if optimism == "xpo" else set()
    assert logged == {"loss/optimism"} | explored


def term_by_hand(optimism: str, policy: Any, reference: Any, chat: Chat) -> list[torch.Tensor]:
    """The term alone per row, from the definitions."""
    terms = []
    for row in preferences():
        text = row["explored"] if optimism == "xpo" else as_text(row["rejected"])
        logp = by_hand(policy, chat, row["prompt"], text)
        with torch.no_grad():
            ref = by_hand(reference, chat, row["prompt"], text)
        terms.append(
            {
                "xpo": ALPHA * logp,
                # arctanh(1 - pi) for a pi below fp32's smallest: its limit, log(2 / pi) / 2
                "geb": -ALPHA * (math.log(2.0) - logp) / 2,
                "vpo": ALPHA * BETA * (logp - ref),
            }[optimism]
        )
    return terms


@pytest.mark.parametrize("optimism", ["geb", "vpo"])
def test_terms_of_the_rejected_response_need_no_third_sequence(
    optimism: str, chat: Chat, policy: Any, reference: Any, tmp_path: Path
) -> None:
    trainer = SELMTrainer(
        model=policy,
        ref_model=reference,
        args=SELMConfig(
            output_dir=str(tmp_path),
            **_arguments() | {"alpha": ALPHA, "max_length": 256, "optimism": optimism},
        ),
        train_dataset=Dataset.from_list(preferences()),
        processing_class=chat.tokenizer,
    )
    assert len(batch_of(trainer, 12)["completion_mask"]) == 24


@pytest.mark.parametrize("alpha", [0.0, ALPHA])
def test_a_batch_of_four_is_four_accumulated_batches_of_one(
    alpha: float, make_trainer: Any, policy: Any
) -> None:
    twin = copy.deepcopy(policy)
    whole = make_trainer(policy, alpha=alpha)
    split = make_trainer(
        twin, alpha=alpha, per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    whole.train()
    split.train()
    assert_same_weights(policy, twin)
    for one, other in zip(whole.state.log_history, split.state.log_history, strict=True):
        for key in one.keys() & {"loss", "loss/dpo", "loss/optimism", "rewards/explored"}:
            assert one[key] == pytest.approx(other[key], rel=1e-4, abs=ROUNDING), key


def test_reference_log_probs_of_all_three_responses_are_precomputed(
    make_trainer: Any, policy: Any, reference: Any, chat: Chat
) -> None:
    trainer = make_trainer(policy)
    wanted: dict[str, list[float]] = {column: [] for column in REF_COLUMNS}
    with torch.no_grad():
        for row in preferences():
            texts = (as_text(row["chosen"]), as_text(row["rejected"]), row["explored"])
            for column, text in zip(REF_COLUMNS, texts, strict=True):
                wanted[column].append(by_hand(reference, chat, row["prompt"], text).item())
    for column, values in wanted.items():
        assert trainer.train_dataset[column][:] == pytest.approx(values, rel=1e-5), column
    assert trainer.ref_model is None


def test_without_a_reference_model_the_policys_first_weights_are_the_reference(
    make_trainer: Any, policy: Any
) -> None:
    """All log-ratios are 0 at the start: log 2 for the pair, 0 for the optimism."""
    trainer = make_trainer(policy, ref_model=None)
    loss = trainer.compute_loss(trainer.model, batch_of(trainer, 12))
    torch.testing.assert_close(loss, torch.tensor(2.0).log(), **CLOSE)


def test_the_optimism_and_its_parts_are_logged(make_trainer: Any, policy: Any) -> None:
    trainer = make_trainer(policy, num_train_epochs=1)
    trainer.train()
    for step in trainer.state.log_history[:3]:
        parts = step["loss/dpo"] + step["loss/optimism"]
        assert step["loss"] == pytest.approx(parts, abs=2e-5)
        assert step["loss/optimism"] == pytest.approx(ALPHA * step["rewards/explored"], abs=2e-6)
        assert step["logps/explored"] < 0


def test_a_conversational_dataset_is_tokenised_by_the_trainer(
    chat: Chat, tmp_path: Path, make_trainer: Any, policy: Any
) -> None:
    """As users of TRL would call it: rows of the schema in, no ids."""
    raw = SELMTrainer(
        model=copy.deepcopy(policy),
        args=SELMConfig(output_dir=str(tmp_path), **_arguments(), alpha=ALPHA, max_length=256),
        train_dataset=Dataset.from_list(preferences()),
        processing_class=chat.tokenizer,
    )
    tokenised = make_trainer(policy, ref_model=None)
    ids = [each.train_dataset.remove_columns(REF_COLUMNS)[:] for each in (raw, tokenised)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha must not be negative"),
        ({"precompute_ref_log_probs": False}, "precompute_ref_log_probs=True"),
        ({"ld_alpha": 0.5}, "ld_alpha"),
    ],
)
def test_arguments_that_selm_cannot_serve_are_refused(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        SELMConfig(output_dir=str(tmp_path), **_arguments() | settings)


def test_a_training_of_one_step_trains(make_trainer: Any, policy: Any) -> None:
    """A warm-up's first step has a learning rate of 0, so it is never the only one."""
    before = copy.deepcopy(policy)
    trainer = make_trainer(
        policy,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,  # more rows than there are
        num_train_epochs=1,
        warmup_steps=0.1,
        lr_scheduler_type="cosine",
    )
    trainer.train()
    assert trainer.state.max_steps == 1
    assert trainer.state.log_history[0]["learning_rate"] == 0.1
    assert (policy.lm_head.weight - before.lm_head.weight).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("warmup", "steps", "wanted"),
    [(0.1, 1, 0), (0.1, 2, 1), (0.1, 10, 1), (0.1, 11, 2), (0.9, 3, 2), (0.0, 5, 0), (7, 5, 7)],
)
def test_a_warm_up_leaves_a_step(warmup: float, steps: int, wanted: int, tmp_path: Path) -> None:
    arguments = SELMConfig(output_dir=str(tmp_path), **_arguments() | {"warmup_steps": warmup})
    assert arguments.get_warmup_steps(steps) == wanted


def test_training_resumes_from_the_last_checkpoint_that_is_whole(tmp_path: Path) -> None:
    assert last_complete_checkpoint(tmp_path) is None
    for step, sealed in ((9, True), (10, True), (20, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "trainer_state.json").write_text("{}", encoding="utf-8")
        if sealed:
            seal(folder)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"


def test_the_reference_is_loaded_only_where_it_is_another_model(tiny_recipe: str) -> None:
    previous = load_recipe(tiny_recipe)
    initial = load_recipe(tiny_recipe, ["training.reference=initial"])
    base, policy = previous.model.name_or_path, str(artifacts.folder(previous, "checkpoint", 1))
    paths = [reference_path(r, t, False) for r in (previous, initial) for t in (1, 2)]
    assert paths == [None, None, None, base]
    under_fsdp = [reference_path(r, t, True) for r in (previous, initial) for t in (1, 2)]
    assert under_fsdp == [base, policy, base, base]


def test_reference_log_probs_reach_the_loss_as_they_are(make_trainer: Any, policy: Any) -> None:
    """Under DeepSpeed the parent makes bf16 of them: see test_two_processes.py for that."""
    trainer = make_trainer(policy)
    batch = trainer._prepare_inputs(batch_of(trainer, 4))
    for column in REF_COLUMNS:
        assert batch[column].tolist() == pytest.approx(trainer.train_dataset[column][:4], rel=1e-7)


def test_a_repeated_training_takes_the_references_log_probs_from_the_disk(
    make_trainer: Any, policy: Any, tmp_path: Path
) -> None:
    cache = ReferenceCache(tmp_path / "reference", "the reference")
    first = make_trainer(policy, reference_cache=cache)
    # another reference and another beta under the same key: nothing is computed
    again = make_trainer(policy, reference_cache=cache, ref_model=None, beta=0.5)
    for column in REF_COLUMNS:
        assert again.train_dataset[column][:] == first.train_dataset[column][:]


def test_a_steps_micro_batches_hold_rows_of_like_length(make_trainer: Any, policy: Any) -> None:
    trainer = make_trainer(policy, per_device_train_batch_size=3, gradient_accumulation_steps=4)
    lengths = [length(row) for row in trainer.train_dataset]
    batches = list(trainer.get_train_dataloader().batch_sampler)
    rows = [row for batch in batches for row in batch]
    assert sorted(rows) == list(range(12)) and {len(batch) for batch in batches} == {3}
    assert [lengths[row] for row in rows] == sorted(lengths, reverse=True)


# Ways to cut a step of twelve rows: in one piece, in equal parts, in parts of unequal rows.
CUTS: tuple[dict[str, Any], ...] = (
    {"per_device_train_batch_size": 12},
    {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 4},
    {"rows_per_step": 12, "gradient_accumulation_steps": 5},
)


@pytest.mark.parametrize("losses", [["sigmoid"], ["sigmoid", "sft"]])
def test_micro_batches_by_tokens_make_the_same_step(
    losses: list[str], make_trainer: Any, policy: Any
) -> None:
    """`sft` too, which is a mean over tokens: over those of the step, not of the micro-batch."""
    twins = [copy.deepcopy(policy) for _ in CUTS]
    found = []
    for twin, setting in zip(twins, CUTS, strict=True):
        trainer = make_trainer(twin, max_steps=1, loss_type=losses, **setting)
        if "rows_per_step" in setting:
            sizes = [len(batch) for batch in trainer.get_train_dataloader().batch_sampler]
            assert len(set(sizes)) > 1 and sum(sizes) == 12, sizes
        trainer.train()
        found.append(trainer.state.log_history[0])
    for twin in twins[1:]:
        for name, weight in twin.named_parameters():
            whole = twins[0].get_parameter(name)
            torch.testing.assert_close(weight, whole, **CLOSE_STEP, msg=name)
    of_rows = ("loss", "loss/", "rewards/", "logps/")
    for logged in found[1:]:
        for key, value in logged.items():
            if key.startswith(of_rows):
                assert value == pytest.approx(found[0][key], rel=1e-4, abs=ROUNDING), key


def test_aot_compares_within_a_micro_batch(make_trainer: Any, policy: Any) -> None:
    """As docs/recipes.md says: how a step is cut is part of that loss."""
    found = []
    for setting in CUTS[:2]:
        trainer = make_trainer(copy.deepcopy(policy), max_steps=1, loss_type=["aot"], **setting)
        trainer.train()
        found.append(trainer.state.log_history[0]["loss"])
    assert abs(found[0] - found[1]) > 1e-3
