# Every command of the project. `make` alone lists them.
PYTHON ?= python3
PORT ?= 8000
# The last chapters first: they are among the longest, and nobody is to wait for them alone.
NB ?= $(shell ls -r notebooks/*.ipynb)

BIN := .venv/bin
BOOK := _build/html/index.html
# The models that run in the book's pages.
LIVE := $(patsubst book/models/%,book/_static/live/%.js,$(wildcard book/models/*))
INSTALLED := .venv/.installed
SOURCES := $(shell find book notebooks tutvae results benchmarks/speed.json _config.yml _toc.yml \
	-type f -not -path '*/.*' -not -path '*/__pycache__/*' 2>/dev/null)

# The chapters are sized for two cores.
export OMP_NUM_THREADS ?= 2

heading = @printf '\n\033[1m== %s ==\033[0m\n' "$(1)"

.DELETE_ON_ERROR:
.PHONY: help book pdf epub serve test lint types unit nbval pages bench notebooks colab release requirements clean

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | awk -F '\t' '{printf "  make %-14s %s\n", $$1, $$2}'

book: $(BOOK)  ## Build the book and say where to open it
	@echo "The book is in $(BOOK)"
	@echo "Open file://$(CURDIR)/$(BOOK), or run 'make serve'."

serve: $(BOOK)  ## Build the book and serve it on localhost (PORT=8000)
	@echo "The book is at http://localhost:$(PORT)/ (Ctrl-C stops it)."
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT) >/dev/null

pdf: $(BOOK)  ## Print the book into one PDF, through Chromium
	$(BIN)/python tools/print_book.py _build/html/book.pdf
	@echo "The PDF is _build/html/book.pdf"

epub: $(BOOK)  ## Make an EPUB of the book, its formulas written by Chromium
	$(BIN)/python tools/epub.py _build/html/book.epub
	@echo "The EPUB is _build/html/book.epub"

test: lint types unit nbval pages  ## Run everything that CI runs

lint: $(INSTALLED)  ## Check style, format, spelling and that no import runs upwards
	$(call heading,Style)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(call heading,Spelling)
	$(BIN)/codespell
	$(BIN)/codespell --skip '' --ignore-regex '"image/[a-z+]*": "[^"]*"' notebooks
	$(call heading,Floors)
	$(BIN)/lint-imports --no-logo --no-cache

types: $(INSTALLED)  ## Check the types
	$(call heading,Types)
	$(BIN)/mypy

unit: export MPLBACKEND = Agg
unit: $(INSTALLED)  ## Run the unit tests and the docstrings' examples, with at least 95 % of the lines covered
	$(call heading,Unit tests)
	@# In random order. Two processes of one thread: the tests' tensors are too small to share.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not browser" \
		--cov --cov-fail-under=95 tests tutvae

# A stored progress bar would stay at 0 % for ever.
nbval notebooks: export TQDM_DISABLE = 1

# All chapters are run two at a time, a thread each, which takes two thirds of the time; those that
# NB names by themselves, on all threads.
ifeq ($(origin NB),file)
nbval: export OMP_NUM_THREADS = 1
nbval: TWO_AT_A_TIME = -n 2 --dist loadfile --no-loadscope-reorder
endif

nbval: $(INSTALLED)  ## Run every notebook again and compare its outputs (NB=... for one)
	$(call heading,Notebooks)
	$(BIN)/python -m pytest -p no:randomly -p tools.nbval_tolerance -p tools.nbval_times \
		--nbval --nbval-current-env --nbval-sanitize-with tests/book/nbval_sanitize.cfg \
		$(TWO_AT_A_TIME) --durations=5 $(NB)

pages: $(BOOK)  ## Open every built page in a headless browser
	$(call heading,Pages in a browser)
	@# Three processes on two cores: a page is often waited for.
	$(BIN)/python -m pytest -n 3 --dist worksteal -m browser tests/book

bench: export MPLBACKEND = Agg
bench: $(INSTALLED)  ## Measure the speed against the usual way, for the page that shows it (10 minutes)
	$(call heading,Speed)
	$(BIN)/python -m benchmarks.speed

# The stored outputs come from another setting than the one in which `make nbval` compares them:
# one thread, and instructions that every x86-64 of the last ten years has. Sums are then rounded in
# another order, as on another processor, and an output that depends on it shows here, not elsewhere.
notebooks: $(INSTALLED)  ## Run the chapters in place and normalise them (NB=... for one)
	$(BIN)/ruff format $(NB)
	printf '%s\n' $(NB) | ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 OMP_NUM_THREADS=1 \
		xargs -P 2 -n 1 $(BIN)/python tools/notebooks.py

# With no .venv, and from folders with no repository around them.
colab:  ## Run every chapter alone, beside the installed package: in Colab's image or a new environment
	$(call heading,Chapters alone)
	$(PYTHON) tools/colab.py $(NB)

release: $(INSTALLED)  ## Build a release into dist/, commit and tag it (VERSION=x.y.z)
	$(BIN)/python tools/release.py $(VERSION)

requirements:  ## Resolve requirements.txt anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --universal --python-version 3.10 --all-extras \
		--no-annotate --no-header --quiet --output-file requirements.txt
	@# The CUDA libraries come with torch itself where there is a GPU to use.
	@{ echo "# The exact versions that CI runs, for Python 3.10 to 3.13. Made by 'make requirements'"; \
	   echo "# from pyproject.toml; versions already here are kept where they still fit."; \
	   grep -v -E '^(cuda|nvidia|triton)' requirements.txt; } > requirements.new
	@mv requirements.new requirements.txt

clean:  ## Remove everything that was built (and the environment)
	rm -rf .venv _build dist $(LIVE)

# A build always starts afresh: an incremental one would not repeat the warnings of unchanged pages.
$(BOOK): $(INSTALLED) $(SOURCES) $(LIVE)
	$(call heading,Book)
	@rm -rf _build/html
	$(BIN)/jupyter-book build . --all -q -W -n --keep-going >/dev/null
	@# The chapters' set-up cells take it where the repository cannot be reached.
	@$(BIN)/python -m hatchling build -t wheel -d _build/html/wheels >/dev/null
	@$(BIN)/python -m zipfile -c _build/html/notebooks.zip notebooks/*.ipynb
	@touch $(BOOK)

$(LIVE): book/_static/live/%.js: book/models/%/weights.safetensors book/models/%/tokenizer.json \
		tools/live.py | $(INSTALLED)
	@$(BIN)/python tools/live.py book/models/$* >$@

# The version is in __init__.py.
$(INSTALLED): requirements.txt pyproject.toml tutvae/__init__.py
	$(call heading,Environment)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed: make PYTHON=/path/to/python3.12 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "Python's venv module is missing: on Debian or Ubuntu, install the package python3-venv."; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install -qq --disable-pip-version-check --no-build-isolation --no-deps --editable .
	@touch $@
