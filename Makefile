# make demo     install, make sample data and a model, score the data, show the result
# make test     install the test packages, run all tests (make test ARGS="-k csv" for some)
# make kills    kill runs by the hundred, and verify that nothing is lost (make kills KILLS=1000 SEED=2)
# make bench    the comparison of docs/benchmarks.md (make bench SUITES=csv ROWS=1000000 PAIRS=3 for a short one)
# make bench-serve   the server against Flask and FastAPI (make bench-serve ROUNDS=3 for a short one; needs wrk)
# make golden   write the golden Dataflow job again; read the diff
# make lint     ruff, as linter and as formatter, mypy, and a check for plain English
# make lock     resolve the dependencies again, for Python 3.11 to 3.13 at once
# make clean    remove everything that these commands made
#
# To use another Python: make PYTHON=/path/to/python3.12 demo

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# A lock file is installed without being resolved again. To resolve it (without --no-deps) fails as soon as an index has
# newer versions: pip 23.2 resolves the extras of a package again. `pip check` then proves that the lock is complete.
# Modules that are not compiled here are compiled at their first import; these are far fewer.
INSTALL_LOCK := $(PIP) install --no-deps --no-compile --require-hashes -r
UV := uv==0.13.9
PYTHON ?=
ROWS ?= 20000000
PAIRS ?= 7
ROUNDS ?= 5
SUITES ?=
KILLS ?= 200
SEED ?= 1
ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder -q

# Modules are compiled at their first import, unless this variable is set: then at every import of every process, which
# takes TensorFlow 18 s instead of 5.
unexport PYTHONDONTWRITEBYTECODE

# The Python of the environment: the first of these that runs, has a supported version, and has venv.
CANDIDATES := $(or $(PYTHON),python3 python3.13 python3.12 python3.11)
FITS := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

.PHONY: help demo test kills bench bench-serve golden lint lock clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make/make/p' Makefile

# --- the environment: each step writes a stamp, so that nothing is installed twice ---

$(BIN)/python:
	@for python in $(CANDIDATES); do \
	  if "$$python" -c '$(FITS)' 2>/dev/null; then \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv $(VENV) && exit 0; \
	    exit 1; \
	  fi; \
	done; \
	echo "beam-score needs Python 3.11, 3.12 or 3.13 with venv, and found none of these with it: $(CANDIDATES)" \
	  "(python3 is $$(python3 --version 2>/dev/null || echo not there)). Try: make PYTHON=/path/to/python3.12 demo" >&2; \
	exit 1

$(VENV)/locked: requirements.lock | $(BIN)/python
	@echo "Installing the locked versions (about 1.5 GB unpacked; a few minutes the first time)"
	@$(INSTALL_LOCK) requirements.lock
	@$(PIP) check
	@touch $@

$(VENV)/installed: $(VENV)/locked pyproject.toml setup.py
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/locked-test: requirements-test.lock $(VENV)/locked
	@echo "Installing the packages that the tests need"
	@$(INSTALL_LOCK) requirements-test.lock
	@$(PIP) check
	@touch $@

$(VENV)/installed-test: $(VENV)/locked-test $(VENV)/installed
	@touch $@

# --- the commands ---

demo/data/people-0.csv: examples/demo/make_data.py | $(VENV)/installed
	@$(BIN)/python $< demo/data

demo/models/people/1/saved_model.pb: examples/demo/make_model.py | $(VENV)/installed
	@$(BIN)/python $< demo/models/people/1

# The output is removed first: a finished job that is run again only reports that it is finished.
demo: demo/data/people-0.csv demo/models/people/1/saved_model.pb
	@rm -rf demo/out
	$(BIN)/beam-score run examples/demo/job.yaml

test: $(VENV)/installed-test
	@$(BIN)/python -m pytest $(ARGS)

kills: $(VENV)/installed-test
	@$(BIN)/python tests/kit/kill_runs.py --kills $(KILLS) --seed $(SEED)

bench: $(VENV)/installed-test
	@$(BIN)/python benchmarks/startup.py --pairs $(PAIRS)
	@$(BIN)/python benchmarks/compare.py --rows $(ROWS) --pairs $(PAIRS) $(SUITES)

bench-serve: $(VENV)/installed-test
	@$(BIN)/python benchmarks/serve.py --rounds $(ROUNDS)

golden: $(VENV)/installed-test
	@$(BIN)/python tests/kit/dataflow_golden.py

lint: $(VENV)/installed-test build/types/beam_score
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python tests/kit/plain_english.py $(PLAIN)

# Folders and pages that are in plain English; see tests/kit/plain_english.py.
PLAIN := beam_score pipeline runners transforms README.md CHANGELOG.md docs

# The package in the layout in which it is installed: mypy does not follow an editable install.
build/types/beam_score: Makefile
	@rm -rf $@ && mkdir -p $@
	@ln -s $(addprefix ../../../,beam_score/__init__.py beam_score/py.typed pipeline runners transforms) $@/

lock: | $(BIN)/python
	@$(BIN)/python -m venv build/lock && build/lock/bin/python -m pip install --quiet $(UV)
	@build/lock/bin/uv pip compile pyproject.toml $(LOCK) --extra s3 --output-file requirements.lock
	@build/lock/bin/uv pip compile pyproject.toml $(LOCK) --extra test --extra lint \
	  --constraint requirements.lock --output-file requirements-test.lock

# One file for all versions of Python, with hashes, and without the addresses of the package index.
LOCK := --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
  --no-emit-index-url --no-emit-find-links --no-annotate --no-header

clean:
	rm -rf $(VENV) demo bench-data build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
