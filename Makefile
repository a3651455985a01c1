# Two commands on a fresh machine: `make quickstart` and `make test`. Both are safe to repeat.

PYTHON ?= python3
FORCE ?=
ARGS ?=
VENV_PYTHON := .venv/bin/python
LINTED := retinanet_ext retinanet_ext_command.py train_net.py dev projects/FocalLossPaper/focal_loss_paper projects/CenterNet projects/Ancestors/ancestors

.PHONY: help setup quickstart test lint format clean

help:
	@echo "make quickstart   set up .venv, train a small RetinaNet on the CPU, evaluate, draw"
	@echo "                  (FORCE=1 trains again; PYTHON=python3.11 chooses the Python)"
	@echo "make test         set up .venv, run the tests (ARGS='-m \"not slow\"' for the quick ones)"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff format the code"
	@echo "make clean        remove caches and build leftovers; .venv, datasets, output stay"

setup:
	@command -v "$(PYTHON)" >/dev/null || { \
	  echo "[setup] error: there is no command $(PYTHON); install Python 3.10 or newer and run" \
	    "the same command again, or name it: make PYTHON=/path/to/python3.11 quickstart" >&2; \
	  exit 1; }
	@"$(PYTHON)" dev/bootstrap.py

quickstart: setup
	@$(VENV_PYTHON) dev/quickstart.py $(if $(filter-out 0,$(FORCE)),--force)

# A process for each core, each with one thread; ARGS comes last and wins: ARGS='-n 0 --pdb'.
test: setup
	@echo "[test] running the tests"
	@OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest tests -n auto --dist worksteal $(ARGS)

lint: setup
	@echo "[lint] ruff check, ruff format --check, mypy"
	@$(VENV_PYTHON) -m ruff check .
	@$(VENV_PYTHON) -m ruff format --check .
	@$(VENV_PYTHON) -m mypy $(LINTED)

format: setup
	@echo "[format] ruff format, ruff check --fix"
	@$(VENV_PYTHON) -m ruff check --fix .
	@$(VENV_PYTHON) -m ruff format .

clean:
	@echo "[clean] removing caches and build leftovers"
	@rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -path ./.venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
