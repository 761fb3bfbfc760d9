# Every target works from a clean clone. ARGS="…" is passed on to the command behind run, test, bench and fuzz.
.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
CODE := relay signaling costream tests bench $(wildcard drills)
ARGS ?=
ROUNDS ?= 20

.PHONY: help
help:  ## show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: .venv/.demo  ## make .venv with the newest of Python 3.13, 3.12, 3.11 and install

.PHONY: run
run: setup  ## start an all-in-one node with two synthetic hosts on stage
	$(BIN)/costream dev --demo $(ARGS)

.PHONY: setup-tests
setup-tests:  ## install what the tests need: Python packages, real clients, image tools
	@$(MAKE) --no-print-directory -j2 .venv/.test clients

# Beside pip, which uses one core at most for most of its time.
.PHONY: clients
clients:
	@if [ -f tests/interop/setup.sh ]; then bash tests/interop/setup.sh; fi
	@scripts/image.sh setup

.PHONY: test
test: setup-tests  ## run all tests, on two workers; with ARGS as they say
	$(BIN)/python -m pytest $(or $(ARGS),-n 2)

.PHONY: cluster-tests
cluster-tests: setup-tests  ## faults on a whole cluster in namespaces (root; some fifteen minutes on a quiet machine)
	COSTREAM_CLUSTER_TESTS=1 $(BIN)/python -m pytest -rA tests/drills $(ARGS)

.PHONY: check
check: lint types contracts  ## lint, types and import contracts

.PHONY: lint
lint: .venv/.test  ## ruff: rules and format
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

.PHONY: format
format: .venv/.test  ## ruff: mend what it can
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

.PHONY: types
types: .venv/.test  ## mypy --strict on the packages
	$(BIN)/mypy

.PHONY: contracts
contracts: .venv/.test  ## who may import whom
	$(BIN)/lint-imports

CLIPPY := nice cargo clippy --quiet --locked --release --all-targets -- -D warnings
CRATE_TESTS := nice cargo test --quiet --locked --release --lib --tests

.PHONY: native
native: .venv/.test  ## say whether the native plane was built and runs; test, format and lint the crate
	$(BIN)/python -c "from relay.plane import native_missing as m; import sys; sys.exit(m() or None)"
	cd rust && nice cargo fmt --check && $(CLIPPY)
	cd rust && $(CRATE_TESTS)
	@if command -v valgrind >/dev/null; then $(MAKE) --no-print-directory native-memcheck; \
	    else echo "no valgrind: make native-memcheck was left out"; fi

MEMCHECK := valgrind --quiet --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite
MEMCHECK += --show-leak-kinds=definite

.PHONY: native-clippy
native-clippy:
	cd rust && $(CLIPPY)

.PHONY: native-compile
native-compile:
	cd rust && $(CRATE_TESTS) --no-run

.PHONY: native-memcheck
native-memcheck:  ## run the tests of the crate's files with `unsafe` (I/O and slab) under valgrind
	cd rust && PROPTEST_CASES=8 nice cargo test --quiet --locked --release \
	    --config "target.'cfg(unix)'.runner = '$(MEMCHECK)'" --lib --test no_allocation -- --test-threads=1 \
	    io:: core::packets rings:: out:: a_round_of_sending

.PHONY: cluster
cluster: .venv/.test  ## start a test cluster here (root: network namespaces; else loopback) and break it by commands
	$(BIN)/python -m drills cluster $(ARGS)

DRILLS := black-hole asymmetric-partition burst-loss flapping storm kill-relay kill-signaling redis-down
DRILLS += cpu-storm memory-pressure disk-full clock-jump

.PHONY: drills
drills: setup-tests  ## break a test cluster with live media, the short set (root; 15 minutes); reports in .costream/drills
	$(BIN)/python -m costream.cli drill run $(DRILLS) $(ARGS)

.PHONY: drills-all
drills-all: setup-tests  ## all drills that ship
	$(BIN)/python -m costream.cli drill run $(basename $(notdir $(wildcard configs/drills/*.yaml))) $(ARGS)

.PHONY: simulate
simulate: .venv/.test  ## run the cluster's machines in virtual time with faults; ARGS="--seeds 50 --nodes 20"
	$(BIN)/costream simulate $(ARGS)

.PHONY: bench
bench: .venv/.test  ## measure; a table, and JSON in bench/results
	$(BIN)/python -m bench $(ARGS)

.PHONY: bench-link
bench-link: .venv/.test  ## measure a path between two nodes beside stock aioquic
	$(BIN)/python -m bench link $(ARGS)

.PHONY: bench-mix
bench-mix: .venv/.test  ## measure mixing beside ffmpeg and GStreamer (installed when missing, as root), and a program from glass to glass
	$(BIN)/python -m bench mix mix_audio mix_glass mix_stages $(ARGS)

.PHONY: bench-janus
bench-janus: .venv/.test  ## measure a relay beside Janus (installed when missing, as root), with the same clients
	$(BIN)/python -m bench janus $(ARGS)

.PHONY: bench-ray
bench-ray: .venv/.test  ## measure workers on a Ray cluster of this machine beside local ones
	$(BIN)/python -m bench mix_ray $(ARGS)

.PHONY: fuzz
fuzz: .venv/.test  ## repeat all property tests with new random examples, ROUNDS times (default 20)
	@for round in $$(seq $(ROUNDS)); do \
	    echo "round $$round of $(ROUNDS)"; $(BIN)/python -m pytest -q -m hypothesis $(ARGS) || exit 1; done

.PHONY: image
image:  ## build the container image (docker, podman, or buildah without an engine)
	scripts/image.sh build

.PHONY: clean
clean:  ## remove everything that the targets made
	rm -rf .venv .cache .costream .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf bench/results tests/artifacts build dist *.egg-info

NATIVE := rust/Cargo.toml rust/Cargo.lock $(wildcard rust/src/*.rs rust/src/*/*.rs)

.venv/.demo: pyproject.toml $(NATIVE)
	@scripts/setup.sh demo
	@touch $@

.venv/.test: pyproject.toml $(NATIVE)
	@scripts/setup.sh test
	@touch $@ .venv/.demo
