# Needs python3 (3.11 to 3.13), python3-venv and make. Everything else is downloaded and checked against its hash.
# Another interpreter gets an environment of its own: make test PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
QUICK ?=
SEEDS ?= 10
SEED ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
PY := $(BIN)/python
# The file names contain the version, so an upgraded python3 gets a new environment.
LOCKED := $(VENV)/.locked-$(VERSION)
READY := $(VENV)/.ready-$(VERSION)
# -qq: with several package sources configured, pip reports for each package which source lacks it.
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check --progress-bar off -qq
# Tests often wait for a server, so one process more than there are cores keeps all cores busy.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 8 ? cores + 1 : 8)))
# Bytecode is cached even where the environment forbids it: else every process compiles every module again.
PYTEST := PYTHONDONTWRITEBYTECODE= $(PY) -m pytest -q --numprocesses $(WORKERS) --dist loadgroup --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-fast check check-style check-types check-security check-imports check-docs audit bench \
	chaos soak paypal-runs lock
.DELETE_ON_ERROR:

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-11s  %s\n' "$$name" "$$text"; done

setup: $(READY) ## install everything into .venv, or what has changed since the last time

demo: setup ## run a demo vendor's first months in one process and show the mails
	@$(BIN)/smt-billing demo $(ARGS)

test: setup ## run all tests; ARGS='-k receipt' selects some, ARGS='-n 0' uses one process
	@$(PYTEST) --durations=10 $(ARGS)

test-fast: setup ## run the tests that are quick and need no server
	@$(PYTEST) -m "not services and not slow" $(ARGS)

check: check-style check-types check-security check-imports check-docs ## check format, lint, types, security, imports and docs

check-style: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

check-types: setup
	$(BIN)/mypy

check-security: setup
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive pipeline handlers scripts

check-imports: setup
	$(BIN)/lint-imports

check-docs: setup
	$(PY) -m pytest -q tests/docs

audit: setup ## check the locked dependencies for known vulnerabilities; writes audit.json to SMT_DATA_DIR
	@$(PY) scripts/dependency_audit.py

bench: setup ## run the benchmarks; QUICK=1 takes less time and is less exact
	@$(PY) -m benchmarks $(if $(QUICK),--quick)

chaos: setup ## inject faults into real servers and look for lost or doubled work; ARGS='--seeds 20' runs more
	@$(PY) tests/chaos/__main__.py $(ARGS)

soak: setup ## simulate rare failures in one process; SEEDS=100 runs longer, SEED=7 repeats one seed
	@$(PY) tests/soak/__main__.py $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

paypal-runs: setup ## months with lost webhooks, and a killed import; ARGS='--json r.json lost-events --customers 5000'
	@$(PY) tests/paypal_runs/__main__.py $(if $(ARGS),$(ARGS),lost-events)

lock: ## choose the newest versions and write both lock files
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --disable-pip-version-check -qq 'uv>=0.9'
	@sh scripts/lock.sh .venv-lock/bin/uv

$(READY): $(LOCKED) pyproject.toml
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(LOCKED): requirements.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than 3.11. Run apt-get install python3, or choose another one: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot create environments. Run apt-get install python$(VERSION)-venv (or python3-venv)"; exit 1; }
	@echo "installing into $(VENV) (about a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
