# `make run` and `make test` are all that a fresh checkout needs; PYTHON=python3.13 picks another
# interpreter, PIP_CONSTRAINT=constraints.txt the exact versions of the committed results.
PYTHON ?= python3
METHODS ?= casm baseline grad
VENV := .venv
BIN := $(VENV)/bin
TOX := $(BIN)/tox

help:  ## say what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 8

run: $(VENV)/installed  ## install, then train and score on drawn shapes: METHODS, OPTIONS
	$(BIN)/python -m casm_bench run --methods $(METHODS) $(OPTIONS)

paper: $(VENV)/installed  ## tables, figures and paper/casm-bench.pdf from results/, training nothing
	$(BIN)/python -m casm_bench paper --fill README.md docs/findings.md

report: $(VENV)/installed  ## the page, report/index.html, from results/
	$(BIN)/python -m casm_bench report

docs: $(VENV)/installed-docs  ## the documentation, site/index.html, from docs/ and the docstrings
	$(BIN)/mkdocs build

test: $(TOX)  ## all but the slow tests, in an environment of their own
	$(TOX) run -e py

slow: $(TOX)  ## the slow tests
	$(TOX) run -e slow

lint: $(TOX)  ## ruff
	$(TOX) run -e lint

bench: $(VENV)/installed-test  ## speed; figures in brackets are ratios within a group
	$(BIN)/pytest benchmarks --benchmark-enable --benchmark-sort=name \
	    --benchmark-columns=min,median,rounds

$(VENV)/created:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/installed: $(VENV)/created pyproject.toml
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[bench,test]'
	touch $@

$(VENV)/installed-docs: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[docs]'
	touch $@

$(TOX): $(VENV)/created
	$(BIN)/python -m pip install 'tox>=4.22'
	touch $@

.PHONY: help run paper report docs test slow lint bench
.DELETE_ON_ERROR:
