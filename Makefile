# SPDX-License-Identifier: Apache-2.0
# `make help` lists what there is. Works as root on Debian 12, 13 and Ubuntu 24.04.
PYTHON ?= /usr/bin/python3
VENV ?= $(CURDIR)/.venv
BPFTOOL ?= $(shell tools/find-bpftool)
PYTEST = $(VENV)/bin/python -m pytest
STAMP = $(VENV)/.stamp
# `make build ARCH=arm64` on x86-64 compiles for the other; names are those of probes/Makefile.
HOST_ARCH := $(if $(filter aarch64 arm64,$(shell uname -m)),arm64,x86)
ARCH ?= $(HOST_ARCH)
ifeq ($(ARCH) $(HOST_ARCH),arm64 x86)
CC := aarch64-linux-gnu-gcc
endif
ATTACKS = agent/ringfence/_bpf$(if $(filter-out x86,$(ARCH)),/$(ARCH))/attacks
ARGS ?=
CHOSEN ?=

.DEFAULT_GOAL := help
.PHONY: help deps deps-test deps-vm venv build abi docs demo demo-vm unit test test-all screenshots lint format mutants adversary fuzz bench conformance test-vm test-vm-all vm-fetch \
  test-cluster test-package cluster-fetch wheel deb release clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

deps: ## system packages to build and to run the demo (apt, only what is missing)
	@tools/deps build run

deps-test: deps ## system packages that the tests want beside them
	@tools/deps test bcc observe image wasm

deps-vm: deps ## system packages to boot virtual machines, and what is run in them
	@tools/deps vm test bcc containers benign

venv: $(STAMP) ## a virtual environment in .venv, with the development tools

$(STAMP): pyproject.toml
	@[ -x $(VENV)/bin/python ] || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip -q install --disable-pip-version-check -e '.[dev,docs]'
	@touch $@

build: deps ## compile the probes (clang, libbpf, bpftool)
	@$(MAKE) --no-print-directory -s -C probes BPFTOOL=$(BPFTOOL) ARCH=$(ARCH)
	@$(MAKE) --no-print-directory -s $(ATTACKS) ARCH=$(ARCH)

abi: build venv ## the Python side of what probes and agent share, from the compiled probes
	@$(VENV)/bin/python -m tools.abi

# What `ringfence policy test` runs inside its containers: static, so that it is all that they hold.
$(ATTACKS): $(wildcard tests/escape/attacks/* tests/support/attacks/*)
	@$(CC) -O1 -Wall -static -o $@.tmp $(filter %.c,$^) && mv $@.tmp $@

demo: build venv ## an agent, a privileged container, and more than twenty escapes that it tries
	@$(VENV)/bin/python -m tools.demo $(ARGS)

demo-vm: build venv ## the same in a virtual machine, emulated, where rules deny by BPF-LSM (no root needed)
	@$(VENV)/bin/python -m tools.demo --vm

unit: venv ## unit tests: no root, no system packages, about a minute
	@$(PYTEST) -q -n auto tests/unit tests/docs $(ARGS)

test: deps-test build venv ## everything that this machine can run; what was skipped is listed with its reason
	@$(VENV)/bin/python -m tools.check $(CHOSEN) -- $(ARGS)

test-all: ## all of it, before an issue is closed: every part forced, both guests whole, a cluster (two hours)
	@RINGFENCE_FORCE=all $(MAKE) --no-print-directory test CHOSEN=--all
	@$(MAKE) --no-print-directory test-vm
	@$(MAKE) --no-print-directory test-cluster
	@$(MAKE) --no-print-directory test-package

docs: venv ## the documentation as a site in build/site (MERMAID=a mermaid.min.js: figures without a network)
	@NO_MKDOCS_2_WARNING=1 MERMAID=$(MERMAID) $(VENV)/bin/python -m mkdocs -q build
	@echo build/site/index.html

screenshots: venv ## the pictures of the status page in docs/reference, by the test that looks at it (chromium)
	@RINGFENCE_SCREENSHOTS=1 RINGFENCE_FORCE=browser $(PYTEST) -q tests/services/test_page_look.py -k pictures

lint: venv ## linters only
	@$(PYTEST) -q tests/lint $(ARGS)

format: venv ## lay out all sources as the linters want them
	@$(VENV)/bin/ruff check -q --fix-only . && $(VENV)/bin/ruff format -q .
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs $(VENV)/bin/clang-format -i

mutants: build venv ## apply the defects of tools/mutants one by one, and see a test fail for each (root; guests)
	@$(VENV)/bin/python -m tools.mutants run $(ARGS)

adversary: build deps-vm venv ## every attack on the enforcement, in guests with and without BPF-LSM (an hour)
	@$(VENV)/bin/python -m tests.adversary $(ARGS)

fuzz: venv ## longer runs of the property tests
	@RINGFENCE_FUZZ=1 $(PYTEST) -q tests/unit tests/abi tests/runtime -k fuzz $(ARGS)

bench: build venv ## measure; raw results go to tools/bench/results (ARGS=--quick for a short run)
	@tools/deps peers
	@$(VENV)/bin/python -m tools.bench $(ARGS)

conformance: deps venv ## crun's public test-suite on the runtime (SOURCE=a clone of crun, or its address)
	@[ -n "$(SOURCE)" ] || { echo "conformance: SOURCE= is missing: a clone of crun, or its address" >&2; exit 2; }
	@$(VENV)/bin/python -m tests.runtime.crun_suite $(SOURCE) $(ARGS)

vm-fetch: deps-vm venv ## fetch the kernels of test-vm (and QEMU) into the cache
	@$(VENV)/bin/python -m tools.vm fetch $(ARGS)

test-vm: build deps-vm venv ## what the kernel has a say in, under Linux 6.1 and the newest, in virtual machines
	@$(VENV)/bin/python -m tools.vm test $(ARGS)

test-vm-all: build deps-vm venv ## all that a guest can run, under every kernel of the matrix (hours)
	@$(VENV)/bin/python -m tools.vm test --all --full $(ARGS)

cluster-fetch: venv ## build Kubernetes' programs into the cache (ten minutes; Debian's source package)
	@tools/deps cluster
	@$(VENV)/bin/python -m tests.cluster.build $(ARGS)

test-cluster: build cluster-fetch ## the chart on a real Kubernetes: API server, kubelet, containerd
	@RINGFENCE_FORCE=root,cluster $(PYTEST) tests/cluster $(ARGS)

test-package: build venv ## the package and the wheel as users install them, and `make demo` in a guest (minutes)
	@tools/deps run image vm
	@RINGFENCE_FORCE=root,image,vm $(PYTEST) -m package tests/image $(ARGS)

wheel: build venv ## dist/*.whl with the compiled probes and the policies in it (ARCH=arm64: for that)
	@RINGFENCE_ARCH=$(ARCH) $(VENV)/bin/python -m build -q --wheel

deb: wheel ## dist/*.deb of that wheel, with service, manual pages and completions (dpkg-deb)
	@$(VENV)/bin/python -m tools.deb

release: build venv ## all files of a release in dist/VERSION: wheels, debs, images, chart, SBOM, notes, checksums
	@$(VENV)/bin/python -m tools.release $(ARGS)

clean: ## remove what was built (not the cache of kernels)
	@for arch in x86 arm64; do $(MAKE) --no-print-directory -s -C probes clean ARCH=$$arch; done
	@rm -rf dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/results tests/escape/build
	@find agent runtime tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
