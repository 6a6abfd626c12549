# CI calls the same targets.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: run test test-long fuzz check bench format clean api-client

run: $(VENV)/installed      ## serve on http://127.0.0.1:3000; starts an embedded Valkey unless REDIS_URL is set
	@exec $(BIN)/python -m service

# Compiled modules shorten the start of the tests.
export PYTHONDONTWRITEBYTECODE :=

# Tests start this program instead of Valkey: make test REDIS_SERVER=/usr/bin/redis-server TESTS=tests/outages
export REDIS_SERVER ?=

test: $(VENV)/installed     ## run all tests except the long ones, on several processes; TESTS selects some
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(TESTS)

test-long: $(VENV)/installed  ## run the long tests: failures under load, long models; prints its duration
	$(BIN)/pytest -m long --durations 10

fuzz: $(VENV)/installed     ## send random requests to a replica; FUZZ_SEED repeats a run
	@seed=$${FUZZ_SEED:-$$(date +%s)}; echo "FUZZ_SEED=$$seed"; \
	FUZZ_SEED=$$seed FUZZ_INPUTS=$${FUZZ_INPUTS:-20000} $(BIN)/pytest tests/fuzz

check: $(VENV)/installed    ## lint, format, types, and known vulnerabilities, if the package index is reachable
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m tests.dependencies

bench: $(VENV)/installed    ## measure the service, relative to bare aiohttp and other servers; about 15 minutes (BENCH=--short for less)
	$(BIN)/python -m benchmarks $(BENCH)

API_CLIENT := node_modules/@elizaos/api-client

api-client: $(API_CLIENT)   ## install the published client of ElizaOS, which some tests run with Node.js

$(API_CLIENT):
	@mkdir -p $@.new
	npm pack --silent --pack-destination $@.new @elizaos/api-client@1.7.2
	tar -xzf $@.new/*.tgz -C $@.new --strip-components 1
	@rm $@.new/*.tgz && mv $@.new $@

format: $(VENV)/installed   ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:                      ## remove the virtual environment and every cache
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[embedded,tracing,dev]'
	@touch $@
