# Everything a fresh checkout needs: `make demo` and `make test` set up what is missing first.
# Needs git, make, Python 3.10 to 3.13 and the usual package indexes. PYTHON=python3.12 picks one.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One stamp per interpreter asked for, so that PYTHON=... never runs with another one's environment.
PYTHON_READY := $(VENV)/.ready-$(subst /,_,$(PYTHON))
EXECUTOR := toolchain/executor/Cargo.toml
SAMPLE := samples/digits
RUST_SAMPLE := samples/rust/Cargo.toml
GO_MODULES := toolchain/go samples/go

.DEFAULT_GOAL := help
.PHONY: help setup demo web test test-models fuzz conformance bench lint clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(PYTHON_READY) ## Python environment in .venv and the Rust target for WASI
	@toolchain/setup-rust.sh

demo: setup ## Compile the sample network and let it read a picture of a seven
	@mkdir -p build
	$(BIN)/wasmgraph compile $(SAMPLE)/digits.onnx -o build/digits.wasm
	$(BIN)/wasmgraph run build/digits.wasm -i $(SAMPLE)/images/seven-148.png \
	    --range 0-1 --labels $(SAMPLE)/labels.txt --top 3

# PORT=number where 8000 is taken.
web: setup ## The page in samples/browser, on this machine: draw a digit, the network reads it
	@rm -rf build/web && mkdir -p build/web
	cp samples/browser/*.html samples/browser/*.css samples/browser/*.js build/web
	cp -r toolchain/javascript/src build/web/wasmgraph
	$(BIN)/wasmgraph compile $(SAMPLE)/digits.onnx -o build/web/digits.wasm
	$(BIN)/python samples/browser/serve.py build/web $(PORT)

test: setup ## The test suite
	$(BIN)/python -m pytest -m "not models"

test-models: setup ## The larger models of ../shared/models, where they are there
	$(BIN)/python -m pytest -m models

# SECONDS=s how long, SEED=n which cases, MODELS=folder further models to damage; CASE=n one again.
fuzz: setup ## Damaged models, bundles and graphs: each ends in a documented error, or it is a finding
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(CASE),--case $(CASE)) $(if $(MODELS),--models '$(MODELS)')

# FILTER=regex chooses tests by name; UPDATE=1 records the outcomes, in tests/conformance and OPERATORS.md.
conformance: setup ## onnx's own node tests, as wasm; fails where one that passed no longer does
	$(BIN)/python -m tests.conformance $(if $(FILTER),--filter '$(FILTER)') $(if $(UPDATE),--update)

# MODELS=folder and ONLY=names choose what is measured, SECONDS=s how long; see benchmarks/README.md.
bench: setup ## The comparison with onnxruntime-web and native onnxruntime
	$(BIN)/python -m benchmarks $(if $(MODELS),--models '$(MODELS)') $(if $(ONLY),--only '$(ONLY)') \
	    $(if $(SECONDS),--seconds $(SECONDS))

lint: setup ## ruff, mypy, and rustfmt, clippy, gofmt and go vet where they are installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	@if cargo fmt --version >/dev/null 2>&1; then set -x; \
	    cargo fmt --check --manifest-path $(EXECUTOR) && \
	    cargo fmt --check --manifest-path $(RUST_SAMPLE); \
	else echo "cargo fmt: not installed, skipped"; fi
	@if cargo clippy --version >/dev/null 2>&1; then set -x; \
	    cargo clippy --quiet --manifest-path $(EXECUTOR) -- -D warnings; \
	else echo "cargo clippy: not installed, skipped"; fi
	@for module in $(GO_MODULES); do \
	    if ! go version >/dev/null 2>&1; then echo "go: not installed, skipped"; break; fi; \
	    echo "+ gofmt, go vet: $$module"; unformatted=$$(gofmt -l $$module) || exit 1; \
	    if [ -n "$$unformatted" ]; then echo "gofmt would change: $$unformatted" >&2; exit 1; fi; \
	    if ! go -C $$module mod download; then echo "go vet: no modules in reach, skipped"; continue; fi; \
	    go -C $$module vet ./... || exit 1; \
	done

clean: ## Remove the environment and everything that was built
	rm -rf $(VENV) build dist toolchain/executor/target samples/rust/target benchmarks/node_modules
	rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find wasmgraph tests samples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(PYTHON_READY): pyproject.toml
	@$(PYTHON) -c '' 2>/dev/null || { \
	    echo "error: $(PYTHON) is not installed or does not run" >&2; \
	    echo "hint: apt-get install python3 python3-venv, or name another: make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' || { \
	    echo "error: wasmgraph needs Python 3.10 to 3.13, found $$($(PYTHON) -V)" >&2; \
	    echo "hint: apt-get install python3.12 python3.12-venv, then make PYTHON=python3.12" >&2; \
	    exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "error: $(PYTHON) lacks the venv module" >&2; \
	    $(PYTHON) -c 'import sys; print("hint: apt-get install python%d.%d-venv" % sys.version_info[:2])' >&2; \
	    exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
