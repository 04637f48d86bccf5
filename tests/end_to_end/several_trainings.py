"""Train iteration 2 of a finished run in several ways, in one launch; see test_two_processes.py.

    accelerate launch --config_file ... tests/end_to_end/several_trainings.py WAYS OUT RECIPE ...

WAYS is a JSON file {name: overrides}. Of each the policy, its log and its reference log-probs are
left in OUT/name; of one that fails, what each process says. It goes through the functions of
scripts/train.py, without its artifacts.
"""

import json
import os
import sys
from pathlib import Path

from accelerate import PartialState

from selm.errors import UserError
from selm.recipe.loading import load_recipe
from selm.training import head
from selm.training.run import load_examples, make_trainer, save_policy, train
from selm.training.trainer import REF_COLUMNS


def main(ways: dict[str, list[str]], out: Path, words: list[str]) -> None:
    head.CHUNK = 16  # as with real responses, processes have different numbers of chunks
    for name, overrides in ways.items():
        recipe = load_recipe(words[0], [*words[1:], *overrides])
        examples, _ = load_examples(recipe, 2)
        for example in examples[4:]:  # rows of very different lengths
            example["prompt_ids"] = example["prompt_ids"][-5:]
        trainer = make_trainer(recipe, 2, examples, out / name / "steps")
        try:
            train(trainer)
        except UserError as error:
            error_file = out / name / f"error-{trainer.args.process_index}.txt"
            error_file.parent.mkdir(parents=True, exist_ok=True)
            error_file.write_text(str(error), encoding="utf-8")
            continue
        save_policy(trainer, recipe, 2, out / name / "policy")
        if trainer.is_world_process_zero():
            facts = {key: trainer.train_dataset[key][:] for key in REF_COLUMNS}
            facts["shared"] = trainer.shared
            batches = trainer.get_train_dataloader().batch_sampler
            facts["rows_of_micro_batches"] = [len(batch) for batch in batches]
            facts["losses"] = [e["loss"] for e in trainer.state.log_history if "loss" in e]
            (out / name / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    PartialState().destroy_process_group()  # or its threads may outlive it, and abort it


if __name__ == "__main__":
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        import deepspeed.ops

        # An extension for inference on CPUs, which DeepSpeed would compile first: half a minute.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    main(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]), sys.argv[3:])
