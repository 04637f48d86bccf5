#!/usr/bin/env bash
# SELM on Zephyr-7B-SFT as a job of Hugging Face: clone, set up, run.
#
#   bash examples/hf_jobs.sh https://.../selm.git me
#
# Nothing of a job's disk is kept, so each finished artifact is pushed to the Hub under the namespace,
# private; the same command continues at the first one that is missing. Needs a token that may write
# there (`hf auth login`) and paid compute. The image has git, make, a C compiler and Python.h.
# The arguments were checked by the parser of `hf`; no job has been paid for with this file yet.
set -euo pipefail
if [ $# != 2 ]; then
  sed -n '2,9s/^# \{0,1\}//p' "$0"
  exit 2
fi
# shellcheck disable=SC2016 # the job's shell expands these, not ours
exec hf jobs run --namespace "$2" --flavor a100x8 --timeout 6h --secrets HF_TOKEN \
  --env "REPOSITORY=$1" --env "NAMESPACE=$2" python:3.12 bash -c '
    set -e
    git clone "$REPOSITORY" selm
    cd selm
    make setup STACK=cuda
    make zephyr-selm ARGS="hub.push=true hub.namespace=$NAMESPACE"'
