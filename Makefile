# Needs python3 (3.11 to 3.13), python3-venv and make; everything else is fetched, each file checked against its hash.
# Another interpreter works beside the first one: make test PYTHON=python3.13

PYTHON ?= python3
ARGS ?=
QUICK ?=
SEEDS ?= 10
SEED ?=

VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
VENV := .venv$(if $(filter-out python3,$(PYTHON)),-$(VERSION))
BIN := $(VENV)/bin
PY := $(BIN)/python
# Named after the version, so that an upgraded python3 gets a new environment.
LOCKED := $(VENV)/.locked-$(VERSION)
READY := $(VENV)/.ready-$(VERSION)
# -qq: a pip that is set up with more places to look in says for each package which of them lacks it.
PIP_INSTALL := $(PY) -m pip install --disable-pip-version-check --progress-bar off -qq

.DEFAULT_GOAL := help
.PHONY: help setup demo test check sure audit bench chaos soak lock
.DELETE_ON_ERROR:

help: ## show this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-7s %s\n' "$$name" "$$text"; done

setup: $(READY) ## install everything into .venv, only what changed since the last time

demo: setup ## play a vendor's first months in one process and show the mails
	@$(BIN)/smt-billing demo $(ARGS)

test: setup ## run every test; ARGS='-k receipt' runs some
	@$(PY) -m pytest -q $(ARGS)

check: setup ## format, lint, types, weaknesses, import arrows, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --severity-level medium --recursive pipeline handlers scripts
	$(PY) -m pytest -q tests/test_imports_point_one_way.py tests/docs/test_docs.py

sure: check test ## check and test: what must be green before a commit

audit: setup ## ask whether weaknesses are known of what is locked; writes audit.json in SMT_DATA_DIR
	@$(PY) scripts/dependency_audit.py

bench: setup ## measure; QUICK=1 takes less care and less time
	@$(PY) -m benchmarks $(if $(QUICK),--quick)

chaos: setup ## kill, cut and fill up what it runs on, by seed, and look for losses; ARGS='--seeds 20'
	@$(PY) tests/chaos/__main__.py $(ARGS)

soak: setup ## live through every misfortune in one process, by seed; SEEDS=100 longer, SEED=7 that one again
	@$(PY) tests/soak/__main__.py $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

lock: ## choose the newest versions and write both lock files
	@$(PYTHON) -m venv .venv-lock
	@.venv-lock/bin/python -m pip install --disable-pip-version-check -qq 'uv>=0.9'
	@sh scripts/lock.sh .venv-lock/bin/uv

$(READY): $(LOCKED) pyproject.toml
	@$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(LOCKED): requirements.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is missing or older than 3.11: apt-get install python3, or name another one, make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make environments: apt-get install python$(VERSION)-venv (or python3-venv)"; exit 1; }
	@echo "installing into $(VENV), which takes about a minute"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@
