# make install    create .venv with everything below
# make demo       train Mask R-CNN with a PaCa-ViT, evaluate it, draw pictures and a page of its clusters
# make test       run the tests
# make fuzz       load mutated checkpoints, and resume from them, for a minute
# make coverage   run the tests and report the lines and branches they execute
# make lint       check style, format and types
# make format     fix style and format
# make docs       build the documentation into docs/_build/html; a warning is an error
# make notebook   execute the tutorial with a short training
# make linkcheck  check external links (needs a network)
# make wheel      build the sdist and the wheel into dist
# make install-check
#                 use the wheel as a user does, in a fresh environment (needs a network)
# Each target creates .venv on first use and reuses it afterwards.

PYTHON ?= python3
# Versions to install; `make CONSTRAINTS=/dev/null install` takes the newest accepted ones.
CONSTRAINTS ?= requirements/constraints.txt
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
MMPACA := $(BIN)/python -m mmpaca
SHAPES := data/shapes/annotations/val.json
DEMO_CONFIG := configs/demo/mask-rcnn_paca-demo_shapes.py
DEMO_TEST := configs/demo/mask-rcnn_paca-demo_shapes_clusters.py
DEMO := work_dirs/demo
# One process per core with one thread each; the tests of a file share what they set up. Files run in
# the order of tests/conftest.py, not by their number of tests. glibc keeps freed memory: to get
# it from the kernel again takes a tenth of the time.
PYTEST := OMP_NUM_THREADS=1 MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=8589934592 \
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test fuzz coverage lint format docs notebook linkcheck wheel install-check

help:
	@sed -n '/^$$/q; s/^# //p' $(MAKEFILE_LIST)

install: $(INSTALLED)

# Without build isolation, so setuptools must be there, of the version in pyproject.toml.
$(INSTALLED): pyproject.toml setup.py requirements/constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q 'setuptools>=77' wheel -c $(CONSTRAINTS)
	$(BIN)/python -m pip install -q --no-build-isolation -e '.[dev]' -c $(CONSTRAINTS)
	touch $@

$(SHAPES): mmpaca/datasets/toy/shapes.py | $(INSTALLED)
	$(BIN)/python tools/demo/make_shapes.py data/shapes

demo: $(INSTALLED) $(SHAPES)
	$(MMPACA) train $(DEMO_CONFIG) --work-dir $(DEMO)
	$(MMPACA) test $(DEMO_TEST) $$(cat $(DEMO)/last_checkpoint) --work-dir $(DEMO)/test --show-dir pictures
	$(MMPACA) clusters $(DEMO_CONFIG) $$(cat $(DEMO)/last_checkpoint) data/shapes/val/00000[1-4].png --out-dir $(DEMO)/clusters
	$(BIN)/python tools/demo/summarize.py $(DEMO)/test

test: $(INSTALLED)
	$(PYTEST)

fuzz: $(INSTALLED)
	$(BIN)/python tools/dev/fuzz_checkpoints.py --seconds 30
	$(BIN)/python tools/dev/fuzz_checkpoints.py --mode resume --batch 40 --seconds 30

coverage: $(INSTALLED)
	$(PYTEST) --cov --cov-report term --cov-report html:work_dirs/coverage

lint: $(INSTALLED)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(INSTALLED)
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

docs: $(INSTALLED)
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs docs/_build/html

notebook: $(INSTALLED)
	MINUTES=1 $(BIN)/python tools/dev/run_notebook.py demo/tutorial.ipynb

linkcheck: $(INSTALLED)
	$(BIN)/python -m sphinx -q -b linkcheck docs docs/_build/linkcheck

wheel: $(INSTALLED)
	$(BIN)/python -m build --no-isolation

install-check:
	tools/dev/check_install.sh $(PYTHON)
