# Everything is done in .venv/, which any of these makes when it is missing.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up
DOCS_STAMP := .venv/.set-up-docs

TYPESCRIPT := typescript@5.9.3

.PHONY: setup demo test lint types types-page check docs

setup: $(STAMP)

# torch comes first and by its exact version, so that nothing else decides which build of it is taken.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt \
		$$(grep -E '^torch(vision)?==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup
	$(BIN)/engram demo

# Three at a time on two processors, since many tests wait for processes; a file's tests stay together, and share what
# they set up (tests/distribution.py has the files' order). Many start real processes and race them, on machines that do
# other things too: one that fails is run a second time, and is named and counted in the closing lines. Whoever looks
# for such tests runs pytest without the reruns. Modules are compiled once, for all the processes that tests start.
test: setup
	env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/pytest \
		-n 3 --dist loadfile --no-loadscope-reorder --reruns 1 -r fER --durations 25

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The client also as the earliest Python that it is for.
types: setup
	$(BIN)/mypy
	$(BIN)/mypy --python-version 3.10 -p engram_client

# The page's modules are checked as they are: nothing is built from them. Where there is no node, or the compiler can
# neither be found nor fetched, they are not.
types-page: setup
	@command -v node >/dev/null && command -v npm >/dev/null || { echo "types-page: left out, there is no node"; exit 0; }; \
	test -x .venv/node/node_modules/.bin/tsc || \
		npm install --silent --no-save --ignore-scripts --prefix .venv/node $(TYPESCRIPT) 2>/dev/null || \
		{ echo "types-page: left out, $(TYPESCRIPT) cannot be fetched"; exit 0; }; \
	.venv/node/node_modules/.bin/tsc --project service/ui

check: lint types types-page test

# What builds the pages is installed for this target only. The theme's notice about its own future is no warning about
# these pages.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean

$(DOCS_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@
