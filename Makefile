# martd: build it, make real marts with dbt, serve them, test everything.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

export PARQUET_DIR ?= $(CURDIR)/data/parquet
LISTEN ?= 127.0.0.1:8321
VARS ?= {}
TARGET ?= embedded
SOAK ?= 2m
TIME ?= 10m
PYTHON ?= python3

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
# ARCH=aarch64 on another machine builds with a cross toolchain.
HOST_ARCH := $(shell uname -m)
ARCH ?= $(HOST_ARCH)
TRIPLE := $(ARCH)-unknown-linux-gnu
IS_CROSS := $(if $(filter-out $(HOST_ARCH),$(ARCH)),yes)
# What released binaries have beyond the smallest one, which `make run` builds.
FEATURES ?= object-store
CARGO_FEATURES = $(addprefix --features ,$(FEATURES))
MARTD ?= $(TARGET_DIR)/$(if $(IS_CROSS),$(TRIPLE)/)release/martd
VENV := .venv
PYTHON_TEST := MARTD_BIN=$(TARGET_DIR)/debug/martd $(CURDIR)/$(VENV)/bin/python
DBT := $(CURDIR)/$(VENV)/bin/dbt
DBT_SOURCES := $(shell find dbt -type f \( -name '*.sql' -o -name '*.yml' \) -not -path 'dbt/target/*' -not -path 'dbt/dbt_packages/*')
DBT_PACKAGES := dbt/dbt_packages
LEDGER := $(PARQUET_DIR)/mart/_builds

# The official library, as it is published for Node.js: the only place that has it as a package.
DUCKDB_VERSION := 1.5.6-r.1
DUCKDB_PLATFORM_x86_64 := x64
DUCKDB_SHA512_x86_64 := 21772b64913a904a8cd19e30c1d5671811d7fdface4b7dd53cd0300d743f43e16cf386f4e7c41ef78721ac208870d2651bc6375072145387817824315b998dd5
DUCKDB_PLATFORM_aarch64 := arm64
DUCKDB_SHA512_aarch64 := de39d46838a5d41ac5ffabc067055a227275c6805a5861c1e0f0e2527cc958a0a8f1af132f1f63eff80fc8f97f5064417edad822e4e28516527c5e2658c82d58
DUCKDB_PACKAGE := @duckdb/node-bindings-linux-$(DUCKDB_PLATFORM_$(ARCH))@$(DUCKDB_VERSION)
DUCKDB_LIB_DIR ?= $(CURDIR)/target/duckdb$(if $(IS_CROSS),-$(ARCH))
export DUCKDB_LIB_DIR
DUCKDB := $(DUCKDB_LIB_DIR)/libduckdb.so

# What is released names no folder of the machine that built it, in panics and in line tables neither.
CARGO_DIR := $(or $(CARGO_HOME),$(HOME)/.cargo)
REMAP := $(CARGO_DIR)/registry/src=/crates $(TARGET_DIR)=/target $(CURDIR)=/martd
RELEASE := RUSTFLAGS="$(strip $(RUSTFLAGS) $(REMAP:%=--remap-path-prefix=%))" \
	CFLAGS="$(strip $(CFLAGS) $(REMAP:%=-ffile-prefix-map=%))" cargo
BUILD_FOLDERS ?= $(CARGO_DIR) $(TARGET_DIR) $(CURDIR)
LICENSES := $(TARGET_DIR)/$(if $(IS_CROSS),$(TRIPLE)/)THIRD-PARTY-LICENSES

PREFIX ?= /usr/local
COMPRESS ?= gzip -9
DIST_DIR ?= $(TARGET_DIR)/dist
DIST_NAME := martd-$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-linux-$(ARCH)
STRIP := $(if $(IS_CROSS),$(ARCH)-linux-gnu-)strip
ROOT := $(DESTDIR)
BIN := $(if $(FLAT),,$(PREFIX)/bin)
LIB := $(if $(FLAT),,$(PREFIX)/lib/martd)
DOC := $(if $(FLAT),,$(PREFIX)/share/doc/martd)
DBT_PACKAGE := $(if $(FLAT),,$(PREFIX)/share/martd)/dbt
SHARE := $(ROOT)$(PREFIX)/share
UNIT := $(if $(FLAT),/systemd,$(PREFIX)/lib/systemd/system)

.PHONY: help
help: ## Show this help
	@echo "martd: serves a directory of Parquet marts as one consistent database"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Variables: PARQUET_DIR, LISTEN, VARS (dbt vars, e.g. VARS='{transactions: 100000}')," \
		"TARGET (of dbt: embedded or postgres)," \
		"SOAK (how long, e.g. SOAK=10m), TIME (of fuzz), SEED (of both, as a run printed it), DIR (of foreign)," \
		"FEATURES (of martd: object-store or nothing)"

.PHONY: run
run: FEATURES :=
run: build $(LEDGER) ## Build martd, make marts with dbt, and serve them
	@scripts/run $(MARTD) $(LISTEN)

.PHONY: build
build: $(DUCKDB) need-cargo $(if $(IS_CROSS),need-cross,need-cc) $(LICENSES) ## Build target/release/martd
	@echo "==> building martd, about five minutes on two cores the first time"
ifdef IS_CROSS
	CARGO_TARGET_$(shell echo $(TRIPLE) | tr a-z- A-Z_)_LINKER=$(ARCH)-linux-gnu-gcc $(RELEASE) build --release --locked $(CARGO_FEATURES) --target $(TRIPLE)
else
	$(RELEASE) build --release --locked $(CARGO_FEATURES)
endif

$(LICENSES): Cargo.lock licenses/duckdb.txt scripts/third-party-licenses | need-cargo
	@mkdir -p "$(@D)"
	@scripts/third-party-licenses $(TRIPLE) "$@"

.PHONY: dist
dist: build tarball ## Make target/dist/martd-VERSION-PLATFORM.tar.gz, which runs from any directory

.PHONY: tarball
tarball:
	@rm -rf "$(DIST_DIR)/$(DIST_NAME)"
	@$(MAKE) --no-print-directory install DESTDIR="$(DIST_DIR)/$(DIST_NAME)" PREFIX= FLAT=yes
	tar --create --use-compress-program="$(COMPRESS)" --file "$(DIST_DIR)/$(DIST_NAME).tar.gz" \
		--directory "$(DIST_DIR)" --sort=name --owner=0 --group=0 --numeric-owner "$(DIST_NAME)"
	@echo "$(DIST_DIR)/$(DIST_NAME).tar.gz"

.PHONY: wheel
wheel: build wheel-of-build ## Make target/dist/martd-VERSION-PLATFORM.whl, for pip, pipx and uvx (ARCH=aarch64: for arm64)

# Line tables would be half of the wheel.
.PHONY: wheel-of-build
wheel-of-build:
	@rm -rf "$(DIST_DIR)/wheel"
	@$(MAKE) --no-print-directory install DESTDIR="$(DIST_DIR)/wheel" PREFIX= FLAT=yes STRIPPED=yes
	@scripts/make-wheel "$(DIST_DIR)/wheel" "$(DIST_DIR)" $(LEVEL)
	@rm -rf "$(DIST_DIR)/wheel"

.PHONY: state-dir
state-dir:
	install -d -m 0700 "$(ROOT)/var/lib/martd"

.PHONY: compose-files
compose-files: ## Make what docker-compose.yml mounts: data/parquet, data/legacy, tokens and .env
	@scripts/compose-files

# What is built is installed; nothing is built here, so that it can be run as root. DuckDB's library lies
# where the binary looks for it: beside it (FLAT, as in the tarball), or in lib/martd.
.PHONY: install
install: $(LICENSES) ## Install what build has made into PREFIX (/usr/local), below DESTDIR
	@[ -x "$(MARTD)" ] || { echo "make: $(MARTD) is not there: run make build first" >&2; exit 1; }
	install -d "$(ROOT)$(BIN)" "$(ROOT)$(LIB)" "$(ROOT)$(DOC)" "$(ROOT)$(UNIT)"
	install -m 0755 "$(MARTD)" "$(ROOT)$(BIN)/martd"
	$(if $(STRIPPED),$(STRIP) --strip-debug "$(ROOT)$(BIN)/martd")
	scripts/forget-build-path "$(ROOT)$(BIN)/martd" $(BUILD_FOLDERS)
	install -m 0644 "$(DUCKDB)" "$(ROOT)$(LIB)/libduckdb.so"
	install -m 0644 README.md CHANGELOG.md LICENSE "$(LICENSES)" "$(ROOT)$(DOC)"
ifndef IS_CROSS
	"$(ROOT)$(BIN)/martd" completions bash | install -D -m 0644 /dev/stdin "$(SHARE)/bash-completion/completions/martd"
	"$(ROOT)$(BIN)/martd" completions zsh | install -D -m 0644 /dev/stdin "$(SHARE)/zsh/site-functions/_martd"
	"$(ROOT)$(BIN)/martd" completions fish | install -D -m 0644 /dev/stdin "$(SHARE)/fish/vendor_completions.d/martd.fish"
endif
	install -d "$(ROOT)$(DBT_PACKAGE)/macros"
	install -m 0644 dbt/package/dbt_project.yml "$(ROOT)$(DBT_PACKAGE)"
	install -m 0644 dbt/package/macros/*.sql "$(ROOT)$(DBT_PACKAGE)/macros"
	install -d "$(ROOT)$(DOC)/docs" && install -m 0644 docs/* "$(ROOT)$(DOC)/docs"
	for unit in martd martd-mirror; do \
		sed 's#/usr/local/bin/martd#$(if $(FLAT),/usr/local,$(PREFIX))/bin/martd#' systemd/$$unit.service \
			> "$(ROOT)$(UNIT)/$$unit.service"; done
	install -m 0644 systemd/martd.socket "$(ROOT)$(UNIT)"
ifdef FLAT
	install -m 0644 systemd/martd.env systemd/martd-mirror.env systemd/martd.sysusers "$(ROOT)$(UNIT)"
else
	install -D -m 0644 systemd/martd.sysusers "$(ROOT)$(PREFIX)/lib/sysusers.d/martd.conf"
	for env in martd martd-mirror; do [ -e "$(ROOT)/etc/martd/$$env.env" ] || \
		install -D -m 0644 systemd/$$env.env "$(ROOT)/etc/martd/$$env.env"; done
endif

.PHONY: dbt
dbt: $(DBT_PACKAGES) ## Rebuild the marts; a running martd picks them up
	$(USE_POSTGRES) cd dbt && $(DBT) build --target $(TARGET) --vars '$(VARS)'

$(DBT_PACKAGES): $(VENV)/dbt-ready dbt/packages.yml
	cd dbt && $(DBT) --quiet deps
	@touch "$@"

.PHONY: bootstrap
bootstrap: build $(VENV)/dbt-ready ## Make the directories, and see that dbt has DuckDB's PostgreSQL extension
	@$(MARTD) bootstrap
	@cd dbt/plugins && $(CURDIR)/$(VENV)/bin/python -c \
		'import duckdb, postgres_sources as p; duckdb.connect().load_extension(str(p.extension())); print(p.extension())'

.PHONY: manifest
manifest: $(DBT_PACKAGES) ## Write dbt/target/manifest.json, which Dagster loads
	cd dbt && $(DBT) --quiet parse --target $(TARGET)

# The target postgres without POSTGRES_HOST means a database of one's own.
POSTGRES_DIR := $(CURDIR)/data/postgres
POSTGRES := $(CURDIR)/$(VENV)/bin/python dbt/postgres/server.py
START_POSTGRES := @settings=$$($(POSTGRES) start "$(POSTGRES_DIR)") && eval "$$settings" &&
ifeq ($(TARGET)-$(POSTGRES_HOST),postgres-)
dbt: postgres
USE_POSTGRES := $(START_POSTGRES)
endif

.PHONY: postgres
postgres: $(VENV)/ready $(DBT_PACKAGES) ## Start a PostgreSQL in data/postgres, and fill it with VARS when it is new or REPLACE=true
	$(START_POSTGRES) cd dbt && $(DBT) --quiet run-operation seed_postgres --target postgres \
		--args '{replace: $(or $(REPLACE),false)}' --vars '$(VARS)'

.PHONY: stop-postgres
stop-postgres: $(VENV)/ready
	@$(POSTGRES) stop "$(POSTGRES_DIR)"

$(LEDGER): $(DBT_PACKAGES) $(DBT_SOURCES)
	@echo "==> building the marts with dbt, about half a minute"
	@$(MAKE) --no-print-directory dbt
	@touch "$@"

.PHONY: check
check: $(DUCKDB) need-cargo need-cc ## Format, lints and documentation
	cargo fmt --check
	cargo clippy --locked --all-targets --all-features -- -D warnings
	cargo clippy --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --all-features --no-deps --document-private-items --quiet
	@if cargo deny --version >/dev/null 2>&1; then cargo deny --locked check; \
		else echo "cargo deny is not installed: skipped (cargo install cargo-deny)"; fi
	@if cargo machete --version >/dev/null 2>&1; then cargo machete; \
		else echo "cargo machete is not installed: skipped (cargo install cargo-machete)"; fi

.PHONY: test
test: check test-rust test-docs test-dbt test-client test-backend test-answers test-foreign test-compose test-kubernetes test-mirror ## Run everything that can be tested here

.PHONY: test-rust
test-rust: $(DUCKDB) $(VENV)/ready need-cargo need-cc
	@if cargo nextest --version >/dev/null 2>&1; \
		then cargo nextest run --locked $(CARGO_FEATURES) --no-fail-fast; \
		else cargo test --locked $(CARGO_FEATURES) --no-fail-fast; fi

# The sqllogictest files are a part of test-rust, and run here too for who asks for the answers alone.
ANSWERS := cd tests/answers && $(PYTHON_TEST) -m
.PHONY: test-answers
test-answers: test-martd ## Check answers against DuckDB: files of statements, TPC-H, ClickBench, SSB, random ones
	cargo test --locked $(CARGO_FEATURES) --test answers
	cd tests/answers && $(CURDIR)/$(VENV)/bin/python -m mypy
	$(ANSWERS) compare --scale 0.01
	$(ANSWERS) fuzz --seed 2026 --time 60s --restart
	$(ANSWERS) fuzz --seed 2027 --time 60s --on-disk

# The tests take the same seeds in each run; here they take others.
.PHONY: fuzz
fuzz: test-martd $(VENV)/ready ## Run all that is random for TIME=10m with new seeds, which are printed (SEED=N: once with that one)
	PYTHON_TEST="$(PYTHON_TEST)" scripts/fuzz $(TIME) $(SEED)

# The marts of the examples are built once, and again when the project changes.
DOCS := $(TARGET_DIR)/docs
.PHONY: test-docs
test-docs: test-martd $(DOCS)/ready ## Run the examples of README and docs, and follow their links
	$(CURDIR)/$(VENV)/bin/python -m unittest discover --start-directory tests/docs
	$(CURDIR)/$(VENV)/bin/python tests/docs/check.py --martd $(TARGET_DIR)/debug/martd --marts $(DOCS)/parquet

$(DOCS)/ready: $(DBT_PACKAGES) $(DBT_SOURCES)
	@rm -rf "$(DOCS)" && mkdir -p "$(DOCS)/parquet/mart"
	cd dbt && PARQUET_DIR="$(DOCS)/parquet" $(DBT) --quiet build --target embedded --target-path "$(DOCS)/dbt" --log-path "$(DOCS)/dbt"
	@touch "$@"

# The files are committed; tests/foreign/make.py writes them.
FOREIGN := cd tests/foreign && $(PYTHON_TEST) check.py
.PHONY: test-foreign
test-foreign: test-martd
	cd tests/foreign && $(CURDIR)/$(VENV)/bin/python -m mypy
	$(FOREIGN) files

.PHONY: foreign
foreign: test-martd ## Serve the Parquet files below DIR, and compare with what DuckDB reads in them
	@[ -d "$(DIR)" ] || { echo "make: set DIR to a folder with Parquet files" >&2; exit 2; }
	$(FOREIGN) "$(abspath $(DIR))"

.PHONY: screenshots
screenshots: $(DUCKDB) $(VENV)/ready need-cargo need-cc ## Take the pictures of the status page in docs/ anew
	SCREENSHOTS=1 cargo test --locked $(CARGO_FEATURES) --test it -- page::

# The tests in Python start the martd of test-rust's profile.
.PHONY: test-martd
test-martd: $(DUCKDB) $(VENV)/ready need-cargo need-cc
	cargo build --locked $(CARGO_FEATURES) --bin martd

.PHONY: test-dbt
test-dbt: test-martd
	$(PYTHON_TEST) -m unittest discover --start-directory dbt/checks

# Each with the DuckDB that it may meet: the oldest that can hash, and the newest. `test-dbt` has dbt 1.11.
DBT_VERSIONS := 1.9:duckdb~=1.1.0 1.10:duckdb
.PHONY: test-dbt-versions
test-dbt-versions: ## Test the dbt package with older versions of dbt, which are installed into target/dbt
	@for version in $(DBT_VERSIONS); do dbt=$${version%%:*}; venv="$(TARGET_DIR)/dbt/$$dbt"; echo "dbt $$dbt"; \
		$(PYTHON) -m venv "$$venv"; \
		"$$venv/bin/pip" install --quiet --disable-pip-version-check \
			"dbt-core~=$$dbt.0" "dbt-duckdb~=$$dbt.0" "$${version#*:}"; \
		(cd dbt/checks && "$$venv/bin/python" -m unittest test_package test_package_marts); \
	done

.PHONY: test-client
test-client: test-martd $(VENV)/generated/ready ## Check the Python client, and clients that are made of /openapi.json
	cd clients/python && $(PYTHON_TEST) -m mypy && $(PYTHON_TEST) -m pytest -q
	cd clients/generated && $(PYTHON_TEST) -m pytest -q

.PHONY: test-backend
test-backend: test-martd
	cd examples/backend && $(PYTHON_TEST) -m pytest -q

.PHONY: test-compose
test-compose: $(VENV)/ready
	$(VENV)/bin/python -m unittest discover --start-directory tests/containers

# Offline: rendered/ is compared with what kubectl or kustomize renders where one is installed.
.PHONY: test-kubernetes
test-kubernetes: $(VENV)/ready ## Check deploy/kubernetes against the published schemas and the documents
	cd tests/kubernetes && $(CURDIR)/$(VENV)/bin/python -m unittest

# Against a real store. BUILDS is how many are published, GONE how many seconds the store is gone.
MIRROR := cd tests/mirror && $(PYTHON_TEST) -W ignore::ResourceWarning -m unittest
.PHONY: test-mirror
test-mirror: test-martd
	cd tests/mirror && $(CURDIR)/$(VENV)/bin/python -m mypy
	$(MIRROR)

.PHONY: mirror-soak
mirror-soak: test-martd ## Publish BUILDS=500 to an object store that two martd mirror; prints figures
	cd tests/mirror && BUILDS=$(or $(BUILDS),500) GONE=$(or $(GONE),60) SEED=$(or $(SEED),$$RANDOM) \
		$(PYTHON_TEST) -W ignore::ResourceWarning -m unittest test_mirror.Histories test_mirror.Failures

.PHONY: test-containers
test-containers: test-martd $(LICENSES) ## Build the images and run docker-compose.yml for real (as root, at most 15 minutes)
	$(VENV)/bin/python tests/containers/live.py $(if $(IF_CHANGED),--if-changed) $(TARGET_DIR)/debug/martd $(LICENSES)

.PHONY: soak
soak: $(DUCKDB) need-cargo need-cc ## Writers and readers of every kind for SOAK=2m; prints figures
	SOAK=$(SOAK) TEST_SEED=$(or $(SEED),$$RANDOM) $(RELEASE) test --release --locked $(CARGO_FEATURES) --test it -- --exact --nocapture \
		history::every_answer_is_one_state_that_writers_finished

# What martd is compared with lives in an environment of its own. Data that is there is used again.
BENCH := $(TARGET_DIR)/bench
BENCH_ROWS := $(if $(filter tpch clickbench,$(ONLY)),,1000 100000 $(if $(QUICK),,1000000))
BENCH_DATA := $(foreach rows,$(BENCH_ROWS),$(BENCH)/data/$(rows)/mart/_builds)
BENCH_REPORT := $(if $(QUICK),$(BENCH)/QUICK.md,$(if $(ONLY),$(BENCH)/$(ONLY).md,benches/RESULTS.md))

.PHONY: bench
bench: build need-wrk $(BENCH)/venv/ready $(BENCH_DATA) ## Compare with other servers and DuckDB itself (QUICK=1: a first look; ONLY=tpch: one part)
	$(RELEASE) build --release --locked $(CARGO_FEATURES) --example in_process
	$(BENCH)/venv/bin/python benches/compare --data $(BENCH)/data \
		--martd $(MARTD) --in-process $(TARGET_DIR)/release/examples/in_process \
		$(if $(QUICK),--quick) $(if $(ONLY),--only $(ONLY)) --output $(BENCH_REPORT)

$(BENCH)/data/%/mart/_builds: $(DBT_PACKAGES) $(DBT_SOURCES)
	@mkdir -p "$(@D)"
	cd dbt && PARQUET_DIR="$(BENCH)/data/$*" $(DBT) --quiet build --target embedded --vars '{transactions: $*}' \
		--target-path "$(BENCH)/dbt" --log-path "$(BENCH)/dbt"
	@touch "$@"

$(BENCH)/venv/ready: benches/compare/requirements.txt
	@$(call need,$(PYTHON),Python 3.11 or later with venv)
	$(PYTHON) -m venv $(BENCH)/venv
	$(BENCH)/venv/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: duckdb
duckdb: $(DUCKDB) ## Fetch DuckDB's shared library (done by build)

$(DUCKDB):
	@[ "$$(uname -s)" = Linux ] && [ -n "$(DUCKDB_SHA512_$(ARCH))" ] || { echo "make: no library is known for $$(uname -s) $(ARCH);" \
		"set DUCKDB_LIB_DIR to a folder with DuckDB 1.5.6's libduckdb.so," \
		"or build with DUCKDB_DOWNLOAD_LIB=1 cargo build" >&2; exit 1; }
	@$(call need,npm,Node.js with npm)
	@mkdir -p "$(@D)"
	@scripts/fetch-duckdb "$(DUCKDB_PACKAGE)" "$(DUCKDB_SHA512_$(ARCH))" "$@"

# What makes marts: dbt and DuckDB alone, a fifth of what the tests need.
PIP_INSTALL = $(VENV)/bin/pip install --quiet --disable-pip-version-check $(addprefix --requirement ,$(filter %.txt,$^))
$(VENV)/dbt-ready: dbt/requirements.txt
	@$(call need,$(PYTHON),Python 3.11 or later with venv)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $(PYTHON) is $$($(PYTHON) --version); dbt needs 3.11 or later" \
		"(set PYTHON)" >&2; exit 1; }
	@echo "==> installing dbt into $(VENV), 240 MB, about half a minute"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP_INSTALL)
	@touch $@

$(VENV)/ready: dbt/requirements.txt dbt/requirements-dagster.txt tests/requirements.txt examples/backend/requirements.txt | $(VENV)/dbt-ready
	@echo "==> installing what the tests need into $(VENV), 900 MB more, about two minutes"
	@$(PIP_INSTALL)
	@touch $@

$(VENV)/generated/ready: clients/generated/package.json clients/generated/package-lock.json | $(VENV)/ready
	@$(call need,npm,Node.js with npm)
	@mkdir -p "$(@D)"
	cp $^ "$(@D)"
	cd "$(@D)" && npm ci --silent --no-fund --no-audit
	@touch $@

.PHONY: name-of-duckdb
name-of-duckdb:
	@echo "$(DUCKDB_PACKAGE)"

.PHONY: need-cargo need-cc
need-cargo:
	@$(call need,cargo,Rust 1.88 or later with cargo)
need-cc:
	@$(call need,cc,a C toolchain such as gcc)
.PHONY: need-cross
need-cross:
	@rustup target list --installed | grep --quiet --line-regexp $(TRIPLE) || { echo "make: Rust's library for $(ARCH) is" \
		"missing: rustup target add $(TRIPLE)" >&2; exit 1; }
	@$(call need,$(ARCH)-linux-gnu-gcc,a C cross toolchain (Debian and Ubuntu: apt install gcc-$(subst _,-,$(ARCH))-linux-gnu))
.PHONY: need-wrk
need-wrk:
	@$(call need,wrk,the load generator wrk (Debian and Ubuntu: apt install wrk))

.PHONY: clean
clean: ## Remove what was built and the marts in data/
	@if [ -d "$(POSTGRES_DIR)" ] && [ -d $(VENV) ]; then $(POSTGRES) stop "$(POSTGRES_DIR)"; fi
	rm -rf target $(VENV) data dbt/target dbt/logs dbt/dbt_packages

need = command -v $(1) >/dev/null || { echo "make: $(1) is missing: install $(2)" >&2; exit 1; }
