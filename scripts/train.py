"""Train the policy of iteration T on its preference pairs, starting from iteration T - 1.

    accelerate launch --config_file accelerate_configs/single.yaml \\
        scripts/train.py recipes/smollm2-135m-instruct/selm.yaml --iteration 1 [key=value ...]

Reads runs/<run_name>/iter-<T>/preferences (objective dpo: the portion as it is) and the checkpoint
before it. Writes runs/<run_name>/iter-<T>/checkpoint, which `from_pretrained` reads. If it is
killed, the same command continues from the last saved step.
"""

from selm.check.installed import check_packages
from selm.cli import Stage, is_main_process, parse_iteration, run_main


def main() -> None:
    run, t = parse_iteration(__doc__)
    stage = Stage(run, "checkpoint", t)
    if stage.is_done():
        return
    check_packages(run.recipe)
    stage.begin()

    from selm.run import artifacts
    from selm.run.writing import move_files
    from selm.training.run import (
        load_examples,
        make_trainer,
        num_tokens,
        refuse_what_fails,
        save_policy,
        train,
    )

    examples, dropped = load_examples(run.recipe, t)
    refuse_what_fails(run.recipe, t, len(examples))
    if is_main_process():
        artifacts.partial_folder(run, "checkpoint", t)
    partial = artifacts.partial_path(run.recipe, "checkpoint", t)
    trainer = make_trainer(run.recipe, t, examples, partial / "steps")
    if run.recipe.hub.push and run.recipe.hub.every_save:
        from selm.hub.every_save import share

        share(trainer, run, t)
    train(trainer)
    final = save_policy(trainer, run.recipe, t, partial / "final")

    if trainer.is_world_process_zero():
        with stage.writing() as record:
            move_files(final, record.folder)
            record.rows, record.dropped = len(examples), dropped
            record.tokens = num_tokens(examples)
    trainer.accelerator.end_training()


if __name__ == "__main__":
    run_main(main)
