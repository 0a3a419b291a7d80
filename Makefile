# What one does here. `make help` lists it.

# Outside the checkout, so that a fresh clone builds on what the last one built: RocksDB alone takes ten minutes.
CARGO_TARGET_DIR ?= $(HOME)/.cache/sordini/target
export CARGO_TARGET_DIR

# How often the property tests try in `make soak`, and how often the broker is killed there. `SEED` makes the kills others.
CASES ?= 20000
KILLS ?= 200

.PHONY: help run test lint fmt soak compat bench image

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: prerequisites ## Build and start a broker on port 9092, its data in ./data (ARGS="--override key=value")
	cargo run --release --locked --bin sordini -- $(ARGS)

test: prerequisites ## All tests but those of the benchmark's own reckoning: minutes, once everything is built
	cargo test --release --locked --workspace --exclude sordini-bench

lint: prerequisites ## Formatting, clippy, licences
	cargo fmt --all --check
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny check; \
	else echo "cargo-deny is not here (cargo install cargo-deny); tests/licences.rs checks the licences too"; fi

fmt: ## Format the code
	cargo fmt --all

soak: prerequisites ## The tests again, properties of proptest tried CASES times (20000), the broker killed KILLS times (200)
	PROPTEST_CASES=$(CASES) KILLS=$(KILLS) cargo test --release --locked --workspace --exclude sordini-bench

compat: prerequisites ## Real clients against the real binary, see compat-tests/README.md (ARGS="--broker both")
	cargo build --release --locked --bin sordini
	SORDINI=$(CARGO_TARGET_DIR)/release/sordini compat-tests/run $(ARGS)

bench: prerequisites ## The same work against this broker and against Apache Kafka, into BENCHMARKS.md
	cargo run --release --locked -p sordini-bench -- $(ARGS)

image: ## The container image `sordini`, which can stand where apache/kafka stood; Docker with BuildKit is all it takes
	DOCKER_BUILDKIT=1 docker build -t sordini .

.PHONY: prerequisites
prerequisites:
	@scripts/prerequisites
