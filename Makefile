# make help lists what there is. ARGS="..." hands further words to the command behind a target.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo app test test-slow test-all lint audit sweep bench clean-cache clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 13

setup: $(VENV)/.complete ## install into .venv, pinned; skipped when up to date

$(VENV)/.complete: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "error: Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version); say make PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[dev]"
	@touch $@

demo: setup ## generate the phantom cohort, train and test on it, say where the pictures are
	$(BIN)/python -m cardiomegaly.train +experiment=demo $(ARGS)

app: setup ## try the demo's model in the browser; trains it first where there is none
	@ls outputs/demo/*/MODEL_CARD.md >/dev/null 2>&1 || $(BIN)/python -m cardiomegaly.train +experiment=demo
	$(BIN)/python -m cardiomegaly.app model=$$(dirname $$(ls -t outputs/demo/*/MODEL_CARD.md | head -1)) $(ARGS)

test: setup ## run the tests, without the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: setup ## run the slow tests
	$(PYTEST) -m slow $(ARGS)

test-all: test test-slow ## run all tests

lint: setup audit ## check style, types and dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

audit: setup ## ask whether a dependency has a known vulnerability
	$(BIN)/python .ci/audit.py

sweep: setup ## four backbones x balanced and unbalanced, and the report; ARGS="data=nih data.root=..."
	$(BIN)/python -m cardiomegaly.train -m +experiment=sweep $(ARGS)

bench: setup ## measure loading, training and memory; ARGS="--quick" ends in 3 minutes
	$(BIN)/python -m benchmarks $(ARGS)

clean-cache: setup ## list what caches and unfinished runs take; ARGS="remove=true" removes the unused
	$(BIN)/python -m cardiomegaly.cache $(ARGS)

clean: ## remove the environment and what tools left; outputs/ stays
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
