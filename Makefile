PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help
help: ## show this help
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[cpu,dev]'
	$(BIN)/python -m pip check
	touch $@

.PHONY: environment
environment: $(VENV)/.installed ## virtual environment with everything in it

.PHONY: lint
lint: environment
	ruff check .
	ruff format --check .
	mypy

.PHONY: test
test: lint ## lint, types and the fast tests
	pytest -m 'not slow and not gpu' -n 2 --dist loadfile

.PHONY: test-all
test-all: lint ## the same with the slow tests
	pytest -n 2 --dist loadfile

.PHONY: demo
demo: environment ## the whole toy study from an empty cache, then the comparison table
	dvc repro
	simgap track
	@cat report/tables/table.txt
	@echo
	@echo 'The report: report/index.html. Compare runs: make ui. Another threshold: dvc exp run -S threshold=0.05'

.PHONY: study
study: environment ## a study of another preset, as an experiment: make study PRESET=pacs DATA=folder
	simgap study $(PRESET) $(if $(DATA),--data $(DATA))

.PHONY: ui
ui: environment ## MLflow UI on the study's runs, on 127.0.0.1
	simgap ui
