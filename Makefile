# Everything runs in .venv, which `make` builds by itself; nothing else need be installed
# but Python 3.11 or newer and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
JOBS := auto
SOURCES := producers storage workers api deploy tests .ci

.DEFAULT_GOAL := help
.PHONY: help setup demo up test unit lint format types layers check wheel smoke simulate bench screenshot clean

help: ## Show what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Build .venv with Runfold and its tools

demo: $(READY) ## Record a real workflow on embedded servers and look at it
	@$(BIN)/python -m runfold_stack.demo

up: $(READY) ## Start the whole stack and keep it running
	@$(BIN)/runfold up

test: $(READY) ## Run all tests side by side, on real servers of their own; JOBS=N processes
	$(BIN)/pytest --numprocesses $(JOBS) --maxprocesses 4 --dist worksteal

unit: $(READY) ## Run the unit tests that are not slow, with fewer random examples
	$(BIN)/pytest tests/unit --numprocesses 2 --hypothesis-profile quick -m "not slow"

lint: $(READY) ## Check style
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)

format: $(READY) ## Put the code into shape
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: $(READY) ## Check types
	$(BIN)/mypy

layers: $(READY) ## Check that imports run one way
	$(BIN)/lint-imports

check: lint types layers test ## All of the above

wheel: $(READY) ## Build the wheel into dist/
	@rm -rf dist
	$(BIN)/python -m build --outdir dist

smoke: wheel ## Install the wheel into new environments and try it there
	PYTHON="$(PYTHON)" .ci/smoke bare
	PYTHON="$(PYTHON)" .ci/smoke whole

simulate: $(READY) ## Play faulty histories by the thousand; SIMULATE="--seeds 20000 --jobs 2 | --seed N"
	PYTHONPATH=tests $(BIN)/python -m simulator $(SIMULATE)

bench: $(READY) ## Measure everything, beside its goals; BENCH="--quick | --full | --only fold --profile"
	PYTHONPATH=tests $(BIN)/python -m benchmarks $(BENCH)

screenshot: $(READY) ## Take the picture of the page for the README; needs Chromium
	PYTHONPATH=tests $(BIN)/python tests/browser/screenshot.py

clean: ## Remove what was built
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Runfold needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	       "Name another one: make PYTHON=python3.12 …" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "No virtual environment could be made; on Debian: apt-get install python3-venv" >&2; \
	  rm -rf $(VENV); exit 1; }
	@echo "Installing Runfold and its tools into $(VENV) (about a minute) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@
