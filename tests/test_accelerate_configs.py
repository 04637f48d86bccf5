"""accelerate_configs/*.yaml, read by accelerate's own launcher, have the values they shall have."""

import argparse
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.launch import prepare_multi_gpu_env

FOLDER = Path(__file__).parents[1] / "accelerate_configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


def launched(config: Path) -> argparse.Namespace:
    """The launcher's arguments after it has read the file."""
    parser = launch_command_parser()
    return _validate_launch_command(parser.parse_args(["--config_file", str(config), "train.py"]))[
        0
    ]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_key_is_one_that_accelerate_knows(config: Path) -> None:
    """Unknown keys at the top are refused by accelerate, those of a section dropped in silence."""
    read = load_config_from_file(str(config))
    options = vars(launch_command_parser().parse_args(["train.py"]))
    for section in (read.deepspeed_config, read.fsdp_config):
        assert set(section) <= set(options), config.name
    assert read.mixed_precision == "no", "the recipe's model.dtype decides"
    launched(config)


def test_fsdp2_shards_like_zero3_and_saves_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = launched(FOLDER / "fsdp2.yaml")
    for key, value in prepare_multi_gpu_env(arguments).items():
        monkeypatch.setenv(key, value)
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type.name == "FULL_STATE_DICT"
    assert plugin.cpu_ram_efficient_loading
