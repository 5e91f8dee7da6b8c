# make demo      photos in, 3D asset out, on a laptop CPU in minutes
# make test      the fast tests
# make benchmark-quality, benchmark-hindsight, benchmark-ablations, benchmark-speed, benchmark-load, benchmark-real
#                REAL=folder    see docs/benchmarks.md
# make fuzz      damaged and odd input for every reader, 1,000 each, into docs/resilience.json
# make test-gpu  what needs CUDA
# make test-resilience    kills and faults, see docs/faults.md; QUICK=1 for the fast part
# make test-extras      the live view and the web page (extras `live` and `web`) in a browser
# make test-notebook    runs examples/dreambooth3d.ipynb; make notebook writes what it shows into it
# make wheel     dist/*.whl, which runs outside a clone
# make test-orchestrators    the pipelines on an emulated Kubernetes cluster (Linux, root)
# make audit     secrets, yanked releases and known vulnerabilities; make sbom, make licences: what is installed
# make docs      the documentation as a site, into site/
# make setup     what both start with; done once, and again when requirements.lock changes

SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= $(shell for name in python3.11 python3.12 python3; do \
	if $$name -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null; \
	then echo $$name; break; fi; done)
CONFIG ?= configs/demo.yaml
WORKERS ?= 2

INSTALLED := $(VENV)/.installed
ACTIVATE := source $(VENV)/bin/activate
# Each worker of the tests has a core of its own; more threads would only fight for it.
TEST_ENVIRONMENT := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1

.PHONY: setup demo test lint clean doctor benchmark-quality benchmark-hindsight benchmark-ablations benchmark-speed \
	benchmark-load benchmark-real fuzz test-gpu test-orchestrators test-extras test-notebook notebook wheel test-resilience audit sbom locks licences docs

setup: $(INSTALLED)
	@$(VENV)/bin/dreambooth3d setup

# A lock file is complete: what it does not name is not installed, and each file must have one of its hashes.
# pip would compile its files to byte code one by one, for two minutes.
LOCKED = -m pip install --quiet --disable-pip-version-check --no-compile --no-deps --require-hashes -r
# Whether torch is the build for CUDA that requirements-cuda.lock is of; builds for CPUs, or for another CUDA, are not.
WANTS_CUDA := import importlib.metadata as m; raise SystemExit("nvidia-cudnn-cu13" not in str(m.requires("torch")))

$(INSTALLED): requirements.lock requirements-cuda.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Installing into $(VENV): minutes of computing, and downloads that come to 6 GB where torch is the build for CUDA."
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python $(LOCKED) requirements.lock
	@if $(VENV)/bin/python -c '$(WANTS_CUDA)'; then $(VENV)/bin/python $(LOCKED) requirements-cuda.lock; fi
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@echo "Compiling them to byte code, once."
	@$(VENV)/bin/python -m compileall -q -j 0 "$$($(VENV)/bin/python -c '$(SITE_PACKAGES)')" >/dev/null 2>&1 || true
	@touch $@

demo: setup
	@$(ACTIVATE) && zenml pipeline run pipelines.training.dreambooth3d --config $(CONFIG)

test: setup
	@$(ACTIVATE) && $(TEST_ENVIRONMENT) python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder \
		-m "not slow and not gpu" $(ARGS)

# Each continues where it stopped. QUICK=1 for one subject, few steps and rays on a CPU; ARGS="--workers 4 --minutes 9".
benchmark-quality benchmark-hindsight benchmark-ablations: setup
	@$(ACTIVATE) && python -m benchmarks.quality $(TABLE) --track $(if $(QUICK),--quick) $(ARGS)

benchmark-quality: TABLE := main
benchmark-hindsight: TABLE := hindsight
benchmark-ablations: TABLE := ablations

# ARGS="--diffusers-script FILE --threestudio DIR" adds peers; ARGS="sds_plain sds_compile" measures only these.
benchmark-speed: setup
	@$(ACTIVATE) && python -m benchmarks.speed $(if $(QUICK),--quick) $(ARGS)

# REAL: a folder of photo sets with their truth (docs/benchmarks.md). QUICK=1 for one subject on a CPU.
benchmark-real: setup
	@test -n "$(REAL)" || { echo "Say which folder of photo sets: make benchmark-real REAL=folder" >&2; exit 1; }
	@$(ACTIVATE) && python -m benchmarks.real "$(REAL)" $(if $(QUICK),--quick) $(ARGS)

# A hundred small runs in one process, then eight at once: half an hour. ARGS="--runs 20 --together 2".
benchmark-load: setup
	@$(ACTIVATE) && python -m benchmarks.load --json docs/resilience.json $(ARGS)

# QUICK=1 for what takes less than a minute; else ARGS="--kills 30 --seed 0 --skip faults".
test-resilience: setup
	@$(ACTIVATE) && $(TEST_ENVIRONMENT) python -m \
		$(if $(QUICK),pytest tests/resilience -m "not slow",tests.resilience) $(ARGS)

# The short form is part of `make test`. ARGS="-k photos" runs some of the targets, and leaves what the others found.
fuzz: setup
	@$(ACTIVATE) && $(TEST_ENVIRONMENT) DREAMBOOTH3D_FUZZ=long DREAMBOOTH3D_FUZZ_REPORT=docs/resilience.json \
		python -m pytest tests/fuzz $(ARGS)

test-gpu: setup
	@$(ACTIVATE) && python -m pytest -m gpu $(ARGS)

# A second environment that sees the first: the clients and emulators would otherwise constrain the product's packages.
ORCHESTRATORS := .venv-orchestrators
SITE_PACKAGES = import sysconfig; print(sysconfig.get_path("purelib"))

$(ORCHESTRATORS)/.installed: $(INSTALLED) tests/emulators/requirements.txt
	test -x $(ORCHESTRATORS)/bin/python || $(VENV)/bin/python -m venv $(ORCHESTRATORS)
	{ $(VENV)/bin/python -c '$(SITE_PACKAGES)'; echo '$(CURDIR)'; } \
		> "$$($(ORCHESTRATORS)/bin/python -c '$(SITE_PACKAGES)')/product.pth"
	$(ORCHESTRATORS)/bin/python $(LOCKED) tests/emulators/requirements.txt
	@touch $@

test-orchestrators: setup $(ORCHESTRATORS)/.installed
	@$(TEST_ENVIRONMENT) $(ORCHESTRATORS)/bin/python -m pytest -n $(WORKERS) --dist loadfile tests/orchestrators $(ARGS)

# Likewise the extras `live` and `web`.
EXTRAS := .venv-extras

$(EXTRAS)/.installed: $(INSTALLED) tests/extras/requirements.txt
	test -x $(EXTRAS)/bin/python || $(VENV)/bin/python -m venv $(EXTRAS)
	{ $(VENV)/bin/python -c '$(SITE_PACKAGES)'; echo '$(CURDIR)'; } \
		> "$$($(EXTRAS)/bin/python -c '$(SITE_PACKAGES)')/product.pth"
	$(EXTRAS)/bin/python $(LOCKED) tests/extras/requirements.txt
	@touch $@

test-extras: setup $(EXTRAS)/.installed
	@$(TEST_ENVIRONMENT) $(EXTRAS)/bin/python -m pytest tests/extras $(ARGS)

# Likewise what runs a notebook.
NOTEBOOK := .venv-notebook

$(NOTEBOOK)/.installed: $(INSTALLED) examples/requirements.txt
	test -x $(NOTEBOOK)/bin/python || $(VENV)/bin/python -m venv $(NOTEBOOK)
	{ $(VENV)/bin/python -c '$(SITE_PACKAGES)'; echo '$(CURDIR)'; } \
		> "$$($(NOTEBOOK)/bin/python -c '$(SITE_PACKAGES)')/product.pth"
	$(NOTEBOOK)/bin/python $(LOCKED) examples/requirements.txt
	@touch $@

test-notebook: setup $(NOTEBOOK)/.installed
	@$(TEST_ENVIRONMENT) $(NOTEBOOK)/bin/python -m pytest tests/examples $(ARGS)

notebook: setup $(NOTEBOOK)/.installed
	@$(TEST_ENVIRONMENT) $(NOTEBOOK)/bin/python -m examples.refresh

wheel: $(INSTALLED)
	@$(VENV)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@ls dist/*.whl

# Tools that look at what is installed, in an environment that they cannot change the product's by.
AUDIT := .venv-audit

$(AUDIT)/.installed: supply_chain/requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: make audit PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(AUDIT)/bin/python || $(PYTHON) -m venv $(AUDIT)
	@$(AUDIT)/bin/python $(LOCKED) supply_chain/requirements.txt || { echo "The tools could not be installed: connect \
	this machine to the package index, and try again." >&2; exit 1; }
	@touch $@

# OSV=all.zip: vulnerabilities from OSV's records instead of the network (CONTRIBUTING.md).
audit: $(AUDIT)/.installed
	@$(AUDIT)/bin/python -m supply_chain.audit $(if $(OSV),--osv "$(OSV)") $(ARGS)

sbom: $(INSTALLED) $(AUDIT)/.installed
	@$(AUDIT)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-format JSON --validate \
		--output-file sbom.cdx.json $(VENV)/bin/python
	@echo sbom.cdx.json

locks: $(AUDIT)/.installed
	@$(AUDIT)/bin/python -m supply_chain.hashes $(ARGS)

# The packages of images and emulators too, where their environments are here.
licences: $(INSTALLED) $(AUDIT)/.installed
	@$(VENV)/bin/python -m supply_chain.licences $(wildcard $(foreach venv,$(VENV) $(ORCHESTRATORS) $(EXTRAS) $(AUDIT),\
		$(venv)/lib/python3*/site-packages))

# MkDocs, in an environment that sees the product: some pages are made of its code. ARGS=serve shows changes at once.
DOCS := .venv-docs

$(DOCS)/.installed: $(INSTALLED) website/requirements.txt
	test -x $(DOCS)/bin/python || $(VENV)/bin/python -m venv $(DOCS)
	{ $(VENV)/bin/python -c '$(SITE_PACKAGES)'; echo '$(CURDIR)'; } \
		> "$$($(DOCS)/bin/python -c '$(SITE_PACKAGES)')/product.pth"
	$(DOCS)/bin/python $(LOCKED) website/requirements.txt
	@touch $@

docs: $(DOCS)/.installed
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs $(or $(ARGS),build --quiet) --strict
	@$(if $(ARGS),,echo site/index.html)

lint: $(INSTALLED)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/basedpyright --pythonpath $(VENV)/bin/python

doctor:
	@$(VENV)/bin/dreambooth3d doctor

# What the models are checked against when they are loaded, and in the images.
models/SHA256SUMS: $(shell find models -type f ! -name SHA256SUMS)
	(cd models && find . -type f ! -name SHA256SUMS | LC_ALL=C sort | xargs sha256sum) | sed 's|  \./|  |' > $@

clean:
	rm -rf .zenconfig .zen .dreambooth3d outputs build dist site *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path "./$(VENV)/*" -type d -prune -exec rm -rf {} +
