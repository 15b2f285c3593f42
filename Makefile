# make venv      install the pinned CPU environment into .venv (about 3 minutes)
# make demo      the whole loop on the embedded world; report in runs/demo/report.html
# make test      lint, types and the tests that CI runs
# make test-all  the same with the slow tests, and property tests on fresh examples
# make lint | types | results | clean
#
# A GPU machine installs requirements/gpu.lock instead (see README.md).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
LOCKED := $(PIP) install --no-compile --no-deps --require-hashes --only-binary :all: -r
LOCKS := requirements/torch-cpu.lock requirements/cpu.lock requirements/torch-cuda.lock
# Two files at a time: half of the tests' time is waiting for Ray and vLLM to start. Empty: one after the other.
PYTEST_WORKERS ?= -n 2 --dist loadfile
PYTEST_ARGS ?=

export TOKENIZERS_PARALLELISM := false

.PHONY: venv demo test test-all lint types results clean

venv: $(STAMP)

# Every file is checked against the hashes in the locks, and nothing is built from source. torch's CPU build comes
# first, where an index has it; PyPI's build, which is taken elsewhere, needs the CUDA libraries to be imported. No
# resolver: it would add a torchvision whose import breaks transformers (see requirements/cpu.lock).
# One compileall at the end: without bytecode `import vllm` takes 15 s instead of 6 s.
$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: the pinned CPU environment is for Python 3.11, but '$(PYTHON)' is" \
	    "$$($(PYTHON) -V 2>&1 || echo missing). Install 3.11 and run: make $(or $(MAKECMDGOALS),venv) PYTHON=python3.11" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(LOCKED) requirements/torch-cpu.lock || echo "no CPU build of torch here: taking PyPI's"
	$(LOCKED) requirements/cpu.lock
	@$(BIN)/python -c 'import importlib.metadata as m; raise SystemExit("+cpu" not in m.version("torch"))' || \
	  $(LOCKED) requirements/torch-cuda.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q -j 0 $(VENV)/lib || true
	@touch $@

demo: venv
	$(BIN)/mr3 demo --config configs/nano/demo.yaml

test: lint types
	$(BIN)/python -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-all: lint types
	$(BIN)/python -m pytest -m "slow or not slow" --hypothesis-profile=fresh $(PYTEST_ARGS)

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: venv
	$(BIN)/mypy

results: venv
	$(BIN)/python -m benchmarks --readme

clean:
	rm -rf runs store build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
