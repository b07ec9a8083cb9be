# `make help` lists the targets. Only a digest goes to stdout; set-up and progress go to stderr. (`make -C` adds two
# lines of make's own there: use `make -s -C`.) When the tool fails, make exits with 2, as it always does, and names
# the tool's own status: "Error 3".

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv image build-image push-image test lint clean

VENV := .venv
MADE := $(VENV)/.made
TOOL := $(VENV)/bin/ocibuild

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

venv: $(MADE) ## Put the tool at .venv/bin/ocibuild

# The first interpreter of 3.11 or later that can make a virtual environment. Root on a machine with apt gets
# python3-venv when none can; anyone else is told.
PYTHONS := $(or $(PYTHON),python3 python3.14 python3.13 python3.12 python3.11)
define find_python
python=; \
for candidate in $(PYTHONS); do \
  if $$candidate -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
  then python=$$candidate; break; fi; \
done
endef

$(MADE): pyproject.toml
	@set -eu; exec >&2; \
	if ! $(VENV)/bin/python -m pip --version >/dev/null 2>&1; then \
	  $(find_python); \
	  if [ -z "$$python" ] && [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then \
	    echo 'no Python of 3.11 or later with venv: installing python3-venv'; \
	    apt-get update --quiet; \
	    DEBIAN_FRONTEND=noninteractive apt-get install --quiet --yes --no-install-recommends python3-venv; \
	    $(find_python); \
	  fi; \
	  if [ -z "$$python" ]; then \
	    echo 'error: no Python of 3.11 or later that can make a virtual environment'; \
	    echo '  hint: apt-get install python3-venv (Debian 12, Ubuntu 24.04 or later),' \
	      'or name an interpreter: make PYTHON=/path/to/python3'; \
	    exit 7; \
	  fi; \
	  echo "making $(VENV) with $$python"; \
	  "$$python" -m venv --clear $(VENV); \
	fi; \
	$(VENV)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'; \
	$(VENV)/bin/python -m pip install --quiet --editable . --group test --group lint --group fuzz; \
	touch $@

test: $(MADE) ## Run the whole suite; PYTEST_ARGS='-m "not compile and not sweep"' and the like are passed on
	@$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: $(MADE) ## Check style, format and types
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

clean: ## Remove the virtual environment, dist/ and the caches of the linters and tests
	rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

# --- Images ---------------------------------------------------------------------------------------------------------
# `make image RECIPE=recipes/wee.toml` builds one recipe. ARGS is passed on to `ocibuild recipe`.

ifneq ($(strip $(RECIPE)),)
image: $(MADE) ## Build RECIPE; the image's digest is the last line on stdout
	@$(TOOL) recipe '$(RECIPE)' $(ARGS)
else
image: $(if $(IMAGE),push-image,build-image) ## Without RECIPE: build and push, as the old Makefile did
	@$(if $(IMAGE),:,echo 'note: IMAGE is empty: nothing was pushed' >&2)
endif

# --- The old Makefile's interface -----------------------------------------------------------------------------------
# LTO= OPTIMAL= PYTHON_VERSION=3.14.7 IMAGE=registry.example.org/python make build-image | push-image | image
# LTO and OPTIMAL are on when they are not empty. docs/how-to/keep-using-the-old-makefile.md says more.

VARIANT := $(if $(LTO),optimized-lto,$(if $(OPTIMAL),optimized,plain))
TAG := $(PYTHON_VERSION)-wee$(if $(LTO),-optimized-lto,$(if $(OPTIMAL),-optimized))$(TAG_SUFFIX)
HOST_PLATFORM := linux/$(patsubst aarch64,arm64,$(patsubst x86_64,amd64,$(shell uname -m)))
BUILD = $(if $(PKG_PROXY),OCIBUILD_PROXY='$(PKG_PROXY)') $(TOOL) recipe recipes/$(if $(filter 2.%,$(PYTHON_VERSION)),wee-python2,wee).toml \
  --set python.version='$(PYTHON_VERSION)' --set python.variant=$(VARIANT) --tag '$(TAG)' \
  --lock 'dist/$(TAG).lock.toml' $(if $(PLAIN_HTTP),--plain-http) $(ARGS)
PUSH = --push '$(IMAGE):$(TAG)'

define check_variables
set -eu; refuse() { status=$$1; shift; printf '%s\n' "$$@" >&2; exit $$status; }; \
[ -n '$(PYTHON_VERSION)' ] || refuse 2 'error: PYTHON_VERSION is empty' '  hint: PYTHON_VERSION=3.14.7 make $@'; \
[ -z '$(LTO)' ] || [ -n '$(OPTIMAL)' ] || refuse 2 'error: LTO wants OPTIMAL' '  hint: LTO=1 OPTIMAL=1 make $@'; \
[ -z '$(PLATFORMS)' ] || [ '$(PLATFORMS)' = '$(HOST_PLATFORM)' ] || \
  refuse 3 'error: not yet: PLATFORMS=$(PLATFORMS)' '  because this machine builds $(HOST_PLATFORM) only'; \
[ -z '$(PIP_PROXY_HOST)' ] || echo 'note: PIP_PROXY_HOST has no effect: no pip runs during the build' >&2
endef

build-image: $(MADE) ## Old interface: build PYTHON_VERSION in the variant that LTO and OPTIMAL name
	@$(check_variables); $(BUILD)

push-image: $(MADE) ## Old interface: build what is not built yet, and push it to IMAGE
	@$(check_variables); \
	[ -n '$(IMAGE)' ] || refuse 2 'error: IMAGE is empty' '  hint: IMAGE=registry.example.org/python make $@'; \
	$(BUILD) $(PUSH)
