# Each target sets up what it needs, in .venv; the demo needs little, and has that in an environment of its own.
PYTHON ?= python3
VENV := .venv
RUN_VENV := .venv-run
DIST_VENV := .venv-dist
BIN := $(VENV)/bin

ifneq ($(words $(CURDIR)),1)
$(error The path of this directory has a space in it, and the scripts that pip installs don't work there; move it: $(CURDIR))
endif

.PHONY: run test soak test-docker coverage lint format tox bench dist clean

# The demo: Ctrl-C ends it.
run: $(RUN_VENV)/ready
	@echo "The demo runs. In another terminal: curl http://127.0.0.1:$${DEMO_PORT:-8080}/hello. Ctrl-C here ends it."
	@exec env PATH="$(CURDIR)/$(RUN_VENV)/bin:$$PATH" GINIT_LOG_LEVEL=$${GINIT_LOG_LEVEL-info} \
		$(RUN_VENV)/bin/python examples/foreground.py ginit examples/demo

test: $(VENV)/ready
	$(BIN)/pytest --numprocesses 4 $(TESTS)

# The random searches, long: `make soak SOAK_CASES=10000`; see tests/integration/search.py.
SOAK_CASES ?= 2000
SOAK_PARTS ?= 2
soak: $(VENV)/ready
	SOAK_CASES=$(SOAK_CASES) SOAK_PARTS=$(SOAK_PARTS) $(BIN)/pytest --numprocesses 4 -s -o faulthandler_timeout=0 \
		$(or $(TESTS),tests/integration/test_random_lines.py tests/integration/test_random_stops.py)

# ginit in containers of a real engine: the one that runs, or one of the tests' own, for which they have to be root's.
test-docker: $(VENV)/ready
	$(BIN)/pytest --timeout 900 --timeout-method signal $(or $(TESTS),tests/docker)

# The coverage of every process that the tests start; slow, as each of them is measured.
coverage: $(VENV)/ready
	@$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --numprocesses 4 $(TESTS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

lint: $(VENV)/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/kubernetes-validate --strict docker/kubernetes.yaml

format: $(VENV)/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Every interpreter that is found, with the oldest and the newest gevent for it.
tox: $(VENV)/ready
	$(BIN)/tox run $(TOXARGS)

# ginit and its peers on the same work: `make bench BENCHARGS="--quick"`; see benchmarks/README.md.
bench: $(VENV)/bench-ready
	$(BIN)/python -m benchmarks $(BENCHARGS)

# A wheel and a source archive of what is to be installed, in dist/.
dist: $(DIST_VENV)/ready
	rm -rf dist
	$(DIST_VENV)/bin/python -m build --outdir dist
	@rm -rf build

clean:
	rm -rf $(VENV) $(RUN_VENV) $(DIST_VENV) .tox build dist *.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUN_VENV)/ready: setup.cfg setup.py bin/ginit
	@echo "Setting up $(@D), once: this ginit, gevent and python-json-logger. It takes some seconds."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade pip
	@$(@D)/bin/python -m pip install --quiet --editable .
	@touch $@

$(DIST_VENV)/ready:
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --upgrade pip build
	@touch $@

$(VENV)/ready: setup.cfg setup.py bin/ginit
	@echo "Setting up $(@D), once: this ginit, and some fifty packages for tests and linting. It takes a minute or so."
	@$(PYTHON) -m venv $(@D)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	@touch $@

$(VENV)/bench-ready: $(VENV)/ready
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	@touch $@
