# Every target sets up what it needs in .venv; `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
SOURCE := pyproject.toml constraints.txt src/bertsmith/__init__.py
SLOWEST ?= 10
# One process a core, one thread a process: two that share cores would wait for each other in every product.
WORKERS ?= $(shell nproc 2>/dev/null || echo 2)
BENCHMARKS ?= pretrain_vs_transformers memory sentences

.DEFAULT_GOAL := help
.PHONY: help setup demo check format test test-slow bench docs clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/dev.stamp ## make .venv with everything that development needs

demo: $(VENV)/run.stamp ## train, fine-tune and ask a small BERT; DEMO_TEXT=folder takes text of your own
	$(BIN)/bertsmith demo $(if $(DEMO_TEXT),--text "$(DEMO_TEXT)")

check: $(VENV)/dev.stamp ## lint, format, types, floors
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy src/bertsmith scripts $(wildcard benchmarks)
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## put the source into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: $(VENV)/dev.stamp ## all tests but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist loadfile --durations=$(SLOWEST)

test-slow: $(VENV)/dev.stamp ## the tests that take minutes
	$(BIN)/python -m pytest -q -m slow --timeout=3600 --durations=$(SLOWEST)

bench: $(VENV)/dev.stamp ## run the benchmarks of minutes; BENCHMARKS=downstream runs the one of hours
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py || exit 1; done

docs: $(VENV)/dev.stamp ## write the reference of all settings anew from the code
	$(BIN)/python scripts/reference.py

clean: ## remove .venv and caches; runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "bertsmith needs Python 3.11 or newer, $(PYTHON) is older: make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

# torch first: what follows then takes this build of it and brings no other
$(VENV)/torch.stamp: constraints.txt | $(VENV)/bin/python
	@echo "installing torch into $(VENV) (once; some minutes)"
	$(PIP) torch
	@touch $@

$(VENV)/run.stamp: $(SOURCE) $(VENV)/torch.stamp
	@echo "installing bertsmith into $(VENV)"
	$(PIP) -e .
	@touch $@

$(VENV)/dev.stamp: $(SOURCE) $(VENV)/torch.stamp
	@echo "installing bertsmith and the development tools into $(VENV)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/run.stamp
