# Two commands do everything on a machine with Python 3.11 or 3.12 and pip:
#   make demo    the main job, on data that ships with the package
#   make test    the linters, the type checker and the tests, of the slow ones a tenth
# and three more what a release needs:
#   make test-all    all tests
#   make docs    the documentation as a site, build/site/index.html
#   make dist    the wheel and the sdist, in dist/
# Each makes the virtual environment .venv and installs what it needs.

PYTHON ?= $(shell for p in python3 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' \
  2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all lint docs dist clean

demo: .venv/.demo
	$(BIN)/python examples/quickstart.py $(ARGS)

PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test: lint
	$(PYTEST) $(if $(ARGS),--all $(ARGS))

test-all: PYTEST += --all
test-all: test

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Strict: a dead link, a page that no menu names or an unknown name is an error.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "The site is in build/site/index.html"

dist: .venv/.test
	rm -rf dist
	$(BIN)/python -m build

clean:
	rm -rf .venv

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python setup.cfg constraints.txt
	@echo "Installing what the demo needs into .venv (a few minutes the first time)"
	$(PIP) -e ".[datasets,viz]"
	@touch $@

.venv/.test: .venv/bin/python setup.cfg constraints.txt
	@echo "Installing what the tests need into .venv (a few minutes the first time)"
	$(PIP) -e ".[dev]"
	@touch $@

.venv/.docs: .venv/bin/python setup.cfg constraints.txt
	@echo "Installing what the documentation needs into .venv (a few minutes the first time)"
	$(PIP) -e ".[docs]"
	@touch $@
