"""Print the plan of a sweep: a bash script for every combination of several values. Runs nothing.

    python scripts/sweep.py RECIPE [RECIPE ...] training.alpha=0.005,0.001 seed=1,2 [key=value ...]

Commas separate values, except in brackets and quotes; a key with one value is an override of all
runs. The runs lie in <output_dir>/<run_name>-sweep/ (or in output_dir=FOLDER), each named after its
values. Artifacts that do not depend on what differs are made once and hard-linked (see link.py).
The plan ends with the comparison of all runs. `bash scripts/run.sh --sweep ...` runs it.

    --remaining     leave out finished stages
    --keep          write sweep.sh and sweep.json, the list of all runs, to the sweep's folder, too
    --only N|NAME   the plan of one run alone, e.g. of a Slurm array: --only $SLURM_ARRAY_TASK_ID
    --only shared   what several runs share, to be run before an array of jobs
    --select        no plan, but which setting is best, and whether that is more than noise
"""

from selm import home
from selm.cli import check_access, keep_text, parser, run_main
from selm.errors import UserError
from selm.escape import visible
from selm.run import artifacts, stopped, sweep, sweep_plan


def main() -> None:
    made = parser(__doc__)
    made.add_argument("--remaining", action="store_true", help="leave out finished stages")
    made.add_argument("--keep", action="store_true", help="write sweep.sh and sweep.json, too")
    made.add_argument("--only", metavar="N|NAME|shared", help="a part of the sweep")
    made.add_argument("--select", action="store_true", help="print the best setting")
    options = made.parse_intermixed_args()
    found = sweep.of([options.recipe, *options.overrides])
    stopped.work = stopped.Work(output_dir=found.folder)
    if options.select:
        return print(select(found))
    if options.keep:
        keep_text(found.folder / sweep.LIST, sweep.as_json(sweep.all_listed(found)))
        keep_text(found.folder / "sweep.sh", sweep_plan.script(found))
    done = None
    if options.remaining:
        done = finished(found, options.only)
    print(sweep_plan.script(found, done, options.only), end="")


def finished(found: sweep.Sweep, only: str | None) -> sweep_plan.Done:
    """The finished stages of every run that the plan has commands for, reports among them."""
    members = sweep_plan.planned(found, only)
    for member in members[:1]:
        check_access(member.run.recipe)
    done = {}
    for member in members:
        recipe, report = member.run.recipe, ("report", None)
        done[member.name] = artifacts.done(recipe)
        state = artifacts.state(recipe, *report)
        if state.current and state.pushed is None and not recipe.hub.push:
            done[member.name][report] = artifacts.done_line(recipe, *report, state)
    return done


def select(found: sweep.Sweep) -> str:
    """The best setting of the finished runs, by the mean held-out reward of the last iteration."""
    folders = sweep_plan.run_folders(found)
    missing = [folder for folder in folders if not (folder / "report" / "manifest.json").is_file()]
    if missing:
        raise UserError(
            f"{missing[0]}: not finished ({len(missing)} of {len(folders)} runs are not); run: "
            f"{' '.join([*home.run_words(), '--sweep', *found.words])}"
        )
    from selm.compare import runs, selection

    return visible(selection.select(runs.load([str(folder) for folder in folders])))


if __name__ == "__main__":
    run_main(main)
