# One-line doors to the harness. The first use makes .venv; a changed pin brings it up to date.

PYTHON ?= python3
VENV := .venv
# Made last, so that an interrupted installation is never taken for a finished one.
READY := $(VENV)/.ready
HARNESS := $(VENV)/bin/harness

.DEFAULT_GOAL := help
.PHONY: help venv replay verify charts report test lint

help: ## List these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "Everything else: $(HARNESS) --help"

venv: $(READY) ## Make the virtual environment (the other targets do it when they need it)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11; name another with PYTHON=..." >&2; exit 2; }
	@echo "first use (or a changed pin): making $(VENV) with PyTorch and all else that constraints.txt pins."
	@echo "With PyPI's CUDA build that is a download of some 3 GB, and about twice that on disk; nothing is installed elsewhere."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
	@echo "$(VENV) is ready: later calls start at once."

replay: $(READY) ## Run a record: RECORD=2025-10-15 (or number, slug, path), ARGS="--runs 5"
	@test -n "$(RECORD)" || { echo "error: which record? make replay RECORD=2025-10-15" >&2; exit 2; }
	@$(HARNESS) replay "$(RECORD)" $(ARGS)

verify: $(READY) ## Judge logs: LOG=runs/..., ARGS="--record 40"
	@test -n "$(LOG)" || { echo "error: which log? make verify LOG=path/to/log.txt" >&2; exit 2; }
	@$(HARNESS) verify $(LOG) $(ARGS)

charts: $(READY) ## Draw the figures into reports/out/
	@$(HARNESS) chart $(ARGS)

report: $(READY) ## Build the static page in reports/out/
	@$(HARNESS) report $(ARGS)

test: $(READY) ## Run all tests, two at a time
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal --timeout 300 $(ARGS)

lint: $(READY) ## Check style and format
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
