# `make run` and `make test` do all the set-up by themselves. See `make help`.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run install test check lint types imports format coverage bench chaos hooks lock clean

export PYTHON UV
python := .venv/bin/python

help: ## Show this list
	@echo "Throughline: make TARGET [NAME=value ...]"
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1 \2/p' Makefile | while read -r name text; do \
		printf '  %-9s %s\n' "$$name" "$$text"; done
	@echo "PYTHON=/path/to/python3 chooses the Python that .venv is made with."

run: ## Start everything on this machine; takes PORT= DATA= WEB= WORKERS= MODEL=demo|local|...
	@sh scripts/install.sh $(if $(filter local,$(MODEL)),local,runtime)
	@exec .venv/bin/throughline up \
		$${PORT:+--port "$$PORT"} $${DATA:+--data "$$DATA"} \
		$${WEB:+--web "$$WEB"} $${WORKERS:+--workers "$$WORKERS"} $${MODEL:+--model "$$MODEL"}

install: ## Make .venv with everything that development needs
	@sh scripts/install.sh dev

test: install ## Run the tests; ARGS= goes to pytest
	@exec $(python) -m pytest $(ARGS)

check: lint types imports test ## Formatting, lint, types, imports and tests

lint: install
	@status=0; $(python) -m ruff format --check . || status=1; \
		$(python) -m ruff check . || status=1; exit $$status

types: install
	@$(python) -m mypy

imports: install
	@.venv/bin/lint-imports --no-logo

format: install ## Format the code and mend what ruff can mend
	@$(python) -m ruff check --fix --quiet . || true
	@$(python) -m ruff format .

coverage: install ## Run the tests and show what they did not reach
	@exec $(python) -m pytest --cov --cov-report=term-missing $(ARGS)

bench: install ## Measure latency and CPU time per chunk; ARGS= goes to the benchmark
	@exec $(python) -m benchmarks.streaming $(ARGS)

chaos: install ## Harm real processes, check every promise; SECONDS= SEED= SESSIONS= DATABASE= FAULTS=
	@exec $(python) -m tests.chaos $${SECONDS:+--seconds "$$SECONDS"} \
		$${SEED:+--seed "$$SEED"} $${SESSIONS:+--sessions "$$SESSIONS"} \
		$${DATABASE:+--database "$$DATABASE"} $${FAULTS:+--faults "$$FAULTS"}

hooks: install ## Run the quick checks before each commit
	@.venv/bin/pre-commit install

lock: ## Write the lock files (needs uv; UPGRADE=1 takes the newest of everything)
	@sh scripts/lock.sh $(if $(UPGRADE),--upgrade)

clean: ## Remove .venv and what the tools left; keeps data/
	@rm -rf .venv .venv.busy .mypy_cache .pytest_cache .ruff_cache .import_linter_cache \
		.hypothesis .coverage .coverage.* htmlcov build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
