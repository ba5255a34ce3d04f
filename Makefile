# make demo    train CDC on the embedded data over the embedded CLIP, compare with zero-shot CLIP
# make study   every protocol and the ablation on the embedded data, and docs/study.md; QUICK=1 for a trial of it
# make test    the tests
# make lint    ruff
# All of them first make .venv and install what setup.py names, once.

# Threads that spin while they wait slow each other down where other programs share the cores.
export OMP_WAIT_POLICY ?= PASSIVE
VENV ?= .venv
READY := $(VENV)/.installed

.PHONY: demo study test lint

demo: $(READY)
	$(VENV)/bin/python -m tools.demo

study: $(READY)
	$(VENV)/bin/python -m tools.study $(if $(QUICK),--quick)

test: $(READY)
	$(VENV)/bin/python -m pytest

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

$(READY): setup.py
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --upgrade pip
	$(VENV)/bin/pip install --quiet -e '.[test]'
	touch $@
