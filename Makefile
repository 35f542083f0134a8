# Everything installs what it needs into .venv first. A fresh machine needs Python 3.11 and make.
PYTHON ?= python3.11
BIN := .venv/bin
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
SEED ?= 0
OUT ?= runs/demo
DEMO := --corpus demo --fold 1 --seed $(SEED) --per_device_train_batch_size 8 --learning_rate 5e-4 --selection last

.PHONY: install demo test test-slow style

install: .venv/installed

.venv/installed: requirements.txt requirements-dev.txt requirements.lock
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet -r requirements-dev.txt -c requirements.lock
	touch $@

# Both stages on a synthesised corpus, under five minutes on two cores. The demo's encoder has no pretraining, so that
# stage 1 teaches it all four tasks (eq. 3).
demo: install
	$(LAUNCH) run_stage1.py $(DEMO) --output_dir $(OUT)/stage1/fold1 \
	  --tasks emotion asr gender style --aux_weight 0.2 --num_train_epochs 16
	$(LAUNCH) run_stage2.py $(DEMO) --output_dir $(OUT)/stage2/fold1 --stage1 $(OUT)/stage1/fold1 --num_train_epochs 8

test: install
	$(BIN)/python -m pytest

# What takes minutes: what the demo learns, over three seeds.
test-slow: install
	$(BIN)/python -m pytest -m slow

style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
