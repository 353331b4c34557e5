# make install   everything into .venv (needs Python >= 3.10 with its venv module)
# make test      style, types and tests
# make demo      the main job on a sample, end to end
# make format    rewrites the sources in the house's style
# make clean     removes what the above made, .venv included

SHELL := /bin/bash
.DEFAULT_GOAL := install
# make conformance CASES=FILE   how the stand-in for 3D Slicer behaves, case by case
.PHONY: install test conformance lint typecheck format demo clean

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
EXTRAS ?= test,panel-test
# More arguments for pip. On Linux without a GPU
#   make install PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu"
# brings the small CPU build of torch instead of the large CUDA one.
PIP_ARGS ?=
# Tests use two processes and are told not to let each take every core.
TEST_PROCESSES ?= 2
PYTEST_ARGS ?=
# Override to choose the interpreter of a new .venv: make install PYTHON=python3.13
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3.13 python3 python; do \
	command -v $$p >/dev/null 2>&1 \
	&& $$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	&& { echo $$p; break; }; done)

install: $(STAMP)

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python >= 3.10 with venv found." \
	    "Install one (Debian: apt install python3-venv) or set PYTHON." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The stamp is younger than what it was installed from, so a second call does nothing.
$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_ARGS) \
	    --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@
	@echo "installed: $(BIN)/tomoseg"

test: lint typecheck
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(TEST_PROCESSES) $(PYTEST_ARGS) Testing/Engine
	# In processes of their own: Qt and VTK must not meet torch, which Slicer never loads either.
	OMP_NUM_THREADS=1 QT_QPA_PLATFORM=offscreen $(BIN)/python -m pytest -n $(TEST_PROCESSES) \
	    --dist loadfile $(PYTEST_ARGS) Testing/Panel
	@echo "make test: style, types and tests passed"

# How the stand-in for 3D Slicer agrees with what was measured on the real one.
CASES ?= Testing/Host/cases/measured.json
conformance: install
	QT_QPA_PLATFORM=offscreen $(BIN)/python Testing/Host/conformance.py $(CASES)

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: install
	$(BIN)/python -m mypy

format: install
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

demo: install
	$(BIN)/python Testing/demo.py

clean:
	rm -rf $(VENV) build dist Demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
