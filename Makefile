# `make demo` and `make test` need Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_DEMO := $(VENV)/.ready-demo
DEMO := runs/digits
export JAX_PLATFORMS ?= cpu

.PHONY: demo test slow lint docs bench clean

demo: $(READY_DEMO)  ## Train on real handwritten digits and watch the features collapse (about 3 min).
	$(BIN)/python -m train digits $(DEMO)
	$(BIN)/python -m probes figures $(DEMO) --out $(DEMO)/figures
	$(BIN)/python -m probes report $(DEMO)
	@echo "Open $(DEMO)/report.html in a browser; its end says what to do next."

test: $(READY)  ## The test suite, without the tests marked slow.
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(TESTS)

# Those that compare numbers, or train for long, have programs optimised as a user's are.
OPTIMIZED := tests/vci_jax/test_conformance.py tests/train/test_norm.py \
	tests/vci_jax/probe/test_optimum.py tests/vci_jax/test_interval.py tests/train/test_main.py
slow: $(READY)  ## The tests marked slow.
	VCI_TEST_OPTIMIZED=1 $(BIN)/python -m pytest -n 2 -m slow $(OPTIMIZED) $(TESTS)
	$(BIN)/python -m pytest -n 2 --dist loadfile -m slow $(OPTIMIZED:%=--ignore=%) $(TESTS)

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(READY)  ## The documentation site, into build/site; any warning is an error.
	$(BIN)/python -m mkdocs build --strict

bench: $(READY)  ## The speed claims about metrics, measured here; benchmarks/ has the others.
	$(BIN)/python -m benchmarks.metrics  # PyTorch beside it: $(BIN)/pip install torch==2.13.0

$(READY): pyproject.toml constraints.txt
	@$(call install,dev,the tests and the linters need: 1.6 GB)
	@touch $(READY) $(READY_DEMO)

$(READY_DEMO): pyproject.toml constraints.txt
	@$(call install,demo,the demo needs: 0.9 GB)
	@touch $(READY_DEMO)

define install
$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vci_jax needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": make PYTHON=/path/to/python3.11")'
echo "Installing into $(VENV) what $(2)."
$(PYTHON) -m venv $(VENV)
$(BIN)/python -m pip install --disable-pip-version-check -e ".[$(1)]" -c constraints.txt
endef

clean:
	rm -rf $(VENV) $(DEMO) .pytest_cache .ruff_cache .mypy_cache
