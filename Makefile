# Everything that is built goes to one cache outside the clone, and to one cargo profile and target directory.
CACHE := $(or $(ARK_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/kubectl-ark)
export CARGO_TARGET_DIR ?= $(CACHE)/target
BUILD := cargo build --release --workspace
PROGRAMS := $(CARGO_TARGET_DIR)/release
THROWAWAY := $(PROGRAMS)/throwaway

.PHONY: demo test bench cluster cluster-down image manifests

demo: ## Back up, lose and restore an application on a throw-away Kubernetes
	$(BUILD) --bins && tests/demo.sh $(PROGRAMS)

test: ## What CI runs: formatting, lints, licences, unit tests, and scenarios on a throw-away Kubernetes
	tests/lint.sh
	$(BUILD) --bins && $(THROWAWAY) prerequisites
	cargo test --release --workspace

bench: ## Measure speed and memory of backups and restores; BENCH='--all --write' for all of docs/benchmarks.md
	$(BUILD) --bins && $(PROGRAMS)/ark-bench $(BENCH)

cluster: ## Start a Kubernetes cluster with S3 and EC2 that stays up, and say how to use it
	$(BUILD) --bins && $(THROWAWAY) up

cluster-down: ## Remove it
	$(BUILD) --bins --quiet && $(THROWAWAY) down

image: ## Build the image of ark-job; BASE=… for another base
	$(BUILD) --bins && tests/image.sh $(PROGRAMS) $(IMAGE)

manifests: ## Write the manifests that are generated from code again
	ARK_UPDATE=1 cargo test --release --workspace --test golden --test docs
