# Two commands do everything on a machine with Python 3.11 to 3.13, pip, make and gcc:
#   make demo    environment, install, the main job on a simulated release, where the report is
#   make test    environment, install, the tests that each take less than about 20 seconds, and a few more
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# More workers than cores: tests of servers and signals mostly wait.
PYTEST_WORKERS ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK = 1
export DO_NOT_TRACK = 1

.PHONY: help install demo test test-slow check format pictures bench sbom clean

help:
	@echo "make demo      install and run the main job on a simulated release"
	@echo "make test      install and run the tests"
	@echo "make test-slow the rest of them: clusters, servers, processes killed"
	@echo "make check     lint, format and types"
	@echo "make format    rewrite the code in the project's format"
	@echo "make pictures  draw the pictures of the documentation from the demo release"
	@echo "make bench     the full-size measurements (hours; see benchmarks/README.md)"
	@echo "make sbom      dist/sbom.json (CycloneDX) and dist/licences.md of what users install"
	@echo "make clean     remove the environment and what the demo wrote"

install: $(VENV)/.installed

# Wheels only: nothing is compiled here but this project itself. firstgalaxydata asks for torch and
# torchvision, though only its data files are read: hence --no-deps.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	"survey_ml needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is %d.%d: try make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --only-binary :all: -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --only-binary :all: --no-build-isolation -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps -c constraints.txt firstgalaxydata
	@touch $@

demo: install
	$(BIN)/survey-ml demo --out demo-release

PYTEST := $(BIN)/python -m pytest --dist loadfile --no-loadscope-reorder
test: install
	$(PYTEST) -n $(PYTEST_WORKERS) -m "not slow"

# Each starts many processes of its own.
test-slow: install
	$(PYTEST) -n 2 -m slow

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pictures: demo
	$(BIN)/python docs/pictures.py demo-release/release docs/images

bench: install
	$(BIN)/python -m benchmarks

# What users install and nothing else, in an environment without pip; the tools are in one of their own.
SBOM := $(VENV)/sbom
sbom: install
	$(PYTHON) -m venv --clear --without-pip $(SBOM)/runtime
	$(PYTHON) -m venv --clear --without-pip $(SBOM)/tools
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --python $(SBOM)/runtime/bin/python install --quiet \
		--only-binary :all: '.[ray,s3,xarray,demo,learning]'
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip --python $(SBOM)/tools/bin/python install --quiet \
		--only-binary :all: cyclonedx-bom pip-licenses
	mkdir -p dist
	$(SBOM)/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--output-file dist/sbom.json $(SBOM)/runtime/bin/python
	$(SBOM)/tools/bin/pip-licenses --python $(SBOM)/runtime/bin/python --format=markdown --with-urls \
		--ignore-packages survey-ml --output-file dist/licences.md

clean:
	rm -rf $(VENV) demo-release
