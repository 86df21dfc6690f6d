# `make solve` and `make test` are all a fresh machine needs; both create .venv when it is not there.
PYTHON ?= python3
export MPLCONFIGDIR := $(CURDIR)/build/matplotlib
export IPYTHONDIR := $(CURDIR)/build/ipython
export JUPYTER_DATA_DIR := $(CURDIR)/build/jupyter
export HF_HUB_OFFLINE := 1
export PYTHONPATH := $(CURDIR)

.PHONY: test solve

.venv/ready: requirements.txt constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/pip install -q -r requirements.txt -c constraints.txt
	touch $@

test: .venv/ready
	.venv/bin/python -m pytest
