# make setup | test | bench | audit-cuda | quickstart | <name>-selm | <name>-dpo | doctor
#      {plan,check,push,benchmark,plan-benchmark,sweep,plan-sweep}-<name>-selm
#      {status,view} RUN=runs/<run_name>
# <name>: zephyr, llama3, phi3, qwen3, smollm2. Overrides: make zephyr-selm ARGS="training.alpha=0.005"
# Several values: make sweep-zephyr-selm ARGS="training.alpha=0.005,0.001 seed=1,2,3"
# Every target of a recipe sets the project up first, if that has not been done.

SHELL := /usr/bin/env bash
ARGS ?=
VLLM ?=

folder_zephyr  := recipes/zephyr-7b-sft
folder_llama3  := recipes/llama-3-8b-instruct
folder_phi3    := recipes/phi-3-mini-4k-instruct
folder_qwen3   := recipes/qwen3-1.7b
folder_smollm2 := recipes/smollm2-135m-instruct

names := zephyr llama3 phi3 qwen3 smollm2
runs  := $(foreach name,$(names),$(name)-selm $(name)-dpo)
runs  += $(addprefix smollm2-,random xpo geb vpo)
plans := $(addprefix plan-,$(runs))
checks := $(addprefix check-,$(runs))
pushes := $(addprefix push-,$(runs))
benchmarks := $(addprefix benchmark-,$(runs))
plans_of_benchmarks := $(addprefix plan-,$(benchmarks))
sweeps := $(addprefix sweep-,$(runs))
plans_of_sweeps := $(addprefix plan-,$(sweeps))

# smollm2-selm -> recipes/smollm2-135m-instruct/selm.yaml
recipe = $(folder_$(firstword $(subst -, ,$(1))))/$(lastword $(subst -, ,$(1))).yaml

# `make plan-zephyr-selm seed=7` would plan without the override: say so instead.
typed := $(foreach v,$(.VARIABLES),$(if $(findstring command line,$(origin $(v))),$(v)))
stray := $(foreach c,a b c d e f g h i j k l m n o p q r s t u v w x y z,$(filter $(c)%,$(typed)))
ifneq ($(strip $(stray)),)
$(error overrides of a recipe stand in ARGS: make $(MAKECMDGOALS) ARGS="$(patsubst %,%=...,$(sort $(stray)))")
endif

.DEFAULT_GOAL := help
.PHONY: help setup test bench audit-cuda quickstart status view doctor $(runs) $(plans) $(checks) \
        $(pushes) $(benchmarks) $(plans_of_benchmarks) $(sweeps) $(plans_of_sweeps)

help:
	@sed -n '1,5s/^# //p' Makefile

setup:
	@VLLM=$(VLLM) bash scripts/setup.sh

test: setup
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/shellcheck scripts/*.sh scripts/launch.slurm examples/*.sh .ci/run
	OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1 .venv/bin/python -m pytest tests --ignore=tests/gpu \
	    -n 2 --dist loadfile
	.venv/bin/python -m pytest tests/gpu -rs

# Short versions; wants an idle machine.
bench: export BASH_ENV := $(CURDIR)/scripts/cpu_settings.sh
bench: setup
	@.venv/bin/python $(folder_smollm2)/get_model.py
	@mkdir -p runs/bench
	.venv/bin/python bench/train_step.py --rows 4 --steps 2 --json runs/bench/train_step.json
	.venv/bin/python bench/train_step.py --rows 4 --steps 1 --ablation --json runs/bench/ablation.json
	.venv/bin/python bench/generate.py --workers 1 2 --rounds 1 --json runs/bench/generate.json
	.venv/bin/python bench/pairrm.py --json runs/bench/pairrm.json
	.venv/bin/python bench/tables.py runs/bench docs/results.md

# The CUDA stack on a machine without a GPU: 11 minutes, 11 GB. One part: make audit-cuda ARGS=kernels
audit-cuda:
	python3 bench/audit_cuda.py $(ARGS)

quickstart: smollm2-selm

# What to put into a report of a problem; works without a set-up, too.
doctor:
	@if [ -x .venv/bin/python ]; then .venv/bin/python scripts/doctor.py; else python3 scripts/doctor.py; fi

# How far a run is: make status RUN=runs/smollm2-135m-selm
status:
	@.venv/bin/python scripts/status.py "$(RUN)"

# report.html of a run in the browser; without a screen, its path.
view:
	@python3 scripts/view.py "$(RUN)"

$(runs): setup
	@case $@ in smollm2-*) .venv/bin/python $(folder_smollm2)/get_model.py ;; esac
	@bash scripts/run.sh $(call recipe,$@) $(ARGS)

# The plan alone goes to stdout, so that it can be kept: make plan-zephyr-selm > plan.sh
$(plans):
	@VLLM=$(VLLM) bash scripts/setup.sh >&2
	@.venv/bin/python scripts/plan.py $(call recipe,$(patsubst plan-%,%,$@)) $(ARGS)

$(checks): setup
	@.venv/bin/python scripts/check.py $(call recipe,$(patsubst check-%,%,$@)) $(ARGS)

# Wants a namespace: make push-zephyr-selm ARGS=hub.namespace=me
$(pushes): setup
	@bash scripts/run.sh $(call recipe,$(patsubst push-%,%,$@)) hub.push=true $(ARGS)

# After the run, or for the iterations that are there: make benchmark-zephyr-selm
$(benchmarks): setup
	@case $@ in *-smollm2-*) .venv/bin/python $(folder_smollm2)/get_model.py ;; esac
	@bash scripts/run.sh --benchmarks $(call recipe,$(patsubst benchmark-%,%,$@)) $(ARGS)

$(plans_of_benchmarks):
	@VLLM=$(VLLM) bash scripts/setup.sh >&2
	@.venv/bin/python scripts/plan.py --benchmarks $(call recipe,$(patsubst plan-benchmark-%,%,$@)) $(ARGS)

# Every combination of several values, and their comparison; another recipe in ARGS is one more value
$(sweeps): setup
	@case $@ in *-smollm2-*) .venv/bin/python $(folder_smollm2)/get_model.py ;; esac
	@bash scripts/run.sh --sweep $(call recipe,$(patsubst sweep-%,%,$@)) $(ARGS)

$(plans_of_sweeps):
	@VLLM=$(VLLM) bash scripts/setup.sh >&2
	@.venv/bin/python scripts/sweep.py $(call recipe,$(patsubst plan-sweep-%,%,$@)) $(ARGS)
