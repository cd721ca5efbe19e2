# Everything that is built goes to one cache outside the clone, and to one cargo profile and target directory.
CACHE := $(or $(ARK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kubectl-ark)
export CARGO_TARGET_DIR ?= $(CACHE)/target
BUILD := cargo build --release --workspace
THROWAWAY := $(CARGO_TARGET_DIR)/release/throwaway

.PHONY: test cluster cluster-down

test: ## What CI runs: formatting, lints, unit tests, and scenarios on a throw-away Kubernetes
	cargo fmt --all --check
	cargo clippy --release --workspace --all-targets -- --deny warnings
	$(BUILD) && $(THROWAWAY) prerequisites
	cargo test --release --workspace

cluster: ## Start a Kubernetes cluster with S3 and EC2 that stays up, and say how to use it
	$(BUILD) && $(THROWAWAY) up

cluster-down: ## Remove it
	$(BUILD) --quiet && $(THROWAWAY) down
