# make setup    .venv with pawtune and its tools (needs python3 with venv, make and git; once)
# make search   a whole search on images made on the spot: trials, leaderboard, test score
# make test     the tests        make slow   the tests that take minutes
# make check    what must be clean before a commit: ruff, its formatter, mypy

# TensorFlow without compiled bytecode makes every worker start 4 s slower.
unexport PYTHONDONTWRITEBYTECODE

# The first Python that pawtune runs on and that can make environments; make PYTHON=... overrules.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
READY := .venv/.ready

DATA ?= sample
FAMILIES ?= conv
TRIALS ?= 8
EPOCHS ?= 12
IMAGE_SIZE ?= 96
NAME ?= $(DATA)-$(shell date +%Y%m%d-%H%M%S)
# Coats are photographed upright: turning them far, as the default space may, hides what stripes are.
SEARCH_OPTIONS ?= --no-baselines --set space.rotation_factor.high=0.1 --set scheduler.grace_period=4
# Two processes, each with the tests of whole modules: most of a test is a search, which waits a lot.
PYTEST_OPTIONS ?= --numprocesses 2 --dist loadfile

.PHONY: setup search test slow check format clean
.DELETE_ON_ERROR:

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "pawtune needs Python 3.11 to 3.13 with the venv module" \
		"(Debian: apt-get install python3-venv); none of python3, python3.13, python3.12," \
		"python3.11 is that. Install one, or name one: make setup PYTHON=/path/to/python" >&2; \
		exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --compile \
		--constraint constraints.txt --editable '.[dev]'
	@touch $@

# := fixes the name once: the time in it must not change between the three commands.
search: NAME := $(NAME)
search: setup
	$(BIN)/pawtune run --data $(DATA) --families $(FAMILIES) --trials $(TRIALS) --epochs $(EPOCHS) \
		--image-size $(IMAGE_SIZE) --name $(NAME) $(SEARCH_OPTIONS)
	$(BIN)/pawtune leaderboard $(NAME)
	$(BIN)/pawtune test $(NAME)

test: setup
	$(BIN)/python -m pytest $(PYTEST_OPTIONS)

slow: setup
	$(BIN)/python -m pytest -m slow $(PYTEST_OPTIONS)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
