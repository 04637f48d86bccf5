#!/usr/bin/env bash
# Run a recipe from wherever it stands: plan | bash, one command per stage.
#
#   bash scripts/run.sh recipes/smollm2-135m-instruct/selm.yaml [key=value ...]
#   bash scripts/run.sh --benchmarks recipes/smollm2-135m-instruct/selm.yaml [key=value ...]
#   bash scripts/run.sh --sweep RECIPE [RECIPE ...] training.alpha=0.005,0.001 seed=1,2 [--only N]
#
# The command `selm run` is the same from any folder, in which it leaves its runs.
# Stops at the first stage that fails and names the command to repeat. Finished stages are skipped.
# The plan is kept as runs/<run_name>/plan.sh, each stage's output under runs/<run_name>/logs/.
# With --benchmarks it runs the recipe's benchmarks, and prints their plan first. With --sweep it
# runs every combination of several values and compares the runs (scripts/sweep.py, docs/sweeps.md).
# With -v at the end (or SELM_VERBOSE=1) libraries show their progress bars, too.
set -euo pipefail
unset CDPATH # with it, cd may go to another folder of the same name, and prints its path

here=$PWD
home=$(cd "$(dirname "$0")/.." && pwd -P)
scripts=scripts
if [ -n "${SELM_COMMAND:-}" ]; then # set by `selm`, which knows its Python
  scripts=$home/scripts
else
  cd "$home"
  if [ -d .venv ]; then
    PATH="$PWD/.venv/bin:$PATH"
  fi
fi
if [[ "${1---help}" =~ ^(--help|-h)$ ]]; then
  called="bash scripts/run.sh"
  if [ -n "${SELM_COMMAND:-}" ]; then called="selm run"; fi
  sed -n "2,13{s/^# \{0,1\}//; s#bash scripts/run.sh#$called#; p}" "$scripts/run.sh"
  exit $(($# ? 0 : 2)) # without a recipe it is a mistake
fi

# A recipe is named as it is seen from where the user is; what it names, as seen from this folder.
words=()
for word in "$@"; do
  if [[ "$word" =~ ^(-v|--verbose)$ ]]; then
    export SELM_VERBOSE=1 # all stages inherit it
    continue
  fi
  if [[ "$word" != /* && "$here" != "$PWD" && -f "$here/$word" ]]; then
    word="$here/$word"
  fi
  words+=("$word")
done

if [[ "$(nvidia-smi -L 2>/dev/null || true)" != *"GPU 0"* ]]; then
  # shellcheck source=scripts/cpu_settings.sh
  source "$scripts/cpu_settings.sh"
  # Where DeepSpeed is installed and there is no GPU, it warns of that at every import.
  export DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}"
fi
# Stages end with this process, whatever ends it (src/selm/parents.py).
export SELM_RUN_SH="$$@$HOSTNAME"
# What the plan calls `accelerate launch` is scripts/launch.py; under launch.slurm it is a function.
PATH="$home/scripts/launcher:$PATH"

if [ "$1" = "--sweep" ]; then
  words=("${words[@]:1}")
  plan=$(python "$scripts/sweep.py" --keep "${words[@]}")
  # The comments at its top and one per run; sweep.sh in the sweep's folder has all of it.
  sed -n '2,/^set /{/^# /p}; /^# run /p' <<<"$plan"
  remaining=$(python "$scripts/sweep.py" --remaining "${words[@]}")
  # It may be longer than an argument can be.
  eval "$remaining"
  exit
fi
if [ "$1" = "--benchmarks" ]; then
  python "$scripts/plan.py" --keep "${words[@]}" | grep -E '^(#[^!]|python |selm )'
else
  python "$scripts/check.py" --quick "${words[@]}"
fi
# What is done needs no process of its own to say so.
remaining=$(python "$scripts/plan.py" --keep --remaining "${words[@]}")
exec bash -c "$remaining"
