# The programs of the examples: those of the environment at ROOT, which READY builds, or what SOUNDSSL and PYTHON name.

.DEFAULT_GOAL := all

ifndef SOUNDSSL
SOUNDSSL := $(ROOT)/.venv/bin/soundssl
PYTHON := $(ROOT)/.venv/bin/python
READY := $(ROOT)/.venv/soundssl-installed
else
PYTHON ?= python3
endif

ifneq ($(THREADS),0)
export OMP_NUM_THREADS = $(THREADS)
endif

$(ROOT)/.venv/soundssl-installed: $(ROOT)/pyproject.toml
	test -x $(ROOT)/.venv/bin/python || python3 -m venv $(ROOT)/.venv
	$(ROOT)/.venv/bin/python -m pip install -e '$(ROOT)[test]'
	touch $@
