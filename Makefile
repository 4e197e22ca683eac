# Two commands do all the set-up: `make demo` shows the main job (`make demo-ct` the same on synthetic chest CT),
# `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo

.PHONY: demo demo-ct test check slow clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "zooft needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch and what else zooft needs: several GB, some minutes"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[ct-sr,lite,dev]'
	touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(BIN)/zooft demo classification $(DEMO)/digits
	$(BIN)/zooft finetune --backbone timm:tf_efficientnet_lite0 --task classification --data $(DEMO)/digits \
		--out $(DEMO)/run --epochs 60 --lr 0.01

demo-ct: $(VENV)/installed
	rm -rf $(DEMO)/phantoms $(DEMO)/ct
	$(BIN)/zooft demo ct $(DEMO)/phantoms
	$(BIN)/zooft finetune --backbone timm:tf_efficientnet_lite0 --task ct --data $(DEMO)/phantoms --out $(DEMO)/ct

# One computing thread in each of the test processes: more would only wait for each other.
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

check: $(VENV)/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=plugins $(BIN)/lint-imports --no-cache

clean:
	rm -rf $(VENV) $(DEMO) build dist
