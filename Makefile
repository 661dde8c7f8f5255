# make app: install and start the page. make test: install and run the tests. make docs: build the site into site/.
# docs/index.md has the same commands without make. VENV=folder and PYTHON=python3.12 may be given.
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
APP_ARGS ?=

.PHONY: app audit test check lint docs lock reference sbom prove-full-size screenshots stress wheel

app: $(VENV)/.installed
	$(PY) app.py $(APP_ARGS)

test: $(VENV)/.installed-dev
	$(PY) -m pytest -n 3 --dist loadfile

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

check: lint
	$(MAKE) test

docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet

# Writes the parts of the documents that come from the code.
reference: $(VENV)/.installed-dev
	$(PY) -m dev.reference

# requirements.lock: every distribution with its SHA-256s. sbom.json: those of this system with licences, as CycloneDX.
lock: $(VENV)/.installed-dev
	$(PY) -m pip install --quiet uv
	$(PY) -m dev.distributions lock

sbom: $(VENV)/.installed-dev
	$(PY) -m dev.distributions sbom

# Known vulnerabilities of what requirements.lock lists, from PyPI's database.
audit: $(VENV)/.installed-dev
	$(PY) -m pip install --quiet pip-audit
	$(PY) -m pip_audit --requirement requirements.lock --require-hashes --disable-pip --progress-spinner off

wheel: $(VENV)/.installed-dev
	$(PY) -m pip wheel --no-build-isolation --no-deps --wheel-dir dist .

screenshots: $(VENV)/.installed-dev
	$(PY) -m dev.screenshots

stress: $(VENV)/.installed-dev
	$(PY) -m pytest -m slow --timeout=3600

# Random models of the true size against the stock pipelines: 14 GiB of memory, 20 GB of disk, about an hour.
prove-full-size: $(VENV)/.installed-dev
	$(PY) -m dev.full_size.prove

$(PY):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "OMS Studio needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv --upgrade-deps $(VENV)

# Stamps, so that pip runs once for each change of the requirements.
$(VENV)/.installed: requirements.txt | $(PY)
	$(PY) -m pip install --requirement requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt | $(PY)
	$(PY) -m pip install --requirement requirements-dev.txt
	touch $(VENV)/.installed $@

$(VENV)/.installed-docs: requirements-docs.txt | $(VENV)/.installed-dev
	$(PY) -m pip install --requirement requirements-docs.txt --constraint requirements.txt
	touch $@
