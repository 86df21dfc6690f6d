# `make solve` and `make test` are all a fresh machine needs; both create .venv when it is not there.
PYTHON ?= python3
export MPLCONFIGDIR := $(CURDIR)/build/matplotlib
export IPYTHONDIR := $(CURDIR)/build/ipython
export JUPYTER_DATA_DIR := $(CURDIR)/build/jupyter
export HF_HUB_OFFLINE := 1
export PYTHONPATH := $(CURDIR)

# What Kaggle and Colab have installed; with this torchao, PEFT refuses to make a LoRA.
KAGGLE_IMAGE := torch==2.10.0 transformers==5.0.0 peft==0.19.1 numpy==2.0.2 safetensors==0.7.0 torchao==0.10.0

# One process a core and one thread a process; the tests of a file stay together.
PYTEST := -m pytest -n logical --maxprocesses 4 --dist loadfile
test test-kaggle faults: export OMP_NUM_THREADS := 1

# One sentence in place of pip's many where the Python of the variable $1 is too old.
NEW_ENOUGH = $($1) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("$1=$($1): is Python %d.%d, 3.11 or newer is needed; \
	make $1=python3.12 $(MAKECMDGOALS)" % sys.version_info[:2])'

.PHONY: test test-kaggle faults soak solve notebooks

.venv/ready: requirements.txt constraints.txt
	@$(call NEW_ENOUGH,PYTHON)
	$(PYTHON) -m venv --clear .venv
	.venv/bin/pip install -q -r requirements.txt -c constraints.txt
	touch $@

test: .venv/ready
	.venv/bin/python $(PYTEST)

# The fault table, and its sweeps: 500 kills, 10,000 challenge files, a run without a network. Wants strace; minutes.
faults: .venv/ready
	.venv/bin/python $(PYTEST) -o python_files='test_*.py sweep_*.py' tests/faults

# Runs of the real solver, killed at random and continued, for SOAK_S seconds.
SOAK_S ?= 1800
soak: .venv/ready
	.venv/bin/python tests/bench/soak.py --seconds $(SOAK_S)

# As in the image, where this machine has it: not every version of Python can take those of the packages.
KAGGLE_PYTHON ?= $(shell python3.12 -c '' 2>/dev/null && echo python3.12 || echo $(PYTHON))
.venv-kaggle/ready: requirements.txt
	@$(call NEW_ENOUGH,KAGGLE_PYTHON)
	$(KAGGLE_PYTHON) -m venv --clear .venv-kaggle
	.venv-kaggle/bin/pip install -q -r requirements.txt $(KAGGLE_IMAGE)
	touch $@

# What runs on Kaggle, with the versions of Kaggle's image.
test-kaggle: .venv-kaggle/ready
	.venv-kaggle/bin/python $(PYTEST) tests/arc tests/props tests/model tests/solve tests/kaggle/test_notebook.py \
		tests/kaggle/test_image.py

# The submission notebook on the 10 ARC-AGI-1 evaluation tasks with the fewest cells, in five minutes.
solve: .venv/ready
	mkdir -p build
	.venv/bin/python -m ttt_core data --edition arc-agi-1 --out build/data
	rm -rf build/run
	.venv/bin/python -m jupytext -q --to ipynb --output build/submission.ipynb notebooks/submission.py
	.venv/bin/python -m papermill --no-progress-bar build/submission.ipynb build/submission.executed.ipynb \
		-k python3 -p challenges build/data/arc-agi_evaluation_challenges.json \
		-p solutions build/data/arc-agi_evaluation_solutions.json \
		-p model kaggle_dataset/model -p run_dir build/run -p budget_s 300 -p tasks 10
	.venv/bin/python -m ttt_core score build/run/submission.json build/data/arc-agi_evaluation_solutions.json
	.venv/bin/python -m ttt_core report build/run --solutions build/data/arc-agi_evaluation_solutions.json
	@echo "figure: build/run/tasks.png   notebook: build/submission.executed.ipynb"

# The .ipynb of every notebook anew from its .py, or the other way round, whichever is newer.
notebooks: .venv/ready
	.venv/bin/python -m jupytext --sync notebooks/*.py
	.venv/bin/python -m nbconvert --clear-output --inplace notebooks/*.ipynb
