# Two commands: `make repro` and `make test`. They need git, make and Python 3.11 to 3.13.

SHELL := /bin/bash
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
export TF_CPP_MIN_LOG_LEVEL ?= 3
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help install repro explain test lint ui bench study cluster soak tables lock
.DEFAULT_GOAL := help

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed ## Make .venv from requirements.lock (done by the others if missing)

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) \
	  else f"Engram needs Python 3.11 to 3.13; $(PYTHON) is {v.major}.{v.minor}. Name another: make install PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

repro: .venv/installed ## Run what changed: fetch, prepare, train, evaluate, compare
	@python -m engram.params params.yaml
	@python -m engram.progress dvc repro
	@engram sync
	@echo "Results: results/comparison.md, results/report.html (open it in a browser). Runs: make ui"

explain: .venv/installed ## Tell why each stage would run, of a study with NAME=traffic
	@engram explain --suite $(if $(NAME),studies/$(NAME),.)

test: .venv/installed ## Run the tests (no network needed)
	@python -m pytest -q -m "not network" -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: .venv/installed ## Check style and types
	@ruff check . && ruff format --check . && mypy

ui: .venv/installed ## Browse the runs at http://127.0.0.1:5000
	@MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --host 127.0.0.1 --port $(or $(PORT),5000) \
	  --workers 1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-$$(python -m engram.store)}"

bench: .venv/installed ## Run the benchmarks; results go to benchmarks/results/
	@for file in benchmarks/*.py; do python $$file || exit 1; done

study: .venv/installed ## Run a study on real data: make study NAME=traffic
	@test -n "$(NAME)" -a -f "studies/$(NAME)/dvc.yaml" || { \
	  echo "Which study? make study NAME=<name>, one of: $$(cd studies && ls -d */ | tr -d / | xargs)"; exit 2; }
	@cd studies/$(NAME) && python -m engram.params params.yaml && python -m engram.progress dvc repro && engram sync
	@echo "Results: studies/$(NAME)/results/comparison.md and report.html"

cluster: .venv/installed ## Train with several processes: make cluster WORKERS=2 NAME=digits-conv-lstm
	@python -m engram.workers $(or $(WORKERS),2) $(NAME)

soak: .venv/installed ## Kill a training twenty times and compare; takes some minutes
	@PYTHONPATH=tests python tests/kills.py 20 >> benchmarks/results/kills.log; tail -3 benchmarks/results/kills.log

tables: .venv/installed ## Write the READMEs' tables from the committed results
	@python -m engram.readme

lock: .venv/installed ## Write the locks anew from pyproject.toml
	@uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --python-version 3.11 --extra pipeline --extra dev pyproject.toml -o requirements.lock
	@uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-header --python-version 3.11 --extra jax pyproject.toml -o requirements-jax.lock
