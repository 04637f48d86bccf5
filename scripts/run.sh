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

# Threads that spin while they wait slow each other down as soon as anything else runs. A few
# microseconds are the exception: to sleep and be woken takes longer than many a matrix product.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-1000}"
# Training on a CPU frees and allocates the same large tensors at every step. Left to itself glibc
# gives each back to the kernel and has it zeroed again, which costs a third of the step's time.
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-4294967296}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-17179869184}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
# oneDNN keeps what it compiles for 1,024 shapes of matrices, and every batch has a new number of
# tokens: memory would grow with each step. A step needs fewer than 128; both caches have to be small.
export LRU_CACHE_CAPACITY="${LRU_CACHE_CAPACITY:-128}"
export ONEDNN_PRIMITIVE_CACHE_CAPACITY="${ONEDNN_PRIMITIVE_CACHE_CAPACITY:-128}"
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
