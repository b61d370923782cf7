# make with no target lists what there is.
PYTHON ?= python3
NAME ?=
ARGS ?=
VENV := .venv/bin
CODE := actors config engram reverse_proxy run.py tests bench shipping

.DEFAULT_GOAL := help
.PHONY: help setup demo demo-relay demo-monitoring demo-validator test test-heavy test-engine test-nightly mutation coverage run lint format types bench bench-full lock image clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Make .venv from the hashed lock, with what checks need
	@PYTHON=$(PYTHON) scripts/setup dev

.PHONY: setup-run
setup-run:
	@PYTHON=$(PYTHON) scripts/setup run

# The double of Akash is a part of the tests.
demo: $(if $(findstring akash,$(ARGS)),setup,setup-run) $(if $(findstring docker,$(ARGS)),image) ## Buy a node with play money, use it, stop it (ARGS="--backend akash")
	@$(VENV)/python -m engram.demo $(ARGS)

demo-relay: setup ## Relay what a node signed to a receiver, and see it acknowledged and anchored
	@$(VENV)/python scripts/demo_relay.py

demo-monitoring: setup ## Let a real Prometheus scrape a gateway: alerts fire and clear, dashboards are answered
	@$(VENV)/python scripts/demo_monitoring.py

demo-validator: setup ## Score an honest miner and one that cheats, and set weights
	@$(VENV)/python scripts/demo_validator.py

run: setup-run setup-phone ## Leave the gateway running on http://127.0.0.1:9000 (ARGS="--port 9100")
	@exec $(VENV)/python run.py gateway $(ARGS)

.PHONY: reverse-proxy-config reverse-proxy-setup reverse-proxy-run reverse-proxy-dev
reverse-proxy-config: setup-run ## Make reverse_proxy/config.json to fill in; one that is there is kept
	@$(VENV)/engram proxy config

reverse-proxy-setup: setup-run ## Install what the reverse proxy needs

reverse-proxy-run: setup-run ## Run the reverse proxy by reverse_proxy/config.json, or REVERSE_PROXY_CONFIG_PATH
	@exec $(VENV)/python -m reverse_proxy.server $(ARGS)

reverse-proxy-dev: reverse-proxy-run ## The same

.PHONY: setup-node
setup-node:
	@scripts/setup-node || echo "setup-node: did not work: tests that need Node will be skipped"

.PHONY: setup-adapters
setup-adapters: setup ## Make .venv-adapters, where the LangChain and LlamaIndex adapters are tested
	@scripts/setup-adapters

.PHONY: phone phone-dev setup-phone setup-lighthouse
phone: ## Build the app of phone/ into the package, where the gateway serves it at /app (needs Node 20)
	@scripts/setup-phone

setup-phone:
	@scripts/setup-phone || echo "setup-phone: did not work: the gateway serves no app, and its tests will be skipped"

setup-lighthouse:
	@scripts/setup-lighthouse

phone-dev: phone ## Serve the app from its sources, with a gateway that runs (ENGRAM_GATEWAY=http://127.0.0.1:9000)
	@cd phone && exec npm run --silent dev -- $(ARGS)

# x402's version 1 for Python in .x402-v1, schemathesis in .schemathesis, MCP's SDK in .mcp, REDbot in .redbot: tests
# that need them are marked `heavy`.
.PHONY: setup-clients
setup-clients: setup
	@scripts/setup-clients

test: setup setup-node setup-phone ## Run the whole suite, off line (ARGS="-k payments", ENGRAM_TEST_SEED=7)
	@scripts/test $(ARGS)

test-heavy: setup setup-node setup-phone setup-clients ## Run what needs a browser, an engine, a server or minutes (Debian: apt-get install chromium)
	@ENGRAM_COVERAGE= scripts/test -m "heavy and not nightly" $(ARGS)

test-engine: setup ## Run what needs a container engine on one of its own (ENGINE=podman; needs root)
	@scripts/with-engine $(or $(ENGINE),docker) scripts/test -m heavy tests/provisioning/docker tests/e2e/test_docker.py tests/kit/test_container.py $(ARGS)

test-nightly: setup setup-node setup-phone setup-clients setup-lighthouse ## Run every kill point, long random runs and the check by mutation as well
	@ENGRAM_NIGHTLY=1 ENGRAM_TEST_WITHIN_S=36000 ENGRAM_TEST_SEED=$${ENGRAM_TEST_SEED:-$$(date +%Y%m%d)} scripts/test -m "" $(ARGS)
	@$(MAKE) --no-print-directory mutation ARGS=
	@for engine in docker podman; do ENGRAM_NIGHTLY=1 $(MAKE) --no-print-directory test-engine ENGINE=$$engine ARGS= || exit; done

mutation: setup ## Change the rules in one place at a time: their tests must notice (ARGS="sessions relay")
	@$(VENV)/python scripts/mutation.py $(ARGS)

coverage: setup ## Run the suite and report branch coverage
	@ENGRAM_COVERAGE=all scripts/test $(ARGS)

lint: setup ## Check style, formatting and the arrows between packages
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check .
	@$(VENV)/lint-imports

format: setup ## Rewrite the code to the house format
	@$(VENV)/ruff check --fix .
	@$(VENV)/ruff format .

types: setup ## Check types: mypy --strict and pyright
	@$(VENV)/mypy
	@if [ -e .venv-adapters/engram.stamp ]; then $(VENV)/mypy --python-executable .venv-adapters/bin/python \
	  engram/sdk/langchain.py engram/sdk/llama_index.py; fi
	@$(VENV)/pyright
	@if [ -e phone/node_modules/.engram-stamp ]; then cd phone && npm run --silent check; fi

bench: setup ## Run benchmarks (NAME=purchase for one of them)
	@$(VENV)/python -m bench $(NAME) $(ARGS)

bench-full: setup ## Run the benchmark of a memory node with 100,000 vectors, beside its peers
	@$(VENV)/python -m bench miner --full $(ARGS)

lock: setup ## Write requirements/*.txt again from pyproject.toml (needs a registry)
	@$(VENV)/python -m pip --quiet install pip-tools
	@PATH="$(CURDIR)/$(VENV):$$PATH" scripts/lock

.PHONY: binary binary-gateway
binary: setup phone ## Build dist/engram: one file with everything, that needs no Python and no libraries
	@$(VENV)/python -m shipping.binary dist/engram

binary-gateway: setup phone ## Build dist/engram-gateway: the same without what nodes need on this machine
	@$(VENV)/python -m shipping.binary dist/engram-gateway --gateway

.PHONY: docs
docs: setup ## Build the site of the documentation into build/site
	@scripts/docs

.PHONY: release
release: setup phone ## Make a release here: version, changelog, every form, checksums (ENGRAM_RELEASE_KEY=FILE VERSION=0.2.0 KEY=~/.ssh/release)
	@PYTHON=$(VENV)/python scripts/release "$(VERSION)" $(if $(KEY),--key "$(KEY)")

.PHONY: deb image-gateway
deb: setup phone ## Build dist/engram.deb: the program with units, user, completions and manual (needs dpkg-deb)
	@$(VENV)/python -m shipping.deb dist/engram.deb

image-gateway: setup phone ## Build the OCI image of the program into build/gateway: layout, tar for `docker load`, SBOM
	@$(VENV)/python -m shipping.gateway_image build/gateway

IMAGE := build/image
image: setup ## Build the OCI image of a node into build/image: layout, tar for `docker load`, SBOM; print its digest
	@$(VENV)/python -m shipping $(IMAGE)

clean: ## Remove .venv and caches; data/ stays
	rm -rf .venv .venv-docs build dist *.egg-info .coverage .coverage.* .*_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
