"""A file of accelerate's that cannot work is refused when the recipe is loaded: file and key."""

from pathlib import Path

import pytest

from selm.errors import UserError
from selm.recipe.loading import load_recipe

ONE = 'distributed_type: "NO"\nnum_processes: 1\n'
ZERO = "distributed_type: DEEPSPEED\nnum_processes: 1\ndeepspeed_config:\n  zero_stage: 3\n"


def refusal(recipe: str, config: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(recipe, [f"training.accelerate_config={config}", *overrides])
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not a mapping"),
        ("- a\n", "not a mapping"),
        ("a: [\n", "not valid YAML: line 2"),
        (ONE + "num_processes: 1\n", "the key 'num_processes' is written twice"),
        ("num_processes: 1\n", "no distributed_type"),
        ("distributed_type: NO\nnum_processes: 1\n", 'write it as "NO"'),
        ('distributed_type: "no"\nnum_processes: 1\n', "true or false in YAML|is not one of"),
        ("distributed_type: MULTIGPU\nnum_processes: 1\n", "did you mean MULTI_GPU?"),
        ("distributed_type: XLA\nnum_processes: 1\n", "distributed_type: 'XLA' is not one of"),
        ('distributed_type: "NO"\nnum_processes: 0\n', "num_processes: must be a whole number"),
        ('distributed_type: "NO"\nnum_processes: abc\n', "num_processes: must be a"),
        ('distributed_type: "NO"\nnum_processes: 2\n', "starts only one"),
        (ONE + "mixed_precision: fp32\n", "mixed_precision: 'fp32' is not one of"),
        (ONE + "mixed_precision: bf16\n", "contradicts model.dtype: float32"),
        (ONE + "foo: bar\n", "'foo' is not"),
        (ONE + "mixed_precison: bf16\n", "did you mean mixed_precision?"),
        (ONE + "compute_environment: AMAZON_SAGEMAKER\n", "compute_environment"),
        (ONE + "use_cpu: perhaps\n", "use_cpu: must be true or false"),
        (ONE + "machine_rank: 1\n", "machine_rank: must be below"),
        (ONE + "main_process_port: 99999\n", "main_process_port"),
        (ONE + "gpu_ids: first\n", "gpu_ids"),
        (ONE + "dynamo_config: {dynamo_backend: INDUCTOR}\n", "dynamo_config: not supported"),
        (ONE + "megatron_lm_config: {a: 1}\n", "megatron_lm_config: not supported"),
        (ONE + "rdzv_backend: none\n", "rdzv_backend"),
        (ZERO, "zero3_save_16bit_model: must be true"),
        (ZERO.replace("3", "9"), "zero_stage"),
        (ZERO + "  zero_stge: 3\n", "did you mean zero_stage?"),
        (ZERO + "  offload_param_device: disk\n", "offload_param_device"),
        (ZERO + "  deepspeed_config_file: /no/such.json\n", "no such file: /no/such.json"),
        ("distributed_type: DEEPSPEED\nnum_processes: 1\ndeepspeed_config: 3\n", "a mapping"),
        ("distributed_type: FSDP\nnum_processes: 1\nfsdp_config: {fsdp_version: 7}\n", "version"),
        (
            "distributed_type: FSDP\nnum_processes: 1\n"
            "fsdp_config: {fsdp_state_dict_type: SHARDED_STATE_DICT}\n",
            "fsdp_state_dict_type",
        ),
    ],
)
def test_what_accelerate_would_refuse_is_refused_at_once(
    tiny_recipe: str, tmp_path: Path, text: str, said: str
) -> None:
    config = tmp_path / "acc.yaml"
    config.write_text(text, encoding="utf-8")
    message = refusal(tiny_recipe, config)
    assert any(part in message for part in said.split("|")), message
    assert "acc.yaml" in message
    assert message.startswith("training.accelerate_config: ")


def test_a_file_that_is_none_is_refused(tiny_recipe: str, tmp_path: Path) -> None:
    assert "no such file" in refusal(tiny_recipe, tmp_path)
    assert "no such file" in refusal(tiny_recipe, tmp_path / "nowhere.yaml")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"debug: caf\xe9\n")
    assert "line 1 is not UTF-8" in refusal(tiny_recipe, latin)


def test_several_processes_want_a_file_that_starts_them(tiny_recipe: str) -> None:
    with pytest.raises(UserError, match=r"training.num_processes: 2 .*NO starts only one"):
        load_recipe(tiny_recipe, ["training.num_processes=2"])
    ddp = Path(__file__).parents[1] / "accelerate_configs" / "ddp.yaml"
    load_recipe(tiny_recipe, [f"training.accelerate_config={ddp}", "training.num_processes=2"])


def test_a_file_that_accelerate_itself_wrote_is_taken(tiny_recipe: str, tmp_path: Path) -> None:
    """Accelerate's own questions fill every file with empty settings of other devices."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.utils import ComputeEnvironment, DistributedType

    config = tmp_path / "acc.yaml"
    ClusterConfig(
        compute_environment=ComputeEnvironment.LOCAL_MACHINE,
        distributed_type=DistributedType.NO,
        mixed_precision="no",
        use_cpu=True,
        debug=False,
        num_processes=1,
    ).to_yaml_file(str(config))
    load_recipe(tiny_recipe, [f"training.accelerate_config={config}"])
