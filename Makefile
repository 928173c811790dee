# Two commands on a fresh machine: `make demo` and `make test`. RabbitMQ and PostgreSQL are found or started, and stopped
# again, by scripts/with-services.

CARGO ?= cargo
# More for the tests' command line: make test ARGS='refund -- --nocapture'
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help build build-debug demo run test test-cluster test-matrix examples chaos chaos-cluster mutants fuzz bench lint \
	docs clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## The release binary, target/release/paybus
	$(CARGO) build --release --locked --bins --examples

# Not optimized, and shared with the tests: what is built here is not built again for `make test`.
build-debug:
	$(CARGO) build --locked --bins --examples

demo: build-debug ## Sample payments through a private broker and database, from command to event; ends by itself
	scripts/with-services scripts/demo

run: build-debug ## The worker in the foreground with a private broker and database; Ctrl-C ends it
	scripts/with-services scripts/run

test: ## All tests: unit, property, and against a real broker and database
	CARGO='$(CARGO)' scripts/test $(ARGS)

test-cluster: ## The tests on three nodes of RabbitMQ and a PostgreSQL with a standby, of which some are killed
	@PAYBUS_SERVICES=cluster scripts/with-services $(CARGO) test --locked --test cluster -- $(ARGS)

test-matrix: ## The tests against each RabbitMQ and PostgreSQL that can be had: make test-matrix ARGS='trixie 14'
	@CARGO='$(CARGO)' scripts/test-matrix $(ARGS)

examples: ## The clients of other languages, each against a real worker
	@CARGO='$(CARGO)' scripts/examples $(ARGS)

chaos: ## The promise under faults, and a verdict: make chaos ARGS='--gateway stripe --seconds 600 --seed 7'
	@scripts/with-services $(CARGO) test --locked --test chaos -- $(ARGS)

chaos-cluster: ## The same on the clusters of test-cluster: nodes of the broker are lost, the standby is promoted
	@PAYBUS_SERVICES=cluster scripts/with-services $(CARGO) test --locked --test chaos -- $(ARGS)

mutants: ## Whether the tests find the faults of tests/mutants: make mutants ARGS='--fast'
	@CARGO='$(CARGO)' scripts/mutants $(ARGS)

fuzz: ## Coverage-guided fuzzing: make fuzz ARGS='accept --seconds 60'
	@CARGO='$(CARGO)' scripts/fuzz $(ARGS)

bench: ## How fast it is beside the floor of broker and database: make bench ARGS='--payments 50000 --only burst'
	@scripts/with-services $(CARGO) bench --locked --bench throughput -- $(ARGS)

lint: ## Formatting and clippy, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

docs: ## The documentation as a book, target/book; needs mdBook (cargo install mdbook)
	@scripts/docs

clean: ## Removes what was built
	$(CARGO) clean
