# Two commands do all the set-up: `make demo` runs the main job, `make test` passes the tests. Each makes .venv itself.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=
SEEDS ?= 200
JOBS ?= 2
MINUTES ?= 10

.PHONY: demo test check format lint types layers unit simulate chaos bench clean

demo: $(STAMP)
	$(BIN)/python -m swarm.commands.demo

test: check unit

check: lint types layers

lint: $(STAMP)
	$(BIN)/ruff format --check swarm tests benchmarks
	$(BIN)/ruff check swarm tests benchmarks

types: $(STAMP)
	$(BIN)/mypy

layers: $(STAMP)
	$(BIN)/lint-imports

unit: $(STAMP)
	$(BIN)/python -m pytest $(PYTEST_ARGS)

# The long forms of what `make test` does briefly: SEEDS clusters under a seed; MINUTES of faults for real daemons.
simulate: $(STAMP)
	$(BIN)/python -m tests.sim 1 --seeds $(SEEDS) --jobs $(JOBS) --minutes 1.5

chaos: $(STAMP)
	$(BIN)/python -m pytest tests/chaos/test_chaos_random.py --chaos-minutes $(MINUTES)

# Lines and branches of what decides and what carries (raft, plan, wire, runtime), by their own tests and a few simulated clusters.
coverage: $(STAMP)
	$(BIN)/python -m coverage run -m pytest -q tests/raft tests/plan tests/wire tests/runtime tests/sim/test_sim_seeds.py
	$(BIN)/python -m coverage report

format: $(STAMP)
	$(BIN)/ruff format swarm tests benchmarks
	$(BIN)/ruff check --fix swarm tests benchmarks

bench: $(STAMP)
	$(BIN)/python -m benchmarks

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "swarm needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo "python3-venv is missing: apt-get install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
