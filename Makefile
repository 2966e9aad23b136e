# Everything that is done with the book. `make help` lists it; `make book` and `make test` need nothing installed before.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
HTML := _build/html

# One stamp for each content of the two files and each place: nothing is installed again until they change, whatever their
# dates; a folder that was moved or copied is, because the editable package names its path.
STAMP := $(VENV)/.installed-$(shell { cat requirements.txt pyproject.toml; pwd; } | cksum | cut -d ' ' -f 1)
UNFINISHED := $(VENV)/.unfinished

.PHONY: help install book test lint unit chapters html pages execute replicate serve clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP) ## install what the book needs into .venv (the other targets do so by themselves)

$(STAMP):
	@command -v '$(PYTHON)' > /dev/null || { echo "No $(PYTHON) here; name a Python of version 3.11 or newer: make PYTHON=/path/to/python" >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is wanted; $(PYTHON) is $$('$(PYTHON)' -V 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@'$(PYTHON)' -c 'import ensurepip, venv' 2> /dev/null || { echo "$(PYTHON) comes without venv; install it (on Debian and Ubuntu: apt-get install python3-venv), or name another: make PYTHON=/path/to/python" >&2; exit 1; }
	@echo 'Installing into $(VENV) (once; some minutes) ...'
# An installation that was cut off may have left half a package, which pip takes for a whole one: start over.
	@if [[ -e $(UNFINISHED) || ! -x $(BIN)/python ]]; then '$(PYTHON)' -m venv --clear $(VENV); fi
	@rm -f $(VENV)/.installed-*; touch $(UNFINISHED)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements.txt
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@rm $(UNFINISHED); touch $@

book: html ## build the HTML of the book; ends with the path to open
	@printf '\nThe book is built. Open this in a browser:\n  file://%s\n' "$$(realpath $(HTML)/index.html)"

html: $(STAMP)
	@$(BIN)/python -m tools.run_tests book

test: $(STAMP) ## run everything: lint, unit tests, book, page checks, every chapter as in Colab
	@$(BIN)/python -m tools.run_tests

lint: $(STAMP) ## check style, format and types
	@$(BIN)/python -m tools.run_tests lint

unit: $(STAMP) ## run the unit tests on all cores, with the coverage of kdutils
	@$(BIN)/python -m tools.run_tests unit

pages: $(STAMP) ## check the built HTML in a browser without a network
	@$(BIN)/python -m tools.run_tests pages

chapters: $(STAMP) ## run every chapter as in Colab, and compare the outputs that are tagged nbval-check-output
	@$(BIN)/python -m tools.run_tests book chapters

execute: $(STAMP) ## execute every chapter and store its outputs
	@$(BIN)/python -m tools.execute

replicate: $(STAMP) ## repeat every chapter with fresh seeds, and count how often its claims hold
	@$(BIN)/python -m tools.replicate

serve: ## show the built book at http://localhost:8000 (PORT=... for another port)
	@[[ -e $(HTML)/index.html ]] || { echo 'Not built yet: run make book first.' >&2; exit 1; }
	@$(PYTHON) -m http.server $(PORT) --bind 127.0.0.1 --directory $(HTML)

clean: ## remove what was built; the installation in .venv stays
	@rm -rf _build appendix/api build dist .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
