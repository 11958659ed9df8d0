# Two commands matter: `make demo` and `make test`. Each sets up what it needs in .venv.

PYTHON ?= python3.11
SERVE ?= 1
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --constraint constraints.txt

.PHONY: demo test check bench bench-quality bench-app app laws torture clean

demo: $(VENV)/.app
	$(BIN)/workbench demo --out runs/demo $(if $(filter 0,$(SERVE)),--no-serve)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not torture and not every_variant" tests

laws: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 -m every_variant tests

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff check --isolated --select F821 apps probes training benchmarks # undefined names; jaxtyping's axes hide them elsewhere
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: $(VENV)/.dev
	$(BIN)/python -m benchmarks

bench-quality: $(VENV)/.dev
	$(BIN)/python -m benchmarks.quality

bench-app: $(VENV)/.dev
	$(BIN)/python -m benchmarks.app

app: $(VENV)/.app
	$(BIN)/workbench app

torture: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "torture or figure" tests

clean:
	rm -rf $(VENV) build dist *.egg-info

# torch first and alone, so that pip may take a CPU build of it that is at hand.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) torch==2.13.0
	touch $@

$(VENV)/.app: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[app]"
	touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) --editable ".[dev]"
	touch $@ $(VENV)/.app
