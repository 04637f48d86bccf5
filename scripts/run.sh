#!/usr/bin/env bash
# Run a recipe from wherever it stands: plan | bash, one command per stage.
#
#   bash scripts/run.sh recipes/smollm2-135m-instruct/selm.yaml [key=value ...]
#
# Stops at the first stage that fails and names the command to repeat. Finished stages are skipped.
# The plan is kept as runs/<run_name>/plan.sh, each stage's output under runs/<run_name>/logs/.
set -euo pipefail

cd "$(dirname "$0")/.."
if [ $# -eq 0 ] || [ "$1" = "--help" ] || [ "$1" = "-h" ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0"
  exit 2
fi
if [ -d .venv ]; then
  PATH="$PWD/.venv/bin:$PATH"
fi

source scripts/cpu_settings.sh
# Where DeepSpeed is installed and there is no GPU, it warns of that at every import.
if [[ "$(nvidia-smi -L 2>/dev/null || true)" != *"GPU 0"* ]]; then
  export DS_ACCELERATOR="${DS_ACCELERATOR:-cpu}"
fi

plan=$(python scripts/plan.py "$@")
folder=$(sed -n 's|^# .*; all output in \(.*\)/$|\1|p' <<<"$plan")
mkdir -p "$folder"
if [ "$plan" != "$(cat "$folder/plan.sh" 2>/dev/null)" ]; then
  printf '%s\n' "$plan" >"$folder/.plan.sh.tmp"
  mv "$folder/.plan.sh.tmp" "$folder/plan.sh"
fi
# What is done needs no process of its own to say so.
remaining=$(python scripts/plan.py --remaining "$@")
exec bash -c "$remaining"
