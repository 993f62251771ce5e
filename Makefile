# Two commands do everything on a fresh machine: `make demo` and `make test`.
# Only Python >= 3.11 and make are needed; everything else goes into .venv.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= auto
RELAYER_VECTORS ?= ../shared/vectors
export RELAYER_VECTORS

.PHONY: help install install-dev demo test lint types layers bench conformance contracts contracts-test lock soak surfpool testnet quickstart-check sidecar-check clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is %d.%d: name one with make PYTHON=python3.12" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >$(VENV)/install.log 2>&1 || { cat $(VENV)/install.log; exit 1; }
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@touch $@

install: $(VENV)/.installed  ## make .venv with what the relayer needs to run

install-dev: $(VENV)/.installed-dev  ## the same with test, lint and contract tools

demo: install  ## three chains, proofs, netting and settlement in this process, under a minute
	$(BIN)/relayer demo

test: install-dev  ## all tests (under ten minutes on two cores)
	$(BIN)/python -m pytest -n $(WORKERS) -m 'not slow'

lint: install-dev  ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install-dev  ## mypy --strict over the product
	$(BIN)/mypy

layers: install-dev  ## direction of imports
	$(BIN)/lint-imports

conformance: install-dev  ## every case found below $$RELAYER_VECTORS
	$(BIN)/python -m tests.conformance.run

bench: install-dev  ## figures for docs/benchmarks.md (machine and date are printed)
	$(BIN)/python -m bench.run

contracts: install-dev  ## rebuild the committed contract artefacts
	$(BIN)/python -m contracts.evm.compile
	$(BIN)/python -m contracts.cosmos.compile
	$(BIN)/python -m contracts.solana.compile

contracts-test:  ## unit tests of the Rust contracts (needs cargo)
	cd contracts/cosmos && CARGO_TARGET_DIR=$${CARGO_TARGET_DIR:-$${TMPDIR:-/tmp}/relayer-cosmos-tests} cargo test --locked

soak: install-dev  ## long suites: more hypothesis, kills and fault schedules
	HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest -m "slow or not slow"

surfpool: install  ## build the Solana node of the testnet, once (needs Rust 1.97 or a nightly; ten minutes to an hour)
	$(BIN)/python -m relayer.testnet.surfpool

testnet: install  ## real nodes, sidecars, a broker and four operator processes on this machine; the story; a report
	$(BIN)/python -m relayer.testnet run

quickstart-check:  ## every command of docs/quickstart.md in a fresh clone (needs npm or anvil, mosquitto; fifteen minutes)
	$(PYTHON) -m tests.quickstart

sidecar-check: install  ## let go-ethereum's blsync follow the sidecar (needs go; four minutes)
	$(BIN)/python -m relayer.testnet.sidecar_check

lock:  ## write the hash-pinned requirements anew (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml --extra sim --extra build --extra dev -o requirements-dev.txt
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate pyproject.toml --extra sim --extra build -c requirements-dev.txt -o requirements.txt

clean:  ## remove what the targets made
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
