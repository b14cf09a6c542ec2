# Everything runs from a bare clone: each target first installs what it needs into .venv/, with the versions of
# constraints.txt. Another Python: `make PYTHON=python3.12 ...`. pip's own settings (PIP_INDEX_URL,
# PIP_FIND_LINKS, ...) are respected.

PYTHON ?= python3
# Processes that run tests side by side.
JOBS ?= 2
# More arguments for pytest: `make test ARGS="-k tuner -x"`.
ARGS ?=

BIN := .venv/bin
STAMP := .venv/.installed
STAMP_NNI := .venv/.installed-nni-rl
SETUP_FILES := setup.cfg setup.py pyproject.toml constraints.txt $(wildcard nni_dynconv/csrc/*)
# One thread each: the tests run side by side, and threads only get in each other's way. What Python and pytest make of
# the sources is kept, for each of the many processes that tests start would make it anew.
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup search test test-nnictl test-whole test-faults test-slow test-nni check format bench bench-gpu quality sweep sweep-onnx sweep-save clean

help:  ## show this
	@echo "make TARGET, where TARGET is:"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile | expand -t 14

setup: $(STAMP)  ## install into .venv/ (the other targets do it by themselves)

$(STAMP): $(SETUP_FILES)
	@echo "Installing into .venv/, with the versions of constraints.txt: NNI, PyTorch and what else setup.cfg asks for"
	@echo "(once; this takes a few minutes). This is what pip does:"
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet -c constraints.txt setuptools wheel
	@rm -f nni_dynconv/_kernels*
	@$(BIN)/python -m pip install --no-build-isolation -c constraints.txt -e '.[examples,onnx,quality,dev]'
	@ls nni_dynconv/_kernels* > /dev/null 2>&1 || \
		echo "The compiled kernels could not be built (is there a C++ compiler?). PyTorch's own serve, more slowly."
	@touch $@

$(STAMP_NNI): $(STAMP)
	@$(BIN)/python -m pip install --no-build-isolation -c constraints.txt gym tianshou
	@touch $@

# `passive`: threads that wait by spinning make a step many times slower where other programs want the same cores.
search: $(STAMP)  ## search a network on real video, through nnictl (a few minutes)
	@OMP_WAIT_POLICY=$${OMP_WAIT_POLICY:-passive} $(BIN)/nni-dynconv launch configs/one_shot.yml --output runs/quickstart

test: $(STAMP)  ## run the tests
	@$(PYTEST) -n $(JOBS) --dist worksteal $(ARGS)

test-nnictl: $(STAMP)  ## run the tests that start whole experiments through NNI's manager (minutes)
	@$(PYTEST) -n $(JOBS) --dist worksteal -m "nnictl and not slow" $(ARGS)

# What a test tried, and how often, stands in its output (`-s`). One process: they load the machine by themselves.
test-whole: $(STAMP)  ## run what takes an example, a page, a search or an experiment of NNI to its end, and whole grids (minutes)
	@$(PYTEST) -n $(JOBS) --dist worksteal -m "(whole or nnictl) and not slow" $(ARGS)

test-faults: $(STAMP)  ## run the tests that kill, damage and starve (an hour); what this machine cannot do fails by name
	@$(PYTEST) -s -m faults $(ARGS)

test-slow: $(STAMP)  ## run the tests that are marked `slow`
	@$(PYTEST) -n $(JOBS) --dist worksteal -m slow $(ARGS)

test-nni: $(STAMP_NNI)  ## run NNI's strategies and the spaces of its hub (minutes); installs the extra `nni-rl`
	@$(PYTEST) -n $(JOBS) --dist worksteal -m nni $(ARGS)

check: $(STAMP)  ## lint, formatting, types, and the order of the wings
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

format: $(STAMP)  ## format the code and mend what the linter can mend
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

bench: $(STAMP)  ## measure operators, search steps, growth, memory and factors against their peers (about an hour)
	@$(BIN)/python benchmarks/ops.py --output benchmarks/results.json
	@$(BIN)/python benchmarks/bound.py --output benchmarks/results.json
	@$(BIN)/python benchmarks/steps.py --output benchmarks/results.json
	@$(BIN)/python benchmarks/growth.py --output benchmarks/results.json
	@$(BIN)/python benchmarks/memory.py
	@$(BIN)/python benchmarks/low_rank.py
	@$(BIN)/python benchmarks/patches.py --output benchmarks/results.json
	@$(BIN)/python -m benchmarks.networks.measure --output benchmarks/results.json
	@$(BIN)/python -m benchmarks.networks.estimates --output benchmarks/results.json
	@$(BIN)/python benchmarks/report.py

# `make bench-gpu DEVICE=cuda:1` takes another card.
DEVICE ?= cuda
bench-gpu: $(STAMP)  ## measure operators and search steps on a GPU, into benchmarks/results_gpu.json (about an hour)
	@$(BIN)/python benchmarks/ops.py --device $(DEVICE) --output benchmarks/results_gpu.json
	@$(BIN)/python benchmarks/steps.py --device $(DEVICE) --output benchmarks/results_gpu.json
	@$(BIN)/python benchmarks/report.py

quality: $(STAMP)  ## measure what searched networks reach; what is finished already is not measured again
	@$(BIN)/python -m benchmarks.quality.denoising
	@$(BIN)/python -m benchmarks.quality.makers
	@$(BIN)/python -m benchmarks.quality.initialisation
	@$(BIN)/python -m benchmarks.quality.controller_sizes
	@$(BIN)/python -m benchmarks.quality.doctor
	@$(BIN)/python -m benchmarks.quality.rank
	@$(BIN)/python -m benchmarks.quality.planted
	@for one in ladder twins where searches continual page; do $(BIN)/python -m benchmarks.quality.worth.$$one || exit 1; done

# In an environment of its own, for these packages bring others.
sweep:  ## lift architectures of pytorchcv and transformers, and see that they are what they were (a quarter of an hour)
	@test -x .venv-sweep/bin/pip || $(PYTHON) -m venv .venv-sweep
	@.venv-sweep/bin/python -m pip install --quiet -c constraints.txt -e '.[sweep]'
	@OMP_NUM_THREADS=1 PYTHONPATH=. .venv-sweep/bin/python benchmarks/lifting/sweep.py --output $${OUTPUT:-runs/sweep.json}

sweep-onnx:  ## run lifted architectures in ONNX Runtime, beside torch (an hour)
	@test -x .venv-sweep/bin/pip || $(PYTHON) -m venv .venv-sweep
	@.venv-sweep/bin/python -m pip install --quiet -c constraints.txt -e '.[sweep,onnx]'
	@OMP_NUM_THREADS=1 PYTHONPATH=. .venv-sweep/bin/python benchmarks/lifting/elsewhere.py --output $${OUTPUT:-runs/sweep_onnx.json}

sweep-save:  ## save lifted architectures and those of NNI's hub, and see that they come back the same (an hour)
	@test -x .venv-sweep/bin/pip || $(PYTHON) -m venv .venv-sweep
	@.venv-sweep/bin/python -m pip install --quiet -c constraints.txt -e '.[sweep]'
	@OMP_NUM_THREADS=1 PYTHONPATH=. .venv-sweep/bin/python benchmarks/lifting/saving.py --output $${OUTPUT:-runs/sweep_save.json}
	@OMP_NUM_THREADS=1 PYTHONPATH=. .venv-sweep/bin/python benchmarks/lifting/hub_saving.py --output runs/hub_save.json

clean:  ## remove .venv/, caches and what was built; runs/ stays, for it holds your results
	rm -rf .venv build dist *.egg-info nni_dynconv/_kernels* .pytest_cache .mypy_cache .ruff_cache .hypothesis lightning_logs dispatcher.log
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
