# `make report` and `make test`, each alone on a fresh machine, do all that is needed. `make help` lists the rest.
PROFILE ?= smoke
PY := .venv/bin/python
.DEFAULT_GOAL := help
.PHONY: help setup report test lists strip lock

help: ## what can be made
	@sed -n 's/^\([a-z]*\):.*## /\1|/p' $(MAKEFILE_LIST) | while IFS='|' read -r name what; do printf '  make %-8s %s\n' "$$name" "$$what"; done

# Of every Python that is asked for by name: make test PYTHON=python3.13 makes .venv anew where it is another one's.
INSTALLED := .venv/installed$(subst /,_,$(PYTHON))
setup: $(INSTALLED) ## .venv with the locked packages and the project; again only when lock or pyproject changed

$(INSTALLED): requirements.lock pyproject.toml setup.py
	@PYTHON='$(PYTHON)' .ci/setup
	@touch $@

report: setup ## run the notebooks: reports/$(PROFILE)/summary.md; PROFILE=smoke (minutes), cpu or paper
	@$(PY) -m coseglib.cli report --profile $(PROFILE)

# COSEG_CHECK_FIGURES: a figure with text that is cut or covered is an error, in the notebooks' processes too.
# A file of tests stays in one process, for what its tests share; a process takes one core, four at the most for memory.
test: setup ## lint, tests, and the notebooks cell by cell, on up to four cores
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@COSEG_CHECK_FIGURES=legible:refuse_faults PYTHONPATH=$(CURDIR)/tests OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $$($(PY) -c 'import joblib; print(min(4, joblib.cpu_count()))') \
	    --dist loadfile --nbval-lax --nbval-current-env --nbval-cell-timeout=600 tests notebooks

lists: setup ## write data/lists/*.csv anew from the data sets that are found
	@$(PY) -m coseglib.data.lists

strip: setup ## take the outputs out of the notebooks, but for cells tagged nbval-check-output
	@$(PY) -m coseglib.report.notebooks notebooks/*.ipynb

# For 3.11 and later on all platforms, so that one file serves all; what is pinned stays. Needs uv (pip install uv).
lock: ## make requirements.lock anew from pyproject.toml: versions and hashes, no addresses
	uv pip compile --universal --python-version 3.11 --extra crf --extra onnx --generate-hashes --no-annotate --no-header --quiet --output-file requirements.lock pyproject.toml
