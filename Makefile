# make demo         train CDC on the embedded data over the embedded CLIP, compare with zero-shot CLIP
# make study        every method and the parts of CDC on the embedded data, and docs/study.md; QUICK=1 for a trial of it
# make test         the tests, and how many lines they run; pyproject.toml has the least share
# make faults       the fault campaign, in its long form: killed runs, full disks, broken and hostile files
# make lint         ruff and mypy
#   These first make .venv of requirements.lock, again whenever that file or setup.py changes.
# make lock         renew requirements*.lock after a change of setup.py; UPGRADE=1 to take the newest versions
# make test-lowest  the tests on the lowest versions that setup.py allows, in .venv-lowest; needs python3.9
# make test-newest  the tests on the newest versions that pip finds, in .venv-newest
# PYTHON=python3.12 names another Python than python3.

# Threads that spin while they wait slow each other down where other programs share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1
# Not from the environment, where PYTHON is the interpreter of the scripts.
PYTHON = python3
unexport PYTHON
VENV ?= .venv
READY := $(VENV)/.installed
LOWEST := .venv-lowest
NEWEST := .venv-newest
LOCK_TOOL := .venv-lock
COMPILE = UV_PYTHON_DOWNLOADS=never $(LOCK_TOOL)/bin/uv pip compile --quiet $(if $(UPGRADE),--upgrade) \
	--python-version 3.9 --all-extras --annotation-style line setup.py

.PHONY: demo study test faults lint lock test-lowest test-newest

demo: $(READY)
	$(VENV)/bin/python -m tools.demo

study: $(READY)
	$(VENV)/bin/python -m tools.study $(if $(QUICK),--quick)

test: $(READY)
	SUITE_VERSIONS=lock $(VENV)/bin/python -m pytest --cov

faults: $(READY)
	$(VENV)/bin/python -m pytest -m faults tests/faults

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

lock:
	$(PYTHON) -m venv $(LOCK_TOOL)
	$(LOCK_TOOL)/bin/pip install --quiet --upgrade uv
	$(COMPILE) --universal -o requirements.lock
	$(COMPILE) --resolution lowest-direct --python-platform x86_64-manylinux_2_28 -o requirements-lowest.lock

test-lowest: $(LOWEST)/.installed
	SUITE_VERSIONS=lowest $(LOWEST)/bin/python -m pytest

test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/pip install --quiet -e '.[test]'
	SUITE_VERSIONS=newest $(NEWEST)/bin/python -m pytest

# The environment of a lock. What an older lock left is cleared, in an environment that was made here.
# A pip as old as its Python does not know the wheels of today. The setuptools of the lock builds what pip writes down of setup.py.
define install
$(PYTHON) -m venv $(if $(wildcard $@),--clear) $(@D)
$(@D)/bin/pip install --quiet --upgrade pip
$(@D)/bin/pip install --quiet -r $<
$(@D)/bin/pip install --quiet --no-deps --no-build-isolation -e .
touch $@
endef

$(READY): requirements.lock setup.py
	$(install)

$(LOWEST)/.installed: PYTHON = python3.9
$(LOWEST)/.installed: requirements-lowest.lock setup.py
	$(install)
