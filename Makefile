# Everything a newcomer needs: make demo, make test. Both set the environment up first.
#   STACK=onedl|openmmlab   which distribution of the OpenMMLab packages (default: onedl)
#   PYTHON=python3.12       which Python (default: the first supported one on PATH)
#   TORCH=2.13.0 TORCHVISION=0.28.0   a pair of releases that belong together
#   TORCH_ARGS='--index-url URL'   where to take torch from (PyTorch's CPU wheels, say); PyPI's are for CUDA
#   TASK=det|cls|seg        which demo
#   JOBS=2                  processes of the default tests, of one thread each
#   DEVICE=cuda             device of the GPU tests; cpu runs them without a GPU, to try the tests themselves
STACK ?= onedl
ifeq ($(filter $(STACK),onedl openmmlab),)
$(error STACK: got '$(STACK)'; onedl or openmmlab is allowed)
endif
TASK ?= det
TORCH ?= 2.13.0
TORCHVISION ?= 0.28.0
TORCH_ARGS ?=
JOBS ?= 2
DEVICE ?= cuda
VENV ?= $(if $(filter openmmlab,$(STACK)),.venv-openmmlab,.venv)
CANDIDATES := python3.11 python3.12 python3.10 python3.13 python3
SUPPORTED := import sys, venv, ensurepip; raise SystemExit(not (3, 10) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in $(CANDIDATES); do $$p -c "$(SUPPORTED)" >/dev/null 2>&1 && echo $$p && break; done)
BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
export MPLBACKEND := Agg

.PHONY: help setup lint format test test-slow mutants test-openmmlab test-extras test-gpu demo ops clean

help:
	@echo 'make setup | demo [TASK=det|cls|seg] | lint | format | ops | clean'
	@echo '     test | test-slow | mutants | test-openmmlab | test-extras | test-gpu [DEVICE=cuda|cpu]'

setup: $(STAMP)

$(STAMP): requirements/$(STACK).txt requirements/dev.txt pyproject.toml setup.py
	@test -n '$(PYTHON)' && $(PYTHON) -c "$(SUPPORTED)" 2>/dev/null || { \
	  echo "error: PYTHON: got '$(PYTHON)'; Python 3.10 to 3.13 with venv is needed (tried $(CANDIDATES));" \
	    "install one or run make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==$(TORCH) torchvision==$(TORCHVISION) $(TORCH_ARGS)
	$(BIN)/python -m pip install --quiet -r requirements/$(STACK).txt -r requirements/dev.txt
# A plain path instead of setuptools' finder: with that, Python in the folder above a clone finds the
# clone itself, as an empty namespace package.
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e . --config-settings editable_mode=compat
	$(BIN)/python tools/misc/check_environment.py
	@touch $@

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Several processes of one thread each are nearly twice as fast as one process with their threads.
PYTEST := -m pytest -n $(JOBS) --dist worksteal
test test-openmmlab: export OMP_NUM_THREADS := 1

test: $(STAMP)
	$(BIN)/python $(PYTEST)

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# How many of 60 small changes of the core the tests notice; prints those that they do not.
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py --jobs $(JOBS)

# The other distribution, in an environment of its own: registry, configs, stand-ins, a training step, deploy.
test-openmmlab:
	$(MAKE) STACK=openmmlab setup
	.venv-openmmlab/bin/python $(PYTEST) tests/test_package.py tests/test_registry.py tests/test_configs.py \
	  tests/test_drop_in.py tests/models/test_mmdet_heads.py tests/models/test_against_mmpretrain.py \
	  tests/compat tests/deploy tests/weights/test_loading.py tests/weights/test_runner_checkpoints.py \
	  tests/hooks/test_average_check.py tests/apis tests/distill tests/tools tests/config tests/runs tests/cli tests/inference tests/demo/test_demo.py

# Packages that many environments have beside the hosts, in an environment on top of the first one.
EXTRAS := $(VENV)-extras
PURELIB := -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
test-extras: $(STAMP)
	$(BIN)/python -m venv $(EXTRAS)
	echo "import site; site.addsitedir('$$($(BIN)/python $(PURELIB))')" > "$$($(EXTRAS)/bin/python $(PURELIB))/base.pth"
	$(EXTRAS)/bin/python -m pip install --quiet -r requirements/extras.txt
	$(EXTRAS)/bin/python -m pytest tests/compat/test_transformers.py tests/compat/test_hosts_import.py \
	  tests/data/packed/test_index.py

# At most 4 minutes on one GPU. All other tests hide the GPU from torch (tests/conftest.py).
test-gpu: $(STAMP)
	MOBILEONE_MM_TEST_DEVICE=$(DEVICE) $(BIN)/python -m pytest tests/gpu

demo: $(STAMP)
	$(BIN)/python -m demo $(TASK)

# Compiled mmcv operators for this Python and torch (a C++ compiler is needed; 15 to 35 minutes).
ops: $(STAMP)
	$(BIN)/python -m pip install --quiet ninja psutil
	MMCV_WITH_OPS=1 $(BIN)/python -m pip install --no-cache-dir --force-reinstall --no-deps --no-build-isolation \
	  $(if $(filter openmmlab,$(STACK)),mmcv==2.1.0,$(shell grep '^onedl-mmcv' requirements/onedl.txt))

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache demo_output mobileone_mm/.mim
