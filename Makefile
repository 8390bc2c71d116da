# Needs make (3.81 will do) and Python 3.11 or newer; everything else goes into .venv.

BIN := .venv/bin
INSTALLED := .venv/.installed

# Everything is said once, in the order of the text; nothing is made by suffix rules.
.SUFFIXES:
.DEFAULT_GOAL := help
.PHONY: demo test test-crash test-forgery check servers test-servers bench docs lock clean help

# Hundreds of tests start a process that imports what was compiled before.
unexport PYTHONDONTWRITEBYTECODE

# A whole run takes a process for each core, up to four. Each begins with a stretch of the files; who is done takes from who is not.
PARALLEL := -n logical --maxprocesses 4 --dist worksteal

$(INSTALLED): requirements/runtime.txt requirements/dev.txt pyproject.toml tools/install.sh
	@PYTHON='$(PYTHON)' tools/install.sh

demo: $(INSTALLED) ## run the example: a governed agent on a real log, from start to verified trail
	@$(BIN)/symbi demo

test: $(INSTALLED) ## run every test that needs no server
	$(BIN)/python -m pytest $(PARALLEL) -m 'not servers'

check: $(INSTALLED) ## lint, format, types, floors, docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/python -m pytest -q tests/architecture/test_docs.py

test-crash: $(INSTALLED) ## kill the runtime at every named point over a thousand operations each, and the whole storm
	CRASH_TESTS=full $(BIN)/python -m pytest tests/integration/test_crash_points.py tests/integration/test_storm.py tests/integration/test_knowledge_crash.py

test-forgery: $(INSTALLED) ## give readers of messages more than a hundred thousand forged ones
	FORGERY_TESTS=full $(BIN)/python -m pytest tests/security/test_message_forgery.py

servers: $(INSTALLED) ## install what `make test-servers` needs: Docker Engine, gVisor, Node with servers of others, an oracle
	@tools/servers.sh
	@PYTHON='$(BIN)/python' tools/oracles.sh

test-servers: $(INSTALLED) ## run the tests that need real servers; a missing server fails them
	$(BIN)/python -m pytest -m servers

bench: $(INSTALLED) ## measure, and write docs/performance.md
	@tools/install.sh requirements/bench.txt
	@$(BIN)/symbi bench --write

docs: $(INSTALLED) ## write the generated pages, then check links and snippets
	$(BIN)/python tools/docs.py --write
	$(BIN)/python -m pytest -q tests/architecture/test_docs.py

lock: ## lock the versions that pyproject.toml allows; UPGRADE=1 takes the newest
	@tools/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## remove .venv, caches and builds
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
	find src tests tools examples -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' Makefile
