# Two commands for newcomers: `make demo` and `make test`. PYTHON=/path/to/python chooses the interpreter.

OLD_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
# The newest, also of those that pyenv has. Its shims are on PATH even where they lead nowhere: ask each candidate
# before believing in it.
PYENV = $$HOME/.pyenv/versions
PYTHON ?= $(shell for p in python3.13 $(PYENV)/3.13.*/bin/python python3.12 $(PYENV)/3.12.*/bin/python \
	python3.11 $(PYENV)/3.11.*/bin/python python3 python; do \
	$$p -c '$(OLD_ENOUGH)' 2>/dev/null && { command -v $$p; exit; }; done)

DEMO = .venv
TEST = .venv-test
BENCH = .venv-bench
BIN = $(TEST)/bin

.PHONY: help demo demo-django test suite lint docs soak chaos bench bench-redis bench-django clean
.DEFAULT_GOAL := help

help:
	@echo "make demo   serve the chat on http://127.0.0.1:8000"
	@echo "make demo-django  serve a Django project with a chat, and two users to log in as"
	@echo "make test   lint, types, and every test on trio and on asyncio"
	@echo "make lint   lint and types only"
	@echo "make docs   the documentation as a site, in docs/_build/html"
	@echo "make soak   10,000 clients that vanish, and what the server holds afterwards"
	@echo "make soak-django  2,000 sockets that write to PostgreSQL while clients vanish and it restarts; a minute or two"
	@echo "make chaos  1,000 faults on Redis servers, sentinels and clusters under load; ten minutes"
	@echo "make bench  every figure of docs/performance.md, against the peers; an hour"
	@echo "make bench-redis  the Redis layer, against channels_redis, Litestar and redis-benchmark"
	@echo "make bench-django  Django on the bridge, against Channels, uvicorn and daphne; four minutes"
	@echo "make clean  remove what these made"

# At a terminal, job control gives Ctrl-C to the demo alone, so that make reports the demo's own exit code.
demo: $(DEMO)/.ready
	@if [ -t 0 ]; then set -m; $(DEMO)/bin/trichannels demo; else exec $(DEMO)/bin/trichannels demo; fi

# A database of its own, made once. DATABASE=postgresql://… and REDIS=redis://… take the place of SQLite and of memory.
demo-django: $(DEMO)/.ready
	@[ -z "$$DATABASE" ] || $(DEMO)/bin/python -m pip install --quiet --disable-pip-version-check 'psycopg[binary]'
	@cd examples/django_chat && python=$(CURDIR)/$(DEMO)/bin/python && $$python manage.py migrate --verbosity 0 \
		&& $$python manage.py seed && exec $$python manage.py runserver $(ADDRESS)

test: $(TEST)/.ready
	@PATH="$(CURDIR)/$(BIN):$$PATH" ./.ci/suite

lint: $(TEST)/.ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# A warning, such as a link that leads nowhere, is an error.
docs: $(TEST)/.ready
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -d docs/_build/doctrees docs docs/_build/html

soak: $(TEST)/.ready
	$(BIN)/python benchmarks/soak.py --connects 10000

soak-django: $(TEST)/.ready
	$(BIN)/python -m tests.database.soak

# Each prints its seed, and what it counted; the first one that finds anything wrong ends the rest.
chaos: $(TEST)/.ready
	$(BIN)/python -m tests.chaos --seed 1 --faults 350 --topology standalone --redis 7
	$(BIN)/python -m tests.chaos --seed 2 --faults 200 --topology standalone --redis 8
	$(BIN)/python -m tests.chaos --seed 3 --faults 200 --topology sentinel --redis 7
	$(BIN)/python -m tests.chaos --seed 4 --faults 250 --topology cluster --redis 8
	$(BIN)/python -m tests.chaos --seed 5 --faults 50 --group worker

bench-redis: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.redis_layer
	$(BENCH)/bin/python -m benchmarks.redis_client
	$(BENCH)/bin/python -m benchmarks.presence

bench-django: $(BENCH)/.ready
	$(BENCH)/bin/python -m benchmarks.django_bridge

bench: $(BENCH)/.ready $(BENCH)/node
	$(BENCH)/bin/python -m benchmarks.bench

# Node is one of the peers, and is left out where there is none.
$(BENCH)/node: $(BENCH)/.ready
	@mkdir -p $@
	@command -v npm >/dev/null && npm install --silent --no-audit --no-fund --prefix $@ ws@8 || echo "Node's ws is left out: npm could not get it"

$(DEMO)/.ready: EXTRA = django,redis,serve
$(TEST)/.ready: EXTRA = dev
$(BENCH)/.ready: EXTRA = bench
$(DEMO)/.ready $(TEST)/.ready $(BENCH)/.ready: pyproject.toml
	@if [ -z "$(PYTHON)" ] || ! "$(PYTHON)" -c '$(OLD_ENOUGH)' 2>/dev/null; then \
		echo "trichannels needs Python 3.11 or newer: install it, or say where it is with PYTHON=/path/to/python" >&2; exit 2; fi
	@echo "Making $(@D) with $(PYTHON)"
	@"$(PYTHON)" -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --no-compile --disable-pip-version-check --editable '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf $(DEMO) $(TEST) $(BENCH) .venv-[23].* .venv-node .lane-*.log dist build .coverage .coverage.* htmlcov .mypy_cache .ruff_cache .pytest_cache docs/_build
