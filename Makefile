# Everything a newcomer needs: sudo make demo, sudo make test. The rest is for daily work.
.DEFAULT_GOAL := help
# A linter that fails behind a pipe fails.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c
VENV := .venv/bin
# Tests run side by side, a file at a time: most of them wait more than they compute, so one more than there are cores.
PROCESSES ?= $(shell echo $$(( $$(nproc) + 1 )))
# Seconds that `make fuzz` takes for each target.
SECONDS ?= 60

.PHONY: help packages compiled setup demo test test-clients test-full test-kernels fuzz lint format bench bench-geo bench-mask storm docs install uninstall clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

setup: packages compiled ## install packages, user, virtual environment, region tables and the compiled hot path (root)

packages:
	@tools/setup.sh dev

compiled: packages
	@$(VENV)/python -P tools/compile.py

demo: setup ## build a small world in namespaces and run an executor through the enforcer (root)
	@$(VENV)/enforcer demo

test: packages ## every test this host can run, and the linters (root)
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target compiled lint
	@$(VENV)/pytest --numprocesses $(PROCESSES) --dist loadfile --no-loadscope-reorder
	@$(VENV)/python -P tools/compile.py --test

test-full: setup ## what takes minutes: the whole catalogue of ways out, every fault that the doctor tells, new examples (root)
	@$(VENV)/python -c "import spacy" 2>/dev/null || $(VENV)/pip install --quiet --disable-pip-version-check --editable '.[ner]'
	@$(VENV)/pytest -m full
	@HYPOTHESIS_PROFILE=search $(VENV)/pytest --numprocesses $(PROCESSES) -m "not kernel and not world and not full and not clients"

test-clients: ## real clients of every family in an executor, against real servers; installs them (root)
	@tools/setup.sh clients
	@$(VENV)/python -P tools/compile.py
	@$(VENV)/pytest -m clients tests/clients

test-kernels: setup ## kernel tests and the escape probe on Debian's stock kernel, emulated (root)
	@$(VENV)/python -P tools/test_kernels.py

fuzz: setup ## every parser against a coverage-guided fuzzer (SECONDS=60 each, TARGETS= all of tests/fuzz/targets.py)
	@$(VENV)/python -c "import atheris" 2>/dev/null || $(VENV)/pip install --quiet --disable-pip-version-check --editable '.[fuzz]'
	@$(VENV)/python -m tests.fuzz.run --seconds $(SECONDS) $(TARGETS)

lint: packages ## ruff, mypy and the import contracts
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/mypy
	@$(VENV)/lint-imports --no-cache | tail -n 12

format: packages ## let ruff format the tree
	@$(VENV)/ruff format .
	@$(VENV)/ruff check --fix .

bench: setup ## connect(), HTTP and TLS beside HAProxy and mitmproxy, idle connections and floods, names (root)
	@benchmarks/setup.sh
	-@$(VENV)/python -m benchmarks.connect
	-@$(VENV)/python -m benchmarks.http
	-@$(VENV)/python -m benchmarks.tls
	-@$(VENV)/python -m benchmarks.idle
	-@$(VENV)/python -m benchmarks.resolver
	-@$(VENV)/python -m benchmarks.postgres
	-@$(VENV)/python -m benchmarks.mysql
	-@$(VENV)/python -m benchmarks.redis

bench-geo: setup ## how right the region tables are beside what providers publish, and what they cost (root)
	@$(VENV)/python -m benchmarks.geo

bench-mask: setup ## how much of what must not travel is found, and how fast, beside Presidio's recognizers
	@[ -x build/presidio/bin/python ] || { python3 -m venv build/presidio && build/presidio/bin/pip install --quiet presidio-analyzer; } || true
	@$(VENV)/python -m benchmarks.mask

storm: setup ## kill -9 of the supervisor, 200 times under fire; run nothing else of the enforcer's meanwhile (root)
	@$(VENV)/python -P tools/kill_storm.py

docs: packages ## write the command reference anew
	@$(VENV)/python tools/cli_reference.py

install: ## put configuration and policies into /etc/enforcer and the command into /usr/local/bin (root)
	@tools/setup.sh run
	@$(VENV)/python -P tools/compile.py
	@tools/install.sh

uninstall: ## take the enforcer off this host; records and configuration stay (root)
	@$(VENV)/enforcer uninstall --yes
	@rm -f /usr/local/bin/enforcer

clean: ## remove what setup made in this directory
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
