# `make demo` or `make test` alone is enough on a fresh clone: they install first where that is still
# to do.

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/installed.stamp
PIP_INSTALL := $(VENV)/bin/python -m pip --disable-pip-version-check install --constraint constraints.txt

.PHONY: install demo docs docs-check gpu-check lint mutants test test-all

install: $(INSTALLED)

# The stamp is written last: an install that was cut short is done again, one that is whole is not.
# Building in this very environment keeps the build tools pinned too.
$(INSTALLED): setup.py constraints.txt tools/install_detectron2.py
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 10) <= v[:2] <= (3, 12) or sys.exit("PixelCLIP is pinned for Python 3.10 to 3.12, but %s is %d.%d; choose one: make install PYTHON=python3.11" % (sys.executable, v[0], v[1]))'
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) pip setuptools
	$(PIP_INSTALL) --no-build-isolation --editable ".[dev]"
	$(VENV)/bin/python tools/install_detectron2.py
	touch $@

# After an interruption the same command resumes. Options: make demo DEMO_OPTIONS="--fresh"
demo: install
	$(VENV)/bin/python tools/demo.py $(DEMO_OPTIONS)

lint: install
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy

# Two workers of one thread each, in what they start too. Options: make test TEST_OPTIONS=tests/modeling
# and, for a debugger, which needs a single process: make test TEST_OPTIONS="-n 0 --pdb tests/modeling"
test: export OMP_NUM_THREADS := 1
test: install
	$(VENV)/bin/python -m pytest -m "not slow" -n 2 --dist worksteal $(TEST_OPTIONS)

test-all: install
	$(VENV)/bin/python -m pytest $(TEST_OPTIONS)

# Which changes of the method do the tests notice? Options: make mutants MUTANTS_OPTIONS=sinkhorn
mutants: install
	$(VENV)/bin/python -m tests.mutations.run $(MUTANTS_OPTIONS)

# The docstrings as web pages. What a package imports at use (PixelCLIP, Predictor) is on its own
# module's page, of which pdoc warns.
MODULES = $(subst /,.,$(patsubst %/__init__,%,$(basename $(shell find pixelclip -name "*.py"))))
docs: install
	$(VENV)/bin/python -W ignore -m pdoc --docformat google --output-directory output/docs $(MODULES)

# Options: make docs-check DOCS_OPTIONS=README.md
docs-check: install
	$(VENV)/bin/python -m tests.documents.check $(DOCS_OPTIONS)

# Five minutes on one GPU. Options: make gpu-check GPU_CHECK_OPTIONS="--output results"
gpu-check: install
	$(VENV)/bin/python tools/cli.py check-gpu $(GPU_CHECK_OPTIONS)
