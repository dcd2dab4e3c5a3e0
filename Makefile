# Two commands do everything on a fresh machine: `make quickstart` and `make test`.
# PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: setup quickstart test lint soak audit lock schema clean

setup: $(VENV)/.ready

# The files name every package with its hash, so that nothing is left to resolve. Where an index has
# torch's CPU build, that is taken; otherwise pip says why not.
INSTALL = $(BIN)/python -m pip install --quiet --no-deps

$(VENV)/.ready: requirements.txt requirements-torch.txt requirements-torch-cpu.txt requirements-basicsr.txt setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) -r requirements.txt
	$(INSTALL) -r requirements-torch-cpu.txt || { \
		echo "no CPU build of torch: taking the one with CUDA"; $(INSTALL) -r requirements-torch.txt; }
	$(INSTALL) --no-build-isolation -r requirements-basicsr.txt
	$(INSTALL) --no-build-isolation -e .
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

soak: setup  ## hours of kills, damaged files, long work, failing disks (these need the right to mount)
	@test -n "$$LSFD_DATA" || { echo "set LSFD_DATA, see README.md"; exit 2; }
	$(BIN)/python scripts/soak/kills.py
	$(BIN)/python scripts/soak/fuzz.py --variants 12000
	$(BIN)/python scripts/soak/creep.py
	$(BIN)/python scripts/soak/disks.py

audit:  ## known weaknesses of the pinned packages; asks an index on the network
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/python -m pip install --quiet pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --strict --require-hashes --disable-pip \
		-r requirements.txt -r requirements-torch.txt -r requirements-basicsr.txt

lock:  ## pin versions and hashes anew after a change of setup.cfg; needs uv; then scripts/licences.py
	$(PYTHON) scripts/lock.py

schema: setup  ## write options/schema.json anew after a change of the option file's format
	$(BIN)/python scripts/make_schema.py

clean:
	rm -rf $(VENV) $(VENV)-audit build lsfd.egg-info .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
