"""The schema of a recipe: one frozen tree of settings, without the keys of TRL and vLLM."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, PrivateAttr, field_validator

from selm.errors import UserError
from selm.recipe.roles import ARGUMENT, EXECUTION, PATH
from selm.recipe.section import Section

# Keys of `ranking` that turn scores into a pair; the others are about the ranker.
SELECTION_KEYS = {"pool", "update_rule", "min_margin"}

Objective = Literal["dpo", "selm", "online_dpo"]

Optimism = Literal["selm", "xpo", "geb", "vpo", "none"]  # the terms of `training/objective.py`

# Larger counts are typing mistakes, and computing with them would take forever.
MOST, MOST_ROWS = 10**9, 10**6

Count = Annotated[int, Field(ge=1, le=MOST)]

RowCount = Annotated[int, Field(ge=1, le=MOST_ROWS)]

AutoOrCount = Literal["auto"] | Annotated[int, Field(ge=1, le=MOST_ROWS)]


class Model(Section):
    """The base model: where iteration 1 starts."""

    name_or_path: Annotated[str, PATH]
    revision: str = "main"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    attn_implementation: str = "sdpa"
    chat_template: Annotated[str | None, PATH] = None
    trust_remote_code: bool = False


class Data(Section):
    """The preference dataset D, or prompts only; `train_rows` lets the plan count offline.

    `subset` is what `datasets` calls a config's name.
    """

    name_or_path: Annotated[str, PATH]
    revision: str = "main"
    subset: str | None = None
    train_split: str = "train"
    test_split: str = "test"
    train_rows: Count | None = None
    limit: Count | None = None


class Iteration(Section):
    """One pass over one portion of D."""

    objective: Objective
    learning_rate: float = Field(gt=0, le=1000)


class Generation(Section):
    """How the policy answers prompts. Temperature 0 is greedy decoding."""

    engine: str = "vllm"
    num_samples: RowCount = 1
    temperature: float = Field(default=0.0, ge=0, le=1000)
    top_p: float = Field(default=1.0, gt=0, le=1)
    max_tokens: Count = 1024
    batch_size: Annotated[RowCount, EXECUTION] = 32
    tensor_parallel_size: Annotated[RowCount, EXECUTION] = 1
    workers: Annotated[AutoOrCount, EXECUTION] = "auto"
    shard_size: Annotated[AutoOrCount, EXECUTION] = "auto"
    vllm: dict[str, Any] = Field(default_factory=dict)


class Judge(Section):
    """How an LLM is asked, over an OpenAI-compatible endpoint, which of two responses is better.

    The key of a hosted endpoint is in an environment variable, never in a recipe.
    """

    base_url: Annotated[str, EXECUTION] = "http://localhost:8000/v1"
    api_key_env: Annotated[str | None, EXECUTION] = None
    template: Annotated[str, PATH] = "recipes/judge.txt"
    json_schema: bool = True
    max_tokens: Count = 64
    temperature: float | None = Field(default=0.0, ge=0, le=1000)
    concurrency: Annotated[RowCount, EXECUTION] = 16
    requests_per_minute: Annotated[Count | None, EXECUTION] = None
    timeout_seconds: Annotated[float, EXECUTION] = Field(default=120.0, gt=0, le=1_000_000)


class Ranking(Section):
    """The ranker of the responses (one of `ranking.kinds.KINDS`), and how scores become a pair.
    `section` is its place in the recipe, for errors about its keys."""

    ranker: str = "pairrm"
    name_or_path: Annotated[str | None, PATH] = None
    revision: str = "main"
    output_key: str | None = None
    trust_remote_code: bool = False
    judge: Judge = Field(default_factory=Judge)
    rankers: tuple["Ranking", ...] = ()
    pool: Literal["dataset_and_samples", "samples"] = "dataset_and_samples"
    update_rule: Literal["best_worst", "replace"] = "best_worst"
    min_margin: float | None = Field(default=None, ge=0, le=MOST)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    tokens_per_batch: Annotated[AutoOrCount, EXECUTION] = "auto"
    workers: Annotated[AutoOrCount, EXECUTION] = "auto"
    shard_size: Annotated[AutoOrCount, EXECUTION] = "auto"
    _section: str = PrivateAttr("ranking")

    @property
    def section(self) -> str:
        """`ranking`, `evaluation.ranking` or `ranking.rankers.0`."""
        return self._section

    @property
    def members(self) -> tuple["Ranking", ...]:
        """The members of this ranker, or itself if it has none."""
        return self.rankers or (self,)

    def error(self, key: str, what: str) -> UserError:
        """An error about a key of this section."""
        return UserError(f"{self.section}.{key}: {what}")

    def at(self, section: str) -> "Ranking":
        """The same ranking with another section."""
        members = tuple(each.at(f"{section}.rankers.{i}") for i, each in enumerate(self.rankers))
        there = self.model_copy(update={"rankers": members})
        there._section = section
        return there

    @field_validator("judge", mode="before")
    @classmethod
    def _null_takes_back_what_an_extended_recipe_says(cls, judge: Any) -> Any:
        return Judge() if judge is None else judge

    @field_validator("rankers", mode="after")
    @classmethod
    def _members_know_where_they_stand(cls, rankers: tuple["Ranking", ...]) -> Any:
        return tuple(each.at(f"ranking.rankers.{i}") for i, each in enumerate(rankers))


class Lora(Section):
    """Train an adapter instead of all weights. Keys of `peft.LoraConfig`, and `load_in_4bit`.

    `load_in_4bit` is QLoRA: during training the weights below the adapter have 4 bits.
    """

    r: RowCount = 16
    lora_alpha: RowCount = 32
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    use_rslora: bool = False
    load_in_4bit: bool = False

    @field_validator("target_modules", mode="after")
    @classmethod
    def _a_name_is_a_list_of_one(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        """Make `q_proj` a list: for peft, text is a pattern for a module's whole name."""
        if isinstance(value, str) and value != "all-linear":
            if value.isidentifier():
                return (value,)
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"Not a pattern of names ({error})") from error
        return value


class Training(Section):
    """SELM's own keys; every other key of TRL's DPOConfig is accepted beside them."""

    model_config = ConfigDict(extra="allow")

    accelerate_config: Annotated[str, EXECUTION, PATH] = "accelerate_configs/single.yaml"
    num_processes: Annotated[Annotated[int, Field(ge=1, le=100_000)] | None, EXECUTION] = None
    global_batch_size: RowCount = 256
    per_device_train_batch_size: Annotated[RowCount, EXECUTION] = 8
    tokens_per_micro_batch: Annotated[Count | None, EXECUTION] = None
    alpha: float = Field(default=0.001, ge=0, le=1e6)
    optimism: Annotated[Optimism, ARGUMENT] = "selm"
    beta: Annotated[float, ARGUMENT] = Field(default=0.01, ge=1e-9, le=1e6)
    max_length: Annotated[int, ARGUMENT] = Field(default=1024, ge=2, le=MOST)
    reference: Literal["previous", "initial"] = "previous"
    forward: Annotated[Literal["auto", "shared", "padded"], EXECUTION, ARGUMENT] = "auto"
    lora: Lora | None = None

    def trl_overrides(self) -> dict[str, Any]:
        """The keys that go to TRL's DPOConfig as they are."""
        return dict(self.model_extra or {})


class Evaluation(Section):
    """Greedy answers to held-out prompts, scored by `ranking` or else by the recipe's ranker."""

    every_iteration: bool = True
    limit: Count | None = 500
    ranking: Ranking | None = None

    @field_validator("ranking", mode="after")
    @classmethod
    def _it_knows_where_it_stands(cls, ranking: Ranking | None) -> Ranking | None:
        return ranking and ranking.at("evaluation.ranking")


class Benchmarks(Section):
    """Tests of every policy beside the run (`evaluation.kinds.BENCHMARKS`); `data` is a folder with
    their questions instead of the Hub, `limit` the number of questions that are asked of each."""

    names: tuple[str, ...] = ()
    iterations: Literal["all", "last"] | tuple[int, ...] = "all"
    judge: Ranking | None = None
    data: Annotated[str | None, PATH] = None
    limit: Count | None = None
    chat_template: bool = False

    @field_validator("judge", mode="after")
    @classmethod
    def _it_knows_where_it_stands(cls, judge: Ranking | None) -> Ranking | None:
        return judge and judge.at("benchmarks.judge")


class Estimate(Section):
    """What the plan's estimates assume (`selm.cost`); it does not change the run.

    `device` names a row of `cost/devices.yaml`, and the numbers below it override that row's.
    Lengths are means in tokens; a prompt includes its template; the defaults are UltraFeedback's
    (arXiv 2310.01377, table 1).
    """

    device: Literal["a100", "h100", "h200", "l40s", "rtx4090", "rtx3090", "cpu"] = "a100"
    memory_gb: float | None = Field(default=None, gt=0, le=MOST)
    tflops: float | None = Field(default=None, gt=0, le=MOST)
    mfu: float | None = Field(default=None, ge=1e-6, le=1)
    prompt_tokens: Count = 185
    response_tokens: Count = 305


class Hub(Section):
    """Where finished artifacts are pushed to and missing ones pulled from."""

    push: bool = False
    namespace: str | None = None
    private: bool = True
    every_save: bool = False


class Recipe(Section):
    """Everything a run depends on."""

    run_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)
    seed: int = Field(default=42, ge=0, le=4_000_000_000)  # numpy takes 2**32 - 1
    model: Model
    data: Data
    iterations: tuple[Iteration, ...] = Field(min_length=1)
    generation: Generation = Field(default_factory=Generation)
    ranking: Ranking = Field(default_factory=Ranking)
    training: Training = Field(default_factory=Training)
    evaluation: Evaluation = Field(default_factory=Evaluation)
    benchmarks: Benchmarks = Field(default_factory=Benchmarks)
    hub: Hub = Field(default_factory=Hub)
    estimate: Estimate = Field(default_factory=Estimate)
    output_dir: Annotated[str, PATH] = "runs"

    def iteration(self, t: int) -> Iteration:
        """Iteration t = 1..T (0 is the base model and has no settings)."""
        return self.iterations[t - 1]

    def alpha(self, t: int) -> float:
        """The optimism coefficient of iteration t: 0 for dpo and online_dpo, or with no term."""
        has_term = self.iteration(t).objective == "selm" and self.training.optimism != "none"
        return self.training.alpha if has_term else 0.0

    def trained_dtype(self) -> str:
        """The dtype of a policy's weights under autocast: fp32, or the model's own below an
        adapter, where they are not updated and lose nothing."""
        return "float32" if self.training.lora is None else self.model.dtype

    def held_out_ranking(self) -> Ranking:
        """The section that scores held-out responses."""
        return self.evaluation.ranking or self.ranking

    def benchmark_judge(self) -> Ranking:
        """The section that judges the answers to benchmarks."""
        return self.benchmarks.judge or self.held_out_ranking()

    def rankings(self) -> Iterator[Ranking]:
        """Every ranker that the recipe names, including members."""
        for ranking in filter(None, (self.ranking, self.evaluation.ranking)):
            yield from (ranking, *ranking.rankers)
