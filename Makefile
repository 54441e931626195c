# `make demo` and `make test` do all of the set-up themselves, on any Linux with Python 3.11 or newer.
# VENV=path puts the environment elsewhere, PYTHON=python3.12 chooses the interpreter, and
# EXTRAS=test,train installs torch as well, without which the tests that need it skip; WORKERS=1 is for
# little memory: each process that runs tests takes up to 2 GB.

VENV ?= .venv
PYTHON ?= python3
EXTRAS ?= test
PYTEST_ARGS ?=
WORKERS ?= auto
CAMPAIGN_ARGS ?=

BIN := $(VENV)/bin
NEEDS := setup.cfg pyproject.toml
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format types docs campaign clean

help: ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.stamp-core ## compile and simulate the default network, with pictures in out/
	$(BIN)/lepton demo

test: $(VENV)/.stamp-$(EXTRAS) ## all tests, the slow ones too
	$(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.stamp-lint ## style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.stamp-lint ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.stamp-lint $(VENV)/.stamp-$(EXTRAS) ## static types
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.stamp-$(EXTRAS) ## write the generated pages, the README's demo and notebooks' outputs again
	$(BIN)/python docs/generate.py

campaign: $(VENV)/.stamp-$(EXTRAS) ## the property tests whole, where docs/campaign.json is stale
	$(BIN)/python -m benchmarks.campaign $(CAMPAIGN_ARGS)

clean: ## remove .venv, caches and outputs
	rm -rf .venv build dist out *.egg-info .pytest_cache .ruff_cache .hypothesis
	find lepton tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Lepton needs Python 3.11 or newer as '$(PYTHON)': install it, or name another one with 'make PYTHON=python3.12 ...'." >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "Lepton needs Python's venv module, which '$(PYTHON)' lacks: run 'sudo apt install python3-venv' and try again." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# A stamp is as new as the last installation; a changed setup.cfg installs again.
$(VENV)/.stamp-core: $(NEEDS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.stamp-$(EXTRAS): $(NEEDS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.stamp-core

$(VENV)/.stamp-lint: $(NEEDS) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	@touch $@ $(VENV)/.stamp-core
