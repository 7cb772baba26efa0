# Every target sets up what it needs. Requires only Python 3.11 or newer, pip, make and git.
#
#   make serve     run the server            (ARGS="--port 4000" passes options on)
#   make web       build the pages at /, /console and /docs; `make serve` does it, too
#   make install   only set up .venv/; the command is then .venv/bin/reileta
#   make test      every test, on all cores  (ARGS="-k seats" chooses, JOBS=1 takes one core)
#   make split     run the end-to-end tests against a gateway, a registry and a host of instances
#   make check     format, lint, types, imports, and the tests without a database
#   make cluster   run three nodes that act as one server, to try it (SECONDS=60 ends it)
#   make roles     run registry, gateway and a host of instances as processes of their own
#   make chaos     run the long fault tests (MINUTES=15)
#   make bench     run the benchmarks of this server and its peers
#   make docs      build the documentation's site in build/docs/site
#   make format    format the sources
#   make lock      choose new versions of all dependencies
#   make clean     remove everything that make has created, but never data/

.SHELLFLAGS := -euc
.DELETE_ON_ERROR:
# The tools say what they do; the commands themselves are shown by `make -n`.
.SILENT:
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
# One more than there are cores: many tests wait for a deadline.
JOBS ?= $(shell expr 1 + $$(nproc 2>/dev/null || getconf _NPROCESSORS_ONLN))
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3.14 python3 python; do \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& { echo "$$python"; break; }; done)

# The environment is created once, and updated when a lock or the project's metadata changes.
USE := $(VENV)/.installed
DEVELOP := $(VENV)/.installed-dev
PROJECT := pyproject.toml reileta/__init__.py

.PHONY: help serve web pages install test split check cluster roles chaos bench docs format lock clean

help:
	sed -n 's/^#   //p' Makefile

# Its client has a button to look around as a guest.
serve: export REILETA_TEMPORARY_ACCOUNTS ?= 100
serve: $(USE) pages
	exec $(BIN)/reileta serve $(ARGS)

install: $(USE)
	echo "$(BIN)/reileta is ready: $$($(BIN)/reileta --version)"

# clients/web: with Node 20 or newer, or with one that it gets by pip. `pages` says what is wrong, and
# lets the server run without them.
web: $(USE)
	$(BIN)/python clients/web/build_pages.py

pages: $(USE)
	$(BIN)/python clients/web/build_pages.py --optional

# Each worker has a PostgreSQL of its own.
test: $(DEVELOP)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

# tests/e2e/split_roles.py says how.
split: $(DEVELOP)
	REILETA_TEST_ROLES=split $(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(or $(ARGS),tests/e2e)

check: $(DEVELOP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m "not slow and not database" $(ARGS)

# Three nodes, NATS and PostgreSQL on loopback, from the locked wheels.
cluster: $(DEVELOP)
	exec $(BIN)/python -m tests.cluster $(if $(SECONDS),--seconds $(SECONDS))

roles: $(DEVELOP)
	exec $(BIN)/python -m tests.cluster --roles $(if $(SECONDS),--seconds $(SECONDS))

# tests/chaos/README.md says what it runs.
MINUTES ?= 15
chaos: $(DEVELOP)
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(ARGS)

bench: $(DEVELOP)
	$(BIN)/python -m benchmarks.run $(ARGS)

docs: $(BIN)/python
	$(BIN)/python docs/site/build_site.py

format: $(DEVELOP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Both locks contain hashes, have the same versions for every platform and Python, and name no
# package index: pip uses the configured one. The first also holds what the examples import, so the
# environment of `make serve` runs them. The second only adds to the first.
COMPILE = $(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--fork-strategy fewest --generate-hashes --no-emit-index-url --no-emit-find-links --no-config \
	--extra build --extra examples
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: $(BIN)/python
	$(PIP) install --quiet uv
	$(COMPILE) --upgrade -o requirements.lock
	$(COMPILE) --upgrade --extra cluster --extra dev -c requirements.lock -o requirements-dev.lock
	cd tests/clients && $(abspath $(BIN))/uv pip compile requirements.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-config \
		--upgrade -o requirements.lock
	cd docs/site && $(abspath $(BIN))/uv pip compile requirements.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-config \
		--upgrade -o requirements.lock
	cd clients/web && $(abspath $(BIN))/uv pip compile requirements.in --quiet --universal \
		--python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --no-config \
		--upgrade -o requirements.lock

clean:
	rm -rf $(VENV) build api/web/dist api/web/dist-* clients/web/node_modules *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# A Python without ensurepip (Debian's python3 without python3-venv) creates the environment without
# pip; then the pip of that Python installs into it.
$(BIN)/python:
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Reileta needs Python 3.11 or newer, but $(or $(PYTHON),none) $(if \
		$(PYTHON),is not,was found): install it, or pass it with 'make PYTHON=/path/to/python3.11 …'" \
		>&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV) >/dev/null 2>&1 || { "$(PYTHON)" -c 'import pip' 2>/dev/null \
		&& "$(PYTHON)" -m venv --clear --without-pip $(VENV) >/dev/null 2>&1; } || { \
		echo "Reileta can't make $(VENV)/ with $(PYTHON): $$("$(PYTHON)" -m venv $(VENV) 2>&1 \
		| grep . | tail -n 1) (on Debian and Ubuntu, install python3-venv)" >&2; exit 1; }

PIP = $$($(BIN)/python -c 'import pip' 2>/dev/null && echo "$(BIN)/python -m pip" \
	|| echo "$(PYTHON) -m pip --python $(BIN)/python") --disable-pip-version-check --no-input
# setuptools warns about every editable install, which is intended here.
INSTALL = PYTHONWARNINGS=ignore $(PIP) install --quiet --no-deps --no-build-isolation --editable .

# pip's output goes to a log. If pip fails, one line says why.
LOG := $(VENV)/set-up.log
define set-up
	{ $(PIP) install --quiet --require-hashes -r $(1) && $(INSTALL); } >$(LOG) 2>&1 || { \
		why=$$(grep -E '^ERROR: ' $(LOG) | tail -n 1); why=$${why:-$$(tail -n 1 $(LOG))}; \
		why="$${why#ERROR: } (details in $(LOG))"; case "$$why" in \
			"No matching distribution"*|*ConnectionPool*|*[Cc]"onnection "*) \
			why="pip gets nothing from the package index, is there a network? $$why"; esac; \
		echo "Reileta can't be set up: $$why" >&2; exit 1; }
endef

$(USE): requirements.lock $(PROJECT) | $(BIN)/python
	echo "Setting up $(VENV)/ …"
	$(call set-up,requirements.lock)
	touch $@

$(DEVELOP): requirements-dev.lock $(PROJECT) | $(BIN)/python
	echo "Setting up $(VENV)/ for development …"
	$(call set-up,requirements-dev.lock)
	touch $@ $(USE)
