"""An iteration with LoRA through the scripts: what it leaves is an ordinary model."""

from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from selm.run import artifacts

pytestmark = pytest.mark.slow

# The merged weights are W + s B A, rounded once to fp32; logits here are of size 10.
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def test_the_merged_checkpoint_is_base_plus_adapter(project_copy: Any) -> None:
    lora = project_copy.with_overrides("training.lora.r=4", "training.lora.use_rslora=true")
    done = lora.stage("train", 1)
    assert done.returncode == 0, done.stderr
    assert artifacts.state(lora.recipe, "checkpoint", 1).current
    checkpoint = lora.folder / "iter-1" / "checkpoint"
    assert {path.name for path in (checkpoint / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    base, merged = (
        AutoModelForCausalLM.from_pretrained(path)
        for path in (lora.recipe.model.name_or_path, checkpoint)
    )
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        before = base(ids).logits
        wanted = PeftModel.from_pretrained(base, checkpoint / "adapter")(ids).logits
        torch.testing.assert_close(merged(ids).logits, wanted, **CLOSE)
    assert (wanted - before).abs().max() > 1e-2, "the adapter learned nothing"
    again = lora.stage("generate", 2)
    assert again.returncode == 0, again.stderr
