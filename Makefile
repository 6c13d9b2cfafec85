# The way in for people. Everything runs inside .venv; nothing is installed outside this folder.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --no-input
UV := $(VENV)/bin/uv

.DEFAULT_GOAL := help
.PHONY: help env demo reset test npm promtool simulate chaos drill bench bench-pages format lock shots clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-12s %s\n", $$1, $$2 }'

env: $(VENV)/test.stamp  ## make .venv with all that running, checks and tests need

demo: $(VENV)/run.stamp  ## start a demo shop; Ctrl-C stops it, the data stays
	@$(PY) manage.py demo

reset:  ## wipe the demo's data: database, mail, the generated secret
	rm -rf db.sqlite3 db.sqlite3-wal db.sqlite3-shm db.sqlite3-journal var

test: $(VENV)/test.stamp  ## run every check and every test there is
	@$(PY) scripts/check

npm: var/npm/stamp  ## fetch what tests need from npm (TypeScript, Prism); without it those are left out, except in CI

promtool: var/promtool  ## fetch Prometheus' checker, for the tests of alerts; they are left out without it, except in CI

SEEDS ?= 100000
FROM ?= 10000
simulate: $(VENV)/test.stamp  ## play many more stories in which everything goes wrong (SEEDS=100000 FROM=10000)
	@$(PY) -m tests.simulation --seeds $(SEEDS) --from $(FROM)

SECONDS ?= 60
SEED ?= 1
BROKER ?= orm
chaos: $(VENV)/test.stamp  ## attack a shop of real processes (SECONDS=300 SEED=7 BROKER=orm or valkey)
	@$(PY) -m tests.chaos --seconds $(SECONDS) --seed $(SEED) --broker $(BROKER)

drill: $(VENV)/test.stamp  ## take a backup of a shop at work, lose the shop, restore it, on both databases
	@$(PY) -m pytest -q tests/e2e/test_drill.py
	@$(PY) -m tests.servers $(PY) -m pytest -q tests/e2e/test_drill.py

PARTS ?=
bench: $(VENV)/test.stamp $(PEERS)/stamp  ## measure this project beside its peers (half an hour; PARTS="engine idle")
	@$(PY) -m benchmarks $(PARTS)

bench-pages: $(VENV)/test.stamp  ## measure the pages with 100,000 orders in the tables (two minutes)
	@$(PY) -m benchmarks.pages

format: $(VENV)/test.stamp  ## put the code into its one format and mend what ruff can mend
	$(PY) -m ruff check --fix-only --quiet .
	$(PY) -m ruff format .

# Existing pins stay unless they no longer fit; `make lock UPGRADE=1` takes the newest of everything. The files
# carry versions and hashes only, never an address: whoever installs uses the index they trust.
LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --no-emit-find-links $(if $(UPGRADE),--upgrade)

lock: $(VENV)/test.stamp  ## redo requirements/*.txt from requirements/*.in (UPGRADE=1: newest versions)
	$(PIP) install -qq uv
	$(LOCK) requirements/run.in -o requirements/run.txt
	$(LOCK) -c requirements/run.txt requirements/traces.in -o requirements/traces.txt
	$(LOCK) -c requirements/run.txt -c requirements/traces.txt requirements/test.in -o requirements/test.txt
	$(LOCK) requirements/peers.in -o requirements/peers.txt

shots: $(VENV)/test.stamp  ## take the pictures in docs/images anew, from a demo of their own
	@$(PY) scripts/shots

clean:  ## remove .venv and every cache; the data stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# `make demo` needs the first stamp only, so that a first look does not wait for the test tools.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; this one is `$(PYTHON) --version`. Say: make env PYTHON=python3.12"; exit 1; }
	@echo "Making $(VENV) with `$(PYTHON) --version`"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/run.stamp: requirements/run.txt | $(PY)
	@echo "Installing requirements/run.txt"
	@$(PIP) install -qq --require-hashes -r requirements/run.txt
	@touch $@

$(VENV)/test.stamp: requirements/test.txt requirements/run.txt | $(PY)
	@echo "Installing requirements/test.txt"
	@$(PIP) install -qq --require-hashes -r requirements/test.txt
	@touch $(VENV)/run.stamp $@

# What `make bench` measures beside this project lives by itself; Restate's server comes by npm and is left out without it.
$(PEERS)/stamp: requirements/peers.txt benchmarks/peers/package-lock.json
	@echo "Making $(PEERS)"
	@$(PYTHON) -m venv $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input install -qq --require-hashes -r requirements/peers.txt
	@mkdir -p var/peers && cp benchmarks/peers/package.json benchmarks/peers/package-lock.json var/peers/
	@npm ci --prefix var/peers --silent --ignore-scripts || echo "No npm: Restate is not measured."
	@touch $@

# The program alone, out of Debian's package: the rest of it is a server that nobody here wants to have running.
var/promtool:
	@command -v apt-get >/dev/null || { echo "This machine has no apt-get: install Prometheus, whose promtool is found by its name."; exit 1; }
	@echo "Taking promtool out of Debian's package prometheus"
	@rm -rf var/apt && mkdir -p var/apt
	@cd var/apt && apt-get download -qq prometheus && \
		dpkg-deb --fsys-tarfile prometheus_*.deb | tar -x --strip-components=3 ./usr/bin/promtool
	@mv var/apt/promtool $@ && rm -rf var/apt

var/npm/stamp: tests/npm/package.json tests/npm/package-lock.json
	@echo "Installing tests/npm/package-lock.json"
	@rm -rf var/npm && mkdir -p var/npm && cp tests/npm/package.json tests/npm/package-lock.json var/npm/
	@npm ci --prefix var/npm --silent --ignore-scripts --no-audit --no-fund
	@touch $@
