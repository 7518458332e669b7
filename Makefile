# Every target installs by itself what it needs, into .venv and tools/node_modules.
#
#   make setup PYTHON=python3.12
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# On Linux x86 the default torch build carries CUDA (gigabytes); TORCH_INDEX names another index,
# as above for the CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
EXTRAS := torch,http,otel,dev
BUF := tools/node_modules/.bin/buf
NODE_EXAMPLE := examples/node/node_modules/.package-lock.json
# Without npm the tests that need it are skipped, unless CI is set.
NODE_TOOLS := $(if $(shell command -v npm),$(BUF) $(NODE_EXAMPLE))
PROTO := millstream/v1/inference.proto
STUBS := inference_pb2.py inference_pb2.pyi inference_grpc.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint proto constraints tiny-model bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(READY) ## install everything the other targets need into .venv

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps --index-url $(TORCH_INDEX) torch
endif
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet \
		--constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

$(BUF): tools/package.json tools/package-lock.json
	cd tools && npm ci --silent --no-audit --no-fund
	@touch $@

$(NODE_EXAMPLE): examples/node/package.json examples/node/package-lock.json
	cd examples/node && npm ci --silent --no-audit --no-fund
	@touch $@

demo: $(READY) ## stream three prompts through the whole stack; ONCE=1 stops it afterwards
	$(BIN)/millstream demo $(if $(ONCE),--once)

test: $(READY) $(NODE_TOOLS) ## unit, engine, integration and end-to-end tests
	$(BIN)/python -m pytest -q tests/unit tests/engines tests/integration tests/e2e

lint: $(READY) $(BUF) ## ruff, mypy, buf lint, and whether the stubs are those of the proto
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BUF) lint
	tools/generate.sh build/proto
	for stub in $(STUBS); do \
		diff -u millstream/v1/$$stub build/proto/millstream/v1/$$stub || exit 1; \
		diff -u gateway/kserve/$$stub build/proto/gateway/kserve/$$stub || exit 1; \
	done

proto: $(READY) ## regenerate the checked-in stubs
	tools/generate.sh .

constraints: $(READY) ## write the versions now in .venv to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

tiny-model: $(READY) ## train the bundled model again (minutes on two cores)
	$(BIN)/python -m training.train --out workers/bundled/model

bench: $(READY) ## measure CPU per token and latency; prints the README's table
	$(BIN)/python -m benchmarks

clean: ## remove what the targets made
	rm -rf $(VENV) tools/node_modules examples/node/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
