# Two commands do everything: `make demo` and `make test`. Both set up first.
PYTHON ?= python3
VENV   ?= .venv
VLLM_VENV ?= .venv-vllm
BIN    := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help install install-dev demo test test-gpu test-vllm test-slurm test-harness lint bench bench-gpu clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1|/' | column -t -s '|'

$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

# A second sandbox to test, beside the kernel's own. Without root it is unpacked into the environment.
$(BIN)/bwrap: $(VENV)/.base
	@command -v bwrap > /dev/null || { cd $$(mktemp -d) && apt-get download -qq bubblewrap && dpkg-deb -x bubblewrap_*.deb . \
		&& install -m 755 usr/bin/bwrap $(abspath $@); } || echo "bubblewrap is not to be had here: its tests are left out"

# A browser in which the report is tested; with its many libraries it can only be installed, which needs root.
$(VENV)/.browser: $(VENV)/.base
	@command -v chromium > /dev/null || command -v chromium-browser > /dev/null || command -v google-chrome > /dev/null \
		|| { test "$$(id -u)" = 0 && apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install --yes -qq chromium; } > /dev/null 2>&1 \
		|| echo "chromium is not to be had here: the tests of report.html in a browser are left out"
	@touch $@

install: $(VENV)/.base  ## set up a virtual environment with the base dependencies

install-dev: $(VENV)/.dev $(BIN)/bwrap $(VENV)/.browser  ## the same with what tests and benchmarks need

demo: install  ## the whole R1 pipeline in miniature on two CPU cores
	$(BIN)/python recipes/pipeline.py pipeline=mini runner=subprocess workers=2

test: install-dev  ## all tests that need no Slurm, no GPU and no vLLM
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --quiet

test-gpu: install-dev  ## the tests that need a GPU
	@$(BIN)/python -c 'import torch; raise SystemExit(0 if torch.cuda.is_available() else "make test-gpu: torch finds no CUDA GPU here")'
	$(BIN)/python -m pytest --quiet -m gpu tests/gpu

# Slurm and munge are installed with apt-get if they are not here, which needs root.
test-slurm: install-dev  ## the job scripts under a real Slurm, that is started on this machine and ended
	$(BIN)/python -m pytest --quiet -m slurm tests/slurm

# vLLM has pins of its own, and an environment of its own. One that can import vLLM already is used as it is.
test-vllm:  ## the tests with a real vLLM, in the environment VLLM_VENV=.venv-vllm
	@test -x $(VLLM_VENV)/bin/python || $(PYTHON) -m venv $(VLLM_VENV)
	@$(VLLM_VENV)/bin/python -c 'import vllm.version' 2> /dev/null \
		|| $(VLLM_VENV)/bin/python -m pip install --quiet --editable '.[vllm,dev]' || true
	@$(VLLM_VENV)/bin/python -c 'import vllm.version, lightning_r1' || { echo "vLLM 0.32 or lightning_r1 cannot be imported in" \
		"$(VLLM_VENV): install both there, or name another environment: make test-vllm VLLM_VENV=..."; exit 1; }
	HF_HUB_OFFLINE=1 $(VLLM_VENV)/bin/python -m pytest --quiet -m vllm tests/with_vllm

# Not among what `make test` installs: scikit-learn, scipy and nltk, 340 MB, for one test.
test-harness: install-dev  ## an exported model scored by lm-evaluation-harness
	$(BIN)/python -m pip install --quiet --editable '.[harness]'
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --quiet -m harness tests/with_harness

lint: install-dev  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install-dev  ## one GRPO step beside TRL's, in one run
	$(BIN)/python recipes/benchmark.py benchmark=grpo_step_vs_trl

bench-gpu: install-dev  ## the same on a GPU: a 1.5B shape, 64 prompts x 8, 1,024 tokens; what a step costs as it grows, and 7B updates
	$(BIN)/python recipes/benchmark.py benchmark=grpo_step_h200
	$(BIN)/python recipes/benchmark.py benchmark=scaling_h200
	$(BIN)/python recipes/benchmark.py benchmark=update_7b_h200

clean:  ## remove the virtual environment and caches; outputs stay
	rm -rf $(VENV) .venv-vllm .mypy_cache .pytest_cache .ruff_cache
