"""Before a training takes the shared path, it computes two rows on both paths and compares.

The rows are the training's own, the device and the dtype too. The model is a small one of the
policy's class and widths: two layers, with weights drawn for the check. An error in a kernel or in
the mask shows in them as it would in all layers, and the policy itself, which may be sharded or
quantised, stays as it is. No process waits for another before each has its verdict, so a kernel
that fails in one of them leaves no other hanging.
"""

import copy
import time
from collections.abc import Sequence

import torch
from accelerate import init_empty_weights
from accelerate.utils import gather_object
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, PreTrainedModel

from selm.escape import one_line
from selm.training.config import SELMConfig
from selm.training.examples import ROLES, TokenRow, length
from selm.training.forward import Batch, SELMCollator, forward
from selm.training.shared_prefix import ATTENTION, prepare

LAYERS = 2
LOOKED_AT = 256  # rows among which the two are chosen
TOKENS = 300  # of a row that is chosen: two of them fill several of FlexAttention's blocks of 128

# How far the paths may be apart in fp32, and in 16 bits. Log-probs: the root mean square of their
# differences; the logits that the drawn weights give have a variance of 1. Gradients: the norm of
# their difference, relative to theirs.
LOG_PROBS, GRADIENTS = (5e-3, 0.05), (1e-2, 0.1)

Outcome = tuple[torch.Tensor, torch.Tensor]  # log-probs (N,), gradient of the last layer (W,)


def self_check(
    policy: PreTrainedModel, arguments: SELMConfig, rows: Dataset, pad_token_id: int
) -> tuple[str | None, str]:
    """Compute two rows on both paths; every process calls this, and all get the same answer.

    Random numbers of the training are not used, and the policy is not touched.

    Returns:
        Why the shared path cannot be trusted, or None; and what was found, as part of a line.
    """
    start = time.perf_counter()
    model = small_model(policy, arguments.device)
    chosen, autocast = pick(rows), autocast_of(arguments)
    padded = outcome(model, batch_of(chosen, pad_token_id, False, arguments.device), autocast)
    why_not, said = None, ""
    try:
        prepare(model)
        shared = outcome(model, batch_of(chosen, pad_token_id, True, arguments.device), autocast)
        exact = autocast is None and model.dtype == torch.float32
        why_not, said = differences(padded, shared, exact)
    except Exception as error:  # whatever a compiler, a driver or a kernel raises
        why_not = one_line(f"{type(error).__name__}: {str(error).strip()}", most=200)
    (why_not, *_) = [why for why in gather_object([why_not]) if why is not None] or [None]
    return why_not, f"{said}, {time.perf_counter() - start:.1f} s"


def differences(padded: Outcome, shared: Outcome, exact: bool) -> tuple[str | None, str]:
    """Why two outcomes are not the same but for rounding, or None; and by how much they differ.

    Args:
        exact: whether all was computed in fp32.
    """
    log_probs = (shared[0] - padded[0]).square().mean().sqrt().item()
    gradients = ((shared[1] - padded[1]).norm() / padded[1].norm()).item()
    said = f"log-probs differ by {log_probs:.1e}, gradients by {gradients:.1e}"
    most = [in_fp32 if exact else in_16_bits for in_fp32, in_16_bits in (LOG_PROBS, GRADIENTS)]
    if log_probs <= most[0] and gradients <= most[1]:  # not so for NaN
        return None, said
    return f"{said} from the padded path's, more than {most[0]:g} and {most[1]:g}", said


def pick(rows: Dataset) -> list[TokenRow]:
    """Two of the first rows, close to `TOKENS` long; one with a third response if there is one."""
    first = rows.select(range(min(len(rows), LOOKED_AT))).to_list()
    first.sort(key=lambda row: abs(length(row) - TOKENS))
    first.sort(key=lambda row: row["explored_role"] != ROLES["neither"])
    third, *others = first
    return [third, *sorted(others, key=lambda row: abs(length(row) - TOKENS))[:1]]


def batch_of(
    rows: Sequence[TokenRow], pad_token_id: int, shared: bool, device: torch.device
) -> Batch:
    """The rows as the trainer's collator makes a batch of them."""
    batch = SELMCollator(pad_token_id, shared=shared)(rows)
    return {key: value.to(device) if key != "layout" else value for key, value in batch.items()}


def autocast_of(arguments: SELMConfig) -> torch.dtype | None:
    """The dtype that the training computes in where its weights are in fp32."""
    if arguments.deepspeed_plugin is not None:
        return None  # the weights are in that dtype
    dtypes = {torch.bfloat16: arguments.bf16, torch.float16: arguments.fp16}
    return next((dtype for dtype, asked_for in dtypes.items() if asked_for), None)


def outcome(model: PreTrainedModel, batch: Batch, autocast: torch.dtype | None) -> Outcome:
    """One forward, and a backward through the head and the last layer."""
    device, dtype = model.device.type, autocast or torch.bfloat16
    responses = batch["completion_mask"][:, 1:] == 1
    with torch.autocast(device, dtype, enabled=autocast is not None):
        if "layout" in batch:
            log_probs = forward(model, batch).log_probs[responses]
        else:
            log_probs = _padded_log_probs(model, batch, responses)
    weights = torch.linspace(-1, 1, len(log_probs), device=log_probs.device)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad((log_probs * weights).mean(), trained)
    return log_probs.detach(), torch.cat([each.float().flatten() for each in gradients])


def _padded_log_probs(
    model: PreTrainedModel, batch: Batch, responses: torch.Tensor
) -> torch.Tensor:
    """Those of the response tokens, (N,), as transformers computes sequences with padding.

    TRL's fused head would want weights that ZeRO-3 has sharded.
    """
    ids, mask = batch["input_ids"], batch["attention_mask"]
    hidden = model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)[0]
    logits = model.get_output_embeddings()(hidden[:, :-1][responses]).float()
    return -cross_entropy(logits, ids[:, 1:][responses], reduction="none")


def small_model(policy: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """Two layers of the policy's family and widths, of which only the last has gradients."""
    config = copy.deepcopy(policy.config.get_text_config())
    config.num_hidden_layers = min(LAYERS, config.num_hidden_layers)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: config.num_hidden_layers]
    if config._attn_implementation == ATTENTION:  # a second trainer of the same policy
        config._attn_implementation = "sdpa"
    with init_empty_weights(include_buffers=False):
        model = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)](config)
    _draw_weights(model, device, policy.dtype)
    model.tie_weights()
    model.to(device).requires_grad_(False)
    model.base_model.layers[-1].requires_grad_(True)
    return model.eval()


def _draw_weights(model: PreTrainedModel, device: torch.device, dtype: torch.dtype) -> None:
    """Weights that keep a variance of about 1 from layer to layer, whatever the widths."""
    generator = torch.Generator(device).manual_seed(0)
    for name, empty in list(model.named_parameters()):
        owner, _, attribute = name.rpartition(".")
        if empty.dim() == 1:  # of a norm, or a bias
            drawn = torch.full_like(empty, float(attribute == "weight"), device=device, dtype=dtype)
        else:
            drawn = torch.empty_like(empty, device=device, dtype=dtype)
            drawn.normal_(std=empty.shape[-1] ** -0.5, generator=generator)
        setattr(model.get_submodule(owner), attribute, torch.nn.Parameter(drawn))
