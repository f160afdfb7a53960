# Start with `make demo` or `make test`; each sets up what it needs, once. `make help` lists the rest.
#
#   make demo MINUTES=2             a shorter demonstration
#   make test ARGS='-k router'      arguments for pytest
#   make serve ARGS='--port 8080'   arguments for the server
#   make demo PYTHON=python3.12     another interpreter; VENV=folder for another environment

PYTHON  ?= python3
VENV    ?= .venv
MINUTES ?=
ARGS    ?=

BIN     := $(VENV)/bin
INPUTS  := constraints.txt packages/fathom/pyproject.toml packages/hhdelay/pyproject.toml
TORCH    = $(shell sed -n '/^torch==/p' constraints.txt)
SYSTEM  := chromium bubblewrap

# uv does not read pip's variable, and without the folder it would fetch another build of torch.
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# uv where it can, pip where uv is missing or fails. No isolated builds: they would ignore the constraints.
define install
	if [ -x $(BIN)/uv ] && $(BIN)/uv pip install -q -p $(BIN)/python -c constraints.txt $(1); then :; \
	else echo "make: pip installs, more slowly than uv would"; \
	    $(BIN)/python -m pip install -qq -c constraints.txt $(1); fi
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo serve test check bench soak system clean

help:       ## list the targets
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/make \1\t\2/p' Makefile | expand -t 14

setup: $(VENV)/.test    ## install everything: the program, the tests, the checks

demo: $(VENV)/.demo     ## train a small DeepSeek-V3 here, about six minutes, and talk to it
	$(BIN)/python -m fathom demo $(if $(MINUTES),--minutes $(MINUTES))
	@echo; echo "The other package: which delays make neurons fire like a clock? A gallery in some minutes:"
	@echo "  $(BIN)/hhdelay reproduce --out runs/hhdelay"

serve: $(VENV)/.serve   ## open the newest demo's model: a chat page, and an interface for programs
	@model=$$(ls -dt runs/demo-*/sft 2> /dev/null | head -n 1); \
	[ "$$model" ] || { echo "make: there is no demo's model yet. Fix: make demo" >&2; exit 2; }; \
	$(BIN)/python -m fathom serve --model "$$model" $(ARGS); \
	status=$$?; [ $$status -eq 130 ] || exit $$status

test: $(VENV)/.test     ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile $(ARGS)

check: $(VENV)/.test    ## lint, types, layers
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test    ## run the benchmarks; each prints JSON lines
	@found=; for file in benchmarks/*.py; do \
	    [ -e "$$file" ] || continue; \
	    found=1; echo "$(BIN)/python $$file" >&2; $(BIN)/python "$$file" || exit 1; \
	done; [ "$$found" ] || echo "make bench: benchmarks/ holds no program yet; nothing was run"

soak: $(VENV)/.test     ## run the long tests that `make test` leaves out
	@$(BIN)/python -m pytest -q -m soak $(ARGS); status=$$?; \
	if [ $$status -eq 5 ]; then echo "make soak: no test is marked soak yet; nothing was run"; else exit $$status; fi

system: ## install the optional system packages: a browser for page tests, a sandbox for foreign code
	@missing=; command -v chromium > /dev/null || missing="chromium"; \
	command -v bwrap > /dev/null || missing="$$missing bubblewrap"; \
	if [ -z "$$missing" ]; then echo "make system: $(SYSTEM) are here"; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    echo "make system: apt-get install $$missing"; \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	        apt-get install -y -qq --no-install-recommends $$missing > /dev/null; \
	else echo "make system: not installed: $$missing. Tests that need them skip. Install them with your package manager."; fi

clean:  ## remove the environment, caches and wheels; runs/ stays
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "make: Python 3.11 or newer is needed, and $(PYTHON) is not. Fix: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	    exit 1; }
	@echo "make: creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { \
	    echo "make: no environment. Fix: install Python's venv module (Debian: python3-venv)" >&2; exit 1; }
	@$(BIN)/python -m pip install -qq -c constraints.txt uv || echo "make: no uv for this machine"
	@touch $@

$(VENV)/.demo: $(VENV)/.made $(INPUTS)
	@echo "make: installing the program: $(TORCH) first, about 1 GB, some minutes the first time"
	@$(call install,$(TORCH) hatchling editables)
	@$(call install,--no-build-isolation -e packages/fathom -e packages/hhdelay)
	@touch $@

$(VENV)/.serve: $(VENV)/.demo
	@echo "make: installing what the server needs, a few MB"
	@$(call install,--no-build-isolation -e 'packages/fathom[serve]')
	@touch $@

$(VENV)/.test: $(VENV)/.made $(INPUTS)
	@echo "make: installing the program, its tests and checks: $(TORCH) first, about 1.5 GB, some minutes the first time"
	@$(call install,$(TORCH) hatchling editables)
	@$(call install,--no-build-isolation -e 'packages/fathom[dev]' -e 'packages/hhdelay[test]')
	@touch $(VENV)/.demo $@
	@touch $(VENV)/.serve
