# The two commands of the README are `make demo` and `make test`; both set up all that they need.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3

.PHONY: setup packages demo demo-down check test test-all bench lock clean docs

packages:
	@sh tools/packages.sh

# A stamp newer than the lock file: the environment is rebuilt only when what it holds changes.
$(VENV)/.stamp: requirements.lock pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@

setup: packages $(VENV)/.stamp

demo: setup
	@$(BIN)/openqrm demo up $(DEMO_ARGS)

demo-down: $(VENV)/.stamp
	@$(BIN)/openqrm demo down

check: $(VENV)/.stamp
	@$(BIN)/ruff format --check -q .
	@$(BIN)/ruff check -q .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache >/dev/null || $(BIN)/lint-imports
	@$(BIN)/pytest -q -n 2 -m "not postgres" tests/unit tests/cases tests/contract

test: setup
	@sh tools/test.sh

test-all: setup
	@OPENQRM_LAB_SHARE=all sh tools/test.sh

bench: setup
	@$(BIN)/python -m bench

docs: $(VENV)/.stamp
	@$(BIN)/openqrm reference write

lock: $(VENV)/.stamp
	@$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --no-header \
	    --extra dev pyproject.toml -o requirements.lock

clean:
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
