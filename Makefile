# Every command sets up .venv by itself. On a GPU machine: make setup TORCH="torch" EXTRAS=dev,gpu
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
TORCH ?= torch==2.13.0
EXTRAS ?= dev
BIN := .venv/bin
READY := .venv/.ready

.DEFAULT_GOAL := help
.PHONY: help demo setup fmt check test test-ranks test-gpu test-slurm bench way shape clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

demo: $(READY) ## the whole way, from footage to an mp4 of our own model, with a report page
	$(BIN)/summer demo $(ARGS)

setup: $(READY) ## .venv with everything in it

# torch comes first: asked for later or looser, pip would replace the CPU build by gigabytes of CUDA.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
	  || { echo "nemo-summer needs Python 3.11 or 3.12, $(PYTHON) is $$($(PYTHON) --version): make PYTHON=/path/to/python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

fmt: $(READY) ## format and mend what can be mended
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .

check: $(READY) ## ruff, import contract, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

test: $(READY) ## everything that needs no GPU and no Slurm
	$(BIN)/python -m pytest $(ARGS)

test-ranks: $(READY) ## only what starts several processes
	$(BIN)/python -m pytest -m "ranks and not gpu" $(ARGS)

test-gpu: $(READY) ## only what needs a CUDA device
	$(BIN)/python -m pytest -m gpu $(ARGS)

test-slurm: $(READY) ## a real two-node Slurm on this machine (root, Debian)
	$(BIN)/python -m pytest -m slurm $(ARGS)

bench: $(READY) ## the numbers, as a table and as JSON in benchmarks/results
	$(BIN)/python -m benchmarks $(ARGS)

way: $(READY) ## the demo at its smallest, end to end
	$(BIN)/summer demo recipe=tiny out=out/way

shape: $(READY) ## longest functions and files, import cycles, length of the main loop
	$(BIN)/python scripts/shape.py

clean: ## everything that was made here, except what you made
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis out/demo out/way
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
