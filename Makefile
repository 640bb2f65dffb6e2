# CareRelay. `make help` lists the targets. A Python from 3.11 to 3.13 with venv, and make, are all that is needed.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	&& { echo $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
BENCH_READY := $(VENV)/.installed-bench
WORKERS ?= 3
STACK ?= embedded
ON_A_STACK := tests/integration tests/e2e
LOCK := uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.DEFAULT_GOAL := help
.PHONY: help install demo up down status token test bench docs lint lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## make .venv and install what is locked in requirements/, once per change of the locks
	@:

$(READY): requirements/dev.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 to 3.13 with the modules venv and ensurepip was found; \
	name one: make $(or $(MAKECMDGOALS),install) PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## play patients through the whole stack; BUNDLES=dir plays your own; STACK=containers: through compose
ifeq ($(STACK),containers)
	@docker compose up --build --detach --wait
	@docker compose run --rm $(if $(BUNDLES),--volume "$(abspath $(BUNDLES)):/bundles:ro") demo $(if $(BUNDLES),--bundles /bundles)
else
	@$(BIN)/python -m deploy.demo $(if $(BUNDLES),--bundles "$(BUNDLES)")
endif

up: install ## start the embedded stack and leave it running; prints addresses and a token
	@$(BIN)/python -m deploy.embedded up

down: install ## stop what `make up` started
	@$(BIN)/python -m deploy.embedded down

status: install ## show the processes and addresses of the running stack
	@$(BIN)/python -m deploy.embedded status

token: install ## print a token for the running stack; ROLE=coordinator, clinician, scheduler, ...
	@$(BIN)/python -m deploy.embedded token $(or $(ROLE),coordinator)

test: install ## all that needs only Python; STACK=native, STACK=containers: what runs on Kafka itself; ARGS go to pytest
	@STACK=$(STACK) $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(if $(filter native containers,$(STACK)),$(ON_A_STACK)) $(ARGS)

bench: $(BENCH_READY) ## ratios to a floor and to peers, on Kafka itself; QUICK=1: all of it small; ONLY="reaction": one scenario
	@$(BIN)/python -m tests.bench $(ONLY) $(if $(QUICK),--quick) --stack $(if $(filter file,$(origin STACK)),native,$(STACK))

$(BENCH_READY): $(READY) requirements/bench.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

docs: install ## write pages about every published event to build/docs, and AsyncAPI documents to docs/asyncapi
	@$(BIN)/python -m shared.contracts.asyncapi docs/asyncapi
	@$(BIN)/python -m shared.contracts.pages build/docs
	@echo "build/docs/index.html"

lint: install ## ruff, mypy --strict and the import rules alone
	@$(BIN)/python -m pytest -q tests/unit/test_static.py tests/unit/test_rules.py

lock: ## lock requirements/*.in anew, with hashes (needs uv)
	cd requirements && for name in runtime dev bench outside; do $(LOCK) $(LOCK_ARGS) $$name.in -o $$name.txt || exit 1; done

clean: ## stop the stack and remove what was made, .venv included
	@if test -f $(READY); then $(BIN)/python -m deploy.embedded down 2>/dev/null || true; fi
	@rm -rf $(VENV) .data build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
