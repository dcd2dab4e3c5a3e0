# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup quickstart test lint schema clean

setup: $(VENV)/.ready

$(VENV)/.ready: requirements.txt setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r requirements.txt
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps basicsr==1.4.2 -e .
	touch $@

quickstart: setup  ## distil a student on photographs that scikit-image ships
	$(BIN)/python scripts/quickstart.py

test: setup lint  ## everything that CI checks
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

schema: setup  ## write options/schema.json anew after a change of the option file's format
	$(BIN)/python scripts/make_schema.py

clean:
	rm -rf $(VENV) build lsfd.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
