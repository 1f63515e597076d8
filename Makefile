# One command each. `make check` is what CI runs. Needs: python 3.11 with venv, make, the usual pip set-up.
PYTHON      ?= $(shell command -v python3.11 || command -v python3)
VENV        := .venv
PROTO_VENV  := .venv-proto
BIN         := $(VENV)/bin
PYTEST_ARGS ?=
SECONDS     ?= 30
MINUTES     ?= 60
ENGINE      ?= plain
SEEDS       ?= 0:30
BENCH_ARGS  ?=
SOURCES     := $(wildcard kv tests tools benchmarks jepsen-style)

.DEFAULT_GOAL := help
.PHONY: static check-sim check-jepsen bench bench-peers jepsen sim soak stock help install check lint format types floors stubs proto test wheel demo clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(PROTO_VENV)/.installed: tools/requirements-proto.txt
	test -x $(PROTO_VENV)/bin/python || $(PYTHON) -m venv $(PROTO_VENV)
	$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r tools/requirements-proto.txt
	touch $@

install: $(VENV)/.installed ## make .venv with the package (editable) and the development tools

# What is static goes beside the simulator and the campaign; the tests come last: their summary is the last thing printed.
check: install $(PROTO_VENV)/.installed ## everything that CI runs
	@$(MAKE) --no-print-directory -j3 --output-sync=target static check-sim check-jepsen
	@$(MAKE) --no-print-directory test

static: install $(PROTO_VENV)/.installed ## all that is checked without running it
	@MAKEFLAGS= $(MAKE) --no-print-directory lint types floors stubs

check-sim: install
	@$(MAKE) --no-print-directory sim SECONDS=90 JOBS=1

check-jepsen: install
	@$(MAKE) --no-print-directory jepsen SECONDS=180

lint: install ## ruff (rules and format) and buf (protos)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/buf lint

format: install ## fix what ruff can fix, and format
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

types: install ## mypy --strict
	$(BIN)/mypy
	cd jepsen-style && ../$(BIN)/mypy --config-file ../pyproject.toml kv_jepsen

floors: install ## import-linter: who may import whom
	$(BIN)/lint-imports

stubs: $(PROTO_VENV)/.installed ## the checked-in stubs are what the protos give
	$(PROTO_VENV)/bin/python tools/gen_protos.py --check

proto: $(PROTO_VENV)/.installed ## regenerate the stubs in kv/v1 and kv/internal/v1
	$(PROTO_VENV)/bin/python tools/gen_protos.py

# Two workers: tests that start real processes run one after the other on each (tests/conftest.py).
test: install ## the test suite; PYTEST_ARGS='-k ring -x' narrows it
	$(BIN)/pytest -n 2 --dist loadgroup $(PYTEST_ARGS)

sim: install ## the simulator on fresh seeds; SECONDS=30 of wall time
	$(BIN)/kv sim --seconds $(SECONDS) $(if $(JOBS),--jobs $(JOBS))

soak: install ## the simulator for long; MINUTES=60 of wall time
	$(BIN)/kv sim --seconds $$(( 60 * $(MINUTES) ))

jepsen: install ## real processes under faults, judged; SECONDS=180 of wall time, folders in results/
	$(BIN)/kv-jepsen campaign --seconds $(SECONDS) --results results

stock: install ## PySyncObj as shipped against the guarded group; SEEDS=0:30
	$(BIN)/kv sim --stock --seeds $(SEEDS)

fuzz: install ## every decoder with mutated input; MINUTES=60 of wall time, ENGINE=plain or atheris
	$(BIN)/python -m tools.fuzz --minutes $(MINUTES) --engine $(ENGINE)

bench-peers: install ## install the systems that `make bench` compares with (etcd, NATS)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@command -v h2load >/dev/null || echo "h2load is not installed; rows that need it are skipped: apt-get install nghttp2-client"

bench: install ## ringkv beside its peers; BENCH_ARGS='--rows 1-4 --rounds 5 --out bench-results'
	$(BIN)/python -m benchmarks run $(BENCH_ARGS)

wheel: install ## build sdist and wheel into dist/ and check what they ship
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python tools/check_wheel.py dist

demo: install ## a cluster on this machine, shown step by step
	$(BIN)/kv demo --tour

clean: ## remove everything that make makes
	rm -rf $(VENV) $(PROTO_VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
