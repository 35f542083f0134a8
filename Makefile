# Everything installs what it needs into .venv first. A fresh machine needs make and Python 3.11, 3.12 or 3.13.
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3 python; do \
  $$name -c '$(SUPPORTED)' 2>/dev/null && echo $$name && break; done)
BIN := .venv/bin
LAUNCH := $(BIN)/accelerate launch --quiet --num_processes 1 --num_machines 1 --mixed_precision no --dynamo_backend no
SEED ?= 0
OUT ?= runs/demo
DEMO := --corpus demo --fold 1 --seed $(SEED) --per_device_train_batch_size 8 --learning_rate 5e-4 --selection last

.PHONY: install install-cpu demo test test-slow test-common style lock audit

install: .venv/installed

define CHECK_PYTHON
	@test -n "$(PYTHON)" || { echo "No Python 3.11, 3.12 or 3.13 found; install one, or name it: make PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c '$(SUPPORTED)' || { echo "$(PYTHON) is not Python 3.11, 3.12 or 3.13" >&2; exit 2; }
endef

.venv/installed: requirements.txt requirements-dev.txt requirements.lock pyproject.toml
	$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The same without CUDA. The CPU builds of torch are other files with other hashes, so this goes without the lock.
install-cpu:
	$(CHECK_PYTHON)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --index-url https://download.pytorch.org/whl/cpu \
	  $$(grep -oE "^(torch|torchaudio)==[0-9.]+" requirements.lock)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt --editable .
	touch .venv/installed

# Both stages on a synthesised corpus, under five minutes on two cores. The demo's encoder has no pretraining, so stage 1
# teaches it all four tasks (eq. 3).
demo: install
	$(LAUNCH) run_stage1.py $(DEMO) --output_dir $(OUT)/stage1/fold1 \
	  --tasks emotion asr gender style --aux_weight 0.2 --num_train_epochs 16
	$(LAUNCH) run_stage2.py $(DEMO) --output_dir $(OUT)/stage2/fold1 --stage1 $(OUT)/stage1/fold1 --num_train_epochs 8
	@echo "Try it: . $(BIN)/activate && ser-mtl predict runs/demo/corpus/Session1 --model $(OUT)/stage2/fold1"

# Two processes halve the time; more would need more memory than most machines have.
test: style
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What takes minutes: what the demo learns, over three seeds.
test-slow: install
	$(BIN)/python -m pytest -m slow

# transformers' own common tests on our model, from the source distribution of the version that is installed.
test-common: install
	PYTHONPATH=. $(BIN)/python tests/transformers_common.py

# Format, lint and types.
style: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Tools that the project itself does not need, in an environment of their own.
TOOLS := .venv/tools/bin

$(TOOLS)/uv: | install
	$(BIN)/python -m venv .venv/tools
	$(TOOLS)/pip install --quiet --disable-pip-version-check "uv>=0.9,<1" "pip-audit>=2.10,<3"

# Keeps the versions of requirements.lock that the ranges allow, and looks up the hashes of all their files on PyPI.
# For newer versions, delete lines of requirements.lock first.
lock: | $(TOOLS)/uv
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(TOOLS)/uv pip compile --quiet requirements-dev.txt \
	  --output-file requirements.lock --generate-hashes --universal --python-version 3.11 --no-annotate

# Known vulnerabilities of the locked versions, from PyPI's advisories. A mirror of PyPI may not have them: torch, which
# every index knows, then could not be audited either.
audit: | $(TOOLS)/uv
	@$(TOOLS)/pip-audit --require-hashes --disable-pip --requirement requirements.lock --progress-spinner off \
	  > .venv/audit.txt 2>&1; code=$$?; \
	if grep -Eq "^torch .*could not be audited" .venv/audit.txt; then \
	  echo "Nothing was audited: the package index that is reached from here has no advisories"; \
	else cat .venv/audit.txt; exit $$code; fi
