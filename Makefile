# Everything installs what it needs into .venv first. A fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
DEMO := --corpus demo --fold 1 --seed 0

.PHONY: install demo test test-slow style

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements-dev.txt -c requirements.lock
	touch $@

demo: install  ## Both stages on a synthesised corpus, about five minutes on two cores
	$(LAUNCH) run_stage1.py $(DEMO) --num_train_epochs 10 --learning_rate 1e-3
	$(LAUNCH) run_stage2.py $(DEMO) --num_train_epochs 8 --learning_rate 1e-3

test: install
	$(BIN)/python -m pytest

test-slow: install  ## What takes minutes: the demo's bars over three seeds
	$(BIN)/python -m pytest -m slow

style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
