# Everything that is done by hand or by a machine. `make` alone says what there is.

SEEDS ?= 20000
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo setup build test lint sim soak bench deny clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Everything that can fail for want of a tool or a right fails before the long build.
demo: ## Set the machine up if needed, build, and move a guest before your eyes (ARGS="--rate-mbit 5"; --help)
	@test "$$(id -u)" = 0 || { \
		echo "demo: needs root for its network namespaces; run: sudo -E env \"PATH=\$$PATH\" make demo" >&2; exit 1; }
	@scripts/setup
	@echo "demo: building (minutes, the first time)"
	@cargo build --quiet --locked --workspace --bins
	@cargo run --quiet --locked -p tests --bin demo -- $(ARGS)

test: ## Set the machine up if needed, build, lint, and run every test
	@scripts/test

setup: ## Only install what the tests need (Debian; sudo where not root)
	@scripts/setup

build: ## Build the programs as they are shipped, into target/release
	cargo build --release --locked -p blockd -p migrated

lint: ## rustfmt and clippy, with every warning an error
	@scripts/lint

sim: ## Run both simulations over SEEDS=n seeds (20000 unless given)
	SIM_SEEDS=$(SEEDS) cargo test --locked --workspace --test proofs every_seed -- --nocapture

soak: ## Run the long tests (ARGS=NAME: those with that in their name)
	@scripts/setup
	cargo test --locked --workspace --lib --test proofs --test pure --test parts --no-fail-fast -- --ignored soak
	cargo test --locked --workspace --test moves -- --ignored $(ARGS)

# What is measured is what `make build` ships.
bench: build ## Measure beside the peers, or go on where that was stopped (ARGS="--only link --against old.jsonl"; --help)
	cargo build --release --locked -p tests --bins
	cargo run --release --locked -p tests --bin bench -- $(ARGS)

deny: ## Check licences, bans and advisories of the dependencies
	@cargo deny --version >/dev/null 2>&1 || { \
		echo "cargo-deny is missing; install it with: cargo install --locked cargo-deny" >&2; exit 1; }
	cargo deny check

clean: ## Remove everything that was built or downloaded
	cargo clean
