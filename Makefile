# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEMO := runs/digits
export JAX_PLATFORMS ?= cpu

.PHONY: demo test slow lint bench clean

demo: $(READY)  ## Train on real handwritten digits and watch the features collapse (about 3 min).
	$(BIN)/python -m train digits $(DEMO)
	$(BIN)/python -m probes figures $(DEMO) --out $(DEMO)/figures
	$(BIN)/python -m probes report $(DEMO)

test: $(READY)  ## The test suite, without the tests marked slow.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(TESTS)

# Those that compare numbers, or train for long, have programs optimised as a user's are.
OPTIMIZED := tests/test_conformance.py tests/test_definitions.py tests/test_train_norm.py \
	tests/test_probes_optimum.py tests/test_interval.py tests/test_train_main.py
slow: $(READY)  ## The tests marked slow.
	VCI_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -n 2 -m slow $(OPTIMIZED) $(TESTS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(OPTIMIZED:%=--ignore=%) $(TESTS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)  ## The speed claims about metrics, measured here; benchmarks/ has the others.
	$(BIN)/python -m benchmarks.metrics  # PyTorch beside it: $(BIN)/pip install torch==2.13.0

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vci_jax needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]" -c constraints.txt
	touch $(READY)

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache .mypy_cache
