# make demo       train Mask R-CNN on a PaCa-ViT, evaluate it, write pictures and a page of its clusters
# make test       run the tests
# make lint       check style, format and types
# make format     mend style and format
# make docs       build the documentation into docs/_build/html; a warning is an error
# make linkcheck  ask other sites whether the links to them work (needs a network)
# All create .venv on first use and reuse it afterwards.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
SHAPES := data/shapes/annotations/val.json
DEMO_CONFIG := configs/demo/mask-rcnn_paca-demo_shapes.py
DEMO_TEST := configs/demo/mask-rcnn_paca-demo_shapes_clusters.py
DEMO := work_dirs/demo

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test lint format docs linkcheck

help:
	@sed -n '/^$$/q; s/^# //p' $(MAKEFILE_LIST)

install: $(INSTALLED)

# Without build isolation: setuptools and wheel are in the environment already.
$(INSTALLED): requirements/dev.txt requirements/constraints.txt setup.py pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r requirements/dev.txt -c requirements/constraints.txt
	$(BIN)/python -m pip install -q --no-build-isolation --no-deps -e .
	touch $@

$(SHAPES): mmpaca/datasets/toy/shapes.py | $(INSTALLED)
	$(BIN)/python tools/demo/make_shapes.py data/shapes

demo: $(INSTALLED) $(SHAPES)
	$(BIN)/python tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO)
	$(BIN)/python tools/test.py $(DEMO_TEST) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO)/test --show-dir pictures
	$(BIN)/python tools/visualization/clusters.py data/shapes/val/00000[1-4].png --config $(DEMO_CONFIG) --checkpoint $$(cat $(DEMO)/last_checkpoint) --out-dir $(DEMO)/clusters
	$(BIN)/python tools/demo/summarize.py $(DEMO)/test

test: $(INSTALLED)
	# A process per core with a thread each; tests of one file share what they set up.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(INSTALLED)
	$(BIN)/sphinx-build -q -n -W --keep-going -b html docs docs/_build/html

linkcheck: $(INSTALLED)
	$(BIN)/sphinx-build -q -b linkcheck docs docs/_build/linkcheck
