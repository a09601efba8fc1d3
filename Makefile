# The two commands of the README, and their parts. `make help` lists them.

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt

# One thread to a test process: JOBS of them run at once.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n $(JOBS)

.PHONY: help digits flow test lint docs fast slow cuda clean

help: ## say what can be made
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

digits: $(VENV)/.installed ## install, and draw digits with the bundled network into digits.png
	$(BIN)/samplers sample assets/digits --steps 15 --num-images 40 --guidance 2 --seed 0 --output digits.png --overwrite
	@echo "The picture is $(CURDIR)/digits.png"

flow: $(VENV)/.installed-flow ## install, and draw a flow from a sentence into street.gif
	$(BIN)/text2pde generate "Water flows past a cylinder of radius 0.05 m at Reynolds number 120" --output street.gif --overwrite
	@echo "The film is $(CURDIR)/street.gif"

test: lint docs fast ## install, check style, types and documentation, run all but the slow tests

lint: $(VENV)/.installed-dev ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## the documentation as a site, strictly: a warning or a dead link fails
	$(BIN)/sphinx-build -q -W --keep-going -c docs -b html . build/site
	@echo "The site is $(CURDIR)/build/site/index.html"

fast: $(VENV)/.installed-dev ## the tests but for the slow ones
	$(PYTEST) -m "not slow"

slow: $(VENV)/.installed-dev ## every test
	$(PYTEST)

cuda: $(VENV)/.installed-dev ## the tests that compare a GPU with the CPU
	CUDA_VISIBLE_DEVICES=$${CUDA_VISIBLE_DEVICES:-0} $(PYTEST) tests/test_cuda.py

clean: ## remove what these commands made
	rm -rf $(VENV) build dist *.egg-info docs/reference/generated .mypy_cache .pytest_cache .ruff_cache digits.png street.gif

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing into $(VENV), which takes a few minutes."
	$(BIN)/pip install -qq --constraint constraints.txt --editable .
	@touch $@

$(VENV)/.installed-flow: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing into $(VENV), which takes a few minutes."
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[pde,text]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-dev: $(REQUIREMENTS) | $(BIN)/python
	@echo "Installing into $(VENV), which takes a few minutes."
	$(BIN)/pip install -qq --constraint constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.installed $(VENV)/.installed-flow
