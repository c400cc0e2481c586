# Worklease: what a developer does most. `make help` lists it.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PG15 ?= /usr/lib/postgresql/15/bin
GUARDS := $(addprefix tests/test_,tidy.py layers.py settings_docs.py telemetry.py access_table.py)

.DEFAULT_GOAL := help
.PHONY: help install run demo test test-pgbouncer test-pg15 check format
.PHONY: bench bench-peers soak proof clean

help: ## show this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

install: $(READY) ## make .venv with everything in it

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

run: $(READY) ## start the server on http://127.0.0.1:8000, database included
	$(BIN)/worklease serve

demo: $(READY) ## start a server of its own, run agents on it, show what happened
	$(BIN)/python -m agent_sdk.demo

test: $(READY) ## run every test on a real PostgreSQL
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-pgbouncer: $(READY) ## run every test with PgBouncer between servers and database
	@PATH="$$PATH:/usr/sbin"; command -v pgbouncer >/dev/null || \
	    { echo "There is no pgbouncer here; on Debian: apt-get install pgbouncer" >&2; exit 1; }
	TEST_PGBOUNCER=true $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-pg15: $(READY) ## run every test on the PostgreSQL 15 of Debian
	@test -x $(PG15)/initdb || \
	    { echo "There is no $(PG15)/initdb; on Debian: apt-get install postgresql-15" >&2; exit 1; }
	PYTHONPATH=$(CURDIR)/tests/elsewhere TEST_POSTGRES_PROGRAMS=$(PG15) \
	    $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

check: $(READY) ## format, lint, types and the rules of the code base
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q $(GUARDS)

format: $(READY) ## write the format that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## measure claims, heartbeats and completes per second
	$(BIN)/python -m bench

soak: $(READY) ## hold much at once, and grow old; takes under half an hour
	$(BIN)/python -m bench.soak

bench-peers: $(READY) ## measure other queues on PostgreSQL beside Worklease
	$(BIN)/python -m bench.peers

proof: $(READY) ## try to break every promise for twenty minutes, and report it
	$(BIN)/python -m tests.proof

clean: ## remove .venv and what tools left behind
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache build dist
