# Everything happens in .venv/, made with the python3 of the user (or: make demo PYTHON=python3.12).
# A stamp file per set of dependencies makes second runs install nothing; a changed pyproject.toml renews it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BENCH ?= $(filter-out __init__ harness,$(basename $(notdir $(wildcard ovseg/benchmark/*.py))))

.PHONY: help demo test lint bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo    segment the two shipped scenes and print the path of each overlay"
	@echo "make test    linter, type checker, tests"
	@echo "make lint    linter and type checker only"
	@echo "make bench   the speed measurements, one JSON line each (make bench BENCH=text for one of them)"
	@echo "make clean   remove what builds, tests and the demo leave behind; .venv/ stays"

demo: $(VENV)/.installed
	@$(BIN)/ovseg demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	@for name in $(BENCH); do $(BIN)/python tools/benchmark.py $$name || exit 1; done

clean:
	rm -rf build dist *.egg-info demo_out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	    echo "ovseg needs Python 3.10 or newer; this is $$($(PYTHON) --version 2>&1)." \
	         "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	    echo "$(PYTHON) could not make $(VENV)/ (on Debian and Ubuntu: apt install python3-venv)." >&2; exit 1; }

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing ovseg into $(VENV)/: once, some minutes, 6 GB with the CUDA build of torch."
	$(BIN)/python -m pip install -e .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing ovseg and its tools for development into $(VENV)/: once, some minutes."
	$(BIN)/python -m pip install -e '.[dev]'
	@touch $(VENV)/.installed $@
