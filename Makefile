# `make check` is what a change must pass; `make lock` renews the pinned dependencies.
PYTHON ?= .venv/bin/python
BIN = $(dir $(PYTHON))

.PHONY: check format lint types arrows test bench lock

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
	$(PYTHON) -m pytest --cov --cov-report=term

bench:
	$(PYTHON) -m tests.benchmarks.speed
	$(PYTHON) -m tests.benchmarks.asking
	$(PYTHON) -m tests.benchmarks.politeness

# Hashes and no index addresses: an installation is the same everywhere, wherever it comes from.
lock:
	$(BIN)uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --output-file .ci/run.lock pyproject.toml .ci/build.in
	$(BIN)uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate \
	  --no-header --no-emit-index-url --output-file .ci/dev.lock --all-extras --group dev \
	  pyproject.toml .ci/build.in
