# Needs Python 3.11 or newer, git and make; with a C compiler the relay is faster. Everything else goes into .venv.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: serve trial test check bench conformance screenshots clean

serve: $(VENV)/.ide  ## set up and serve: make serve ARGS="--port 8001"
	@$(BIN)/ide-gateway serve $(ARGS)

trial: $(VENV)/.test  ## the AWS side on this machine, without an account: see docs/aws.md
	@$(BIN)/python -m deploy.local_trial $(ARGS)

test: $(VENV)/.test
	$(BIN)/pytest -n 2 $(ARGS)

check: $(VENV)/.test  ## the one gate: format, lint, types, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 $(ARGS)

bench: $(VENV)/.ide
	@echo "Benchmarks are in bench/"
	@$(BIN)/python -m bench $(ARGS)

conformance: $(VENV)/.ide  ## Autobahn's verdicts with and without the gateway: see docs/conformance.md
	@$(BIN)/python -m bench.conformance $(ARGS)

screenshots: $(VENV)/.test  ## take docs/screenshots again: needs Chromium
	@$(BIN)/python -m docs.screenshots

clean:
	rm -rf $(VENV) gateway/_wire.*.so build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ide: pyproject.toml constraints.txt gateway/_wire.c | $(BIN)/python
	@echo "Installing into $(VENV), a minute the first time"
	@$(PIP) install -e '.[ide]' -c constraints.txt
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt gateway/_wire.c | $(BIN)/python
	@echo "Installing into $(VENV), a minute the first time"
	@$(PIP) install -e '.[ide,aws,postgresql,test]' -c constraints.txt
	@touch $@ $(VENV)/.ide
