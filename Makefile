# `make check` is what a change must pass; `make schemas` writes the JSON Schemas that follow from
# the records, `make lock` renews the pinned dependencies.
PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))

.PHONY: check format lint types arrows test bench bench-all schemas lock

check: lint types arrows test

format:
	$(BIN)ruff format
	$(BIN)ruff check --fix

lint:
	$(BIN)ruff format --check
	$(BIN)ruff check

types:
	$(BIN)mypy

arrows:
	$(BIN)lint-imports --no-logo

test:
	$(PYTHON) -m pytest -n auto --dist worksteal --cov --cov-report=term

bench: # less than five minutes on two idle cores
	$(PYTHON) -m tests.benchmarks.speed
	$(PYTHON) -m tests.benchmarks.asking --rounds 6
	$(PYTHON) -m tests.benchmarks.politeness --each 50 --runs 12
	$(PYTHON) -m tests.benchmarks.health --numbers 1000000
	$(PYTHON) -m tests.benchmarks.cluster distance place

bench-all: # everything at full size; FOLDER needs three gigabytes
	$(PYTHON) -m tests.benchmarks.speed
	$(PYTHON) -m tests.benchmarks.asking
	$(PYTHON) -m tests.benchmarks.politeness
	$(PYTHON) -m tests.benchmarks.health
	$(PYTHON) -m tests.benchmarks.cluster
	$(PYTHON) -m tests.benchmarks.verifying
	$(PYTHON) -m tests.benchmarks.big_store $(or $(FOLDER),$(error say FOLDER=…, where three gigabytes are free))

schemas:
	$(PYTHON) -m tests.schemas

# Hashes and no index addresses: an installation is the same everywhere, wherever it comes from.
# With extras, and tried with the oldest pip that comes with a Python >= 3.11 and with the newest:
# an old one takes `coverage[toml]`, which somebody asks for, for another package than `coverage`.
COMPILE = $(BIN)uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-strip-extras --no-header --no-emit-index-url

lock:
	$(COMPILE) --output-file .ci/run.lock pyproject.toml .ci/build.in
	$(COMPILE) --output-file .ci/dev.lock --all-extras --group dev pyproject.toml .ci/build.in
	for pip in pip==22.3 pip@latest; do for lock in run dev; do \
	  $(BIN)uv tool run --python 3.11 --from $$pip pip install --quiet --dry-run --ignore-installed \
	    --require-hashes -r .ci/$$lock.lock || exit; done; done
