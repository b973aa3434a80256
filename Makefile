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
environment: $(VENV)/.installed ## create the virtual environment with all dependencies

.PHONY: lint
lint: environment
	ruff check .
	ruff format --check .
	mypy
	lint-imports

.PHONY: test
test: lint ## run lint, types and the fast tests
	pytest -m 'not slow and not long and not gpu' -n 2 --dist loadfile

.PHONY: test-all
test-all: lint ## run lint, types, and all tests but the long ones
	pytest -m 'not long' -n 2 --dist loadfile

.PHONY: test-long
test-long: lint ## run lint, types, and the long tests, which rarely break
	pytest -m long -n 2 --dist loadfile

.PHONY: demo
demo: environment ## run the toy study and print its table of accuracies
	dvc repro
	simgap track
	@cat report/tables/table.txt
	@echo
	@echo 'What to do next:'
	@echo '  open report/index.html                       the report'
	@echo '  make ui                                      the runs in MLflow'
	@echo '  dvc exp run -S threshold=0.05                the study with another threshold'
	@git diff --quiet -- dvc.lock metrics code || { \
	  echo '  git commit -am "The study on this machine"   its last digits differ from the committed study, because'; \
	  echo '                                               another processor rounds differently'; }

.PHONY: study
study: environment ## run the study of another preset as an experiment: make study PRESET=pacs DATA=folder
	simgap study $(PRESET) $(if $(DATA),--data $(DATA))

.PHONY: ui
ui: environment ## open the MLflow UI with the runs of the study, on 127.0.0.1
	simgap ui

.PHONY: schema
schema: environment ## write presets/schema.json, the schema of params files for editors
	python -m simgap.params.json_schema > presets/schema.json.new
	mv presets/schema.json.new presets/schema.json
