# Every target sets up what it needs in .venv by itself.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: bench demo docs test lint types check wheel clean

demo: $(VENV)/installed-demo
	$(VENV)/bin/hf-dwt demo $(ARGS)

bench: $(VENV)/installed-bench
	for each in step data start; do $(RUN) benchmarks.$$each --rounds 2 $(ARGS) || exit; done
	$(RUN) benchmarks.growth --rounds 1

docs: $(VENV)/installed-dev
	$(RUN) mkdocs build --strict $(ARGS)

# A file's tests share what took long to make: runs of several ranks, the built site. Three processes on two cores, since
# tests of several ranks and of a Hub wait a quarter of their time.
test: $(VENV)/installed-dev
	$(RUN) pytest -n 3 --dist loadfile --no-loadscope-reorder --durations 20 $(ARGS)

lint: $(VENV)/installed-dev
	$(RUN) ruff format --check .
	$(RUN) ruff check .

types: $(VENV)/installed-dev
	$(RUN) mypy

check: lint types test

wheel: $(VENV)/installed-dev
	$(RUN) build --wheel --no-isolation --outdir dist .

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed-demo: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[plots]'
	touch $@

$(VENV)/installed-dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e '.[dev]'
	touch $@

# TextBrewer, TRL and Liger are compared with, not needed: without what they ask for.
$(VENV)/installed-bench: $(VENV)/bin/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	$(INSTALL) --no-deps textbrewer trl liger-kernel
	touch $@

clean:
	rm -rf $(VENV) build dist site *.egg-info .mypy_cache .pytest_cache .ruff_cache
