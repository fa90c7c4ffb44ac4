# The one entrance. `make help` lists what there is.

CARGO ?= cargo
ARGS ?=
DENY_VERSION := 0.20.2

# What is shipped and measured, and what it is made of.
RELEASED := $(or $(CARGO_TARGET_DIR),target)/pgo/rustydb
SOURCES = $(shell git ls-files src sql clients/rust/src 2>/dev/null) Cargo.toml Cargo.lock scripts/release

.PHONY: help run build test regress soak check fmt lint deny doc fuzz bench config-file openapi-file postgres \
	drivers pgbouncer api api-tools release

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: postgres ## Install what is missing, build and start RustyDB (ARGS="--port 6000 …")
	$(CARGO) run --quiet --release -- $(ARGS)

build: ## Build the release binary
	$(CARGO) build --release

release: postgres pgbouncer $(RELEASED) ## Build what is shipped, for what it does most: takes half an hour

$(RELEASED): $(SOURCES)
	scripts/release

test: postgres drivers api-tools ## Run every test
	$(CARGO) test

regress: postgres build ## PostgreSQL's own regression suite, directly and through RustyDB, compared
	compat-tests/regress/run $(ARGS)

api: postgres api-tools ## Linters on the description of the API, and schemathesis on the server
	RUSTYDB_API_TOOLS_REQUIRED=1 SCHEMATHESIS_EXAMPLES=50 $(CARGO) test --test rest tools -- --include-ignored \
		--nocapture

soak: postgres drivers ## Mixed clients, then all drivers, for ten minutes each: nothing grows
	SOAK_SECONDS=600 $(CARGO) test --release --test clients soak
	SOAK_SECONDS=600 $(CARGO) test --release --test drivers soak -- --ignored --nocapture

check: fmt lint deny doc test ## Format, lints, dependencies, documentation, then every test

fmt: ## Check the format
	$(CARGO) fmt --check

lint: ## Clippy, warnings are errors
	$(CARGO) clippy --workspace --all-targets -- -D warnings

deny: ## Licences, bans and sources of the dependencies
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked --quiet cargo-deny --version $(DENY_VERSION)
	$(CARGO) deny --log-level error check licenses bans sources

doc: ## Build the documentation, warnings are errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet

fuzz: ## Fuzz each target for a minute (needs nightly Rust and cargo-fuzz)
	for target in frame_scanner startup_packet backend_message native_frame native_message native_value \
		native_codec rows_request sql_text msgpack_body; do \
		$(CARGO) +nightly fuzz run $$target -- -max_total_time=60 || exit 1; \
	done

bench: release ## Measure RustyDB beside PostgreSQL and PgBouncer (ARGS="--rounds 3 …")
	$(CARGO) build --release --package native-load --package rest-bench
	benches/run.py --binary $(RELEASED) $(ARGS)

config-file: ## Write config/rustydb.toml anew from the keys in src/config
	UPDATE_EXPECT=1 $(CARGO) test --lib the_checked_in_file_is_the_default_file

openapi-file: ## Write docs/openapi.json anew from the routes
	UPDATE_EXPECT=1 $(CARGO) test --lib the_checked_in_description_is_that_of_the_routes

postgres:
	@scripts/ensure-postgres

api-tools:
	@compat-tests/rest/setup

drivers:
	@compat-tests/drivers/setup

pgbouncer:
	@scripts/ensure-pgbouncer
