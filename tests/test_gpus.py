"""What can be said about machines with GPUs where there is none."""

from pathlib import Path

import dpo_rows
import pytest
import tokenizer_zoo
import torch
from transformers import LlamaForCausalLM


def test_one_process_that_sees_eight_gpus_trains_on_one(
    tiny_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRL refuses `nn.DataParallel`, which the Trainer takes for more than one GPU."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    data = dpo_rows.rows(4, 200, roles=(0, 1, 2))
    model, tokenizer = LlamaForCausalLM.from_pretrained(tiny_model), tokenizer_zoo.smollm2()
    trainer = dpo_rows.selm(
        model, tokenizer, data, tmp_path, use_cpu=False, per_device_train_batch_size=2
    )
    gradients, _ = dpo_rows.trained(trainer)
    assert gradients
    assert trainer.model_wrapped is trainer.model
    assert trainer.args.train_batch_size == 2  # eight GPUs would make it 16
