# Every target works alone on a fresh machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCHES := $(basename $(notdir $(wildcard benchmarks/bench_*.py)))

.PHONY: run test check format bench compare docs constraints soak sabotage chaos clean

run: $(STAMP)            ## a live demo room; prints the URLs of its pages
	$(BIN)/liveroom demo

test: $(STAMP)           ## the whole test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(STAMP)          ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)           ## regenerate the schemas under docs/ from the code
	$(BIN)/python -m protocol.schema docs
	$(BIN)/python -m engine.http.openapi docs
	$(BIN)/python -m loadtest.template docs

bench: $(STAMP)          ## the benchmarks; see benchmarks/README.md
	@$(if $(BENCHES),,echo "no benchmarks yet; see benchmarks/README.md")
	@set -e; for bench in $(BENCHES); do $(BIN)/python -m benchmarks.$$bench; done

sabotage: $(STAMP)       ## planted bugs in larger runs: all must be named, twenty clean runs raise nothing
	$(BIN)/python -m pytest tests/sabotage -m soak -o addopts= -o timeout=600 $(PYTEST_ARGS)

compare: $(STAMP)        ## the engine beside other servers, 12 minutes; see benchmarks/README.md
	$(BIN)/python -m benchmarks compare

soak: $(STAMP)           ## minutes-long tests that `make test` leaves out
	$(BIN)/python -m pytest -m soak -o addopts= -o timeout=1800 $(PYTEST_ARGS)

chaos: $(STAMP)          ## every fault against a running sale; SEED=n plays another one, ONLY=name one alone
	$(BIN)/python -m tests.chaos --seed $(or $(SEED),1) $(foreach fault,$(ONLY),--only $(fault)) $(CHAOS_ARGS)

constraints: $(STAMP)
	(sed -n 1p constraints.txt; $(BIN)/pip freeze --exclude-editable | grep -viE '^(liveroom|pip|setuptools)\b') > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis liveroom-data loadtest-out chaos-out

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,loadtest]'
	touch $(STAMP)
