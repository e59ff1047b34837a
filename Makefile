# Two commands for newcomers: `make demo` and `make test`. PYTHON=/path/to/python chooses the interpreter.

OLD_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
# pyenv's shims are on PATH even where they lead nowhere: ask each candidate before believing in it.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	$$p -c '$(OLD_ENOUGH)' 2>/dev/null && { command -v $$p; exit; }; done)

DEMO = .venv
TEST = .venv-test
BENCH = .venv-bench
BIN = $(TEST)/bin

.PHONY: help demo test suite lint soak bench clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   serve the chat on http://127.0.0.1:8000"
	@echo "make test   lint, types, and every test on trio and on asyncio"
	@echo "make lint   lint and types only"
	@echo "make soak   10,000 clients that vanish, and what the server holds afterwards"
	@echo "make bench  every figure of docs/performance.md, against the peers; an hour"
	@echo "make clean  remove what these made"

# At a terminal, job control gives Ctrl-C to the demo alone, so that make reports the demo's own exit code.
demo: $(DEMO)/.ready
	@if [ -t 0 ]; then set -m; $(DEMO)/bin/trichannels demo; else exec $(DEMO)/bin/trichannels demo; fi

test: $(TEST)/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./.ci/suite

lint: $(TEST)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

soak: $(TEST)/.ready
	$(BIN)/python benchmarks/soak.py --connects 10000

bench: $(BENCH)/.ready $(BENCH)/node
	$(BENCH)/bin/python -m benchmarks.bench

# Node is one of the peers, and is left out where there is none.
$(BENCH)/node: $(BENCH)/.ready
	@mkdir -p $@
	@command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix $@ ws@8 || echo "Node's ws is left out: npm could not get it"

$(DEMO)/.ready: EXTRA = serve
$(TEST)/.ready: EXTRA = dev
$(BENCH)/.ready: EXTRA = bench
$(DEMO)/.ready $(TEST)/.ready $(BENCH)/.ready: pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(OLD_ENOUGH)' 2>/dev/null; then \
		echo "trichannels needs Python 3.11 or newer: install it, or say where it is with PYTHON=/path/to/python" >&2; exit 2; fi
	@echo "Making $(@D) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(BENCH) .venv-[23].* .venv-node dist build .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache
