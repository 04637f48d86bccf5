"""The shared path's kernel and its gradient on a GPU are as exact as the padded path."""

import pytest
import torch
from on_device import assert_close, attention_errors, model_errors
from test_forward import assert_same, make, padded_and_shared

DTYPES = (torch.bfloat16, torch.float16)
HEAD_DIMS = (64, 96, 128)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_attention_is_as_exact_as_torchs_own(dtype: torch.dtype, head_dim: int) -> None:
    assert_close(attention_errors("cuda", dtype, head_dim), dtype)


@pytest.mark.parametrize("head_dim", HEAD_DIMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_model_is_as_exact_as_padded(dtype: torch.dtype, head_dim: int) -> None:
    assert_close(model_errors("cuda", dtype, head_dim), dtype)


def test_in_fp32_shared_is_padded() -> None:
    """Within 1e-4. FlexAttention's kernel wants heads of 16 dimensions at least, as these are."""
    assert_same(*(model.cuda() for model in padded_and_shared(make("qwen3"))))
