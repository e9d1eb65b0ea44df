# make          static bin/tug, bin/tug-init and bin/tug-box
# make hello    build, then run a container from the built-in image
# make test     install what the tests need, run everything
#
# The rest: unit test-root e2e test-vm lint arch oci-validation fuzz bench modules install clean.
# Parts that need root go through sudo for everybody else.

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -s -w -buildid= -X tug/spec.Version=$(VERSION)
BUILD    := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)'
SUDO     := $(if $(filter 0,$(shell id -u)),,sudo)
# go test builds as the caller and runs the finished test binary as root.
comma    := ,
AS_ROOT  := $(if $(SUDO),-exec 'sudo --preserve-env=PATH$(comma)HOME$(comma)TUG_TEST_CACHE',)
TOOL     := $(GO) tool -modfile=tools/go.mod
# Packages that have tests for root only; test/ has targets of its own.
ROOT_PKGS = $(sort $(dir $(shell grep -rl --include='*_test.go' '^//go:build root' . | grep -v '^./test/')))


.PHONY: all build hello test unit arch test-root e2e test-vm lint oci-validation fuzz bench modules install clean deps

all: build

build:
	$(BUILD) -o bin/ ./cmd/tug ./cmd/tug-init ./cmd/tug-box
	ln -sf tug bin/tug-oci

hello: build
	$(SUDO) bin/tug run --rm tug.local/hello

deps:
	test/install-deps.sh

test: deps build
	test/all.sh

# No root, no network, under a minute.
unit:
	$(GO) test $(shell $(GO) list ./... | grep -v -e /internal/arch -e /test/)

# The rules of the house: imports, modules, sizes.
arch:
	$(GO) test -count=1 ./internal/arch

test-root: deps
	$(GO) test -count=1 -tags root $(AS_ROOT) -timeout 10m $(ROOT_PKGS)

e2e: deps build
	$(GO) test -count=1 -tags root $(AS_ROOT) -timeout 25m ./test/e2e

test-vm: deps build
	$(GO) test -count=1 -tags vm -timeout 28m ./test/vm

lint:
	test/lint.sh

# Needs root and the Go module proxy.
oci-validation: build
	test/oci-validation.sh

# Each fuzz target for FUZZTIME; new inputs that fail land in its testdata.
FUZZTIME ?= 60s
fuzz:
	GO='$(GO)' test/fuzz.sh $(FUZZTIME)

bench: deps build
	bench/run.sh

# Rewrites the reviewed lists of modules that each binary links.
modules:
	$(GO) run ./internal/arch/modules

install: build
	@# tug last: a running supervisor makes way for it, and the next one needs the new tug-init.
	install -D -m 0755 bin/tug-init $(DESTDIR)$(PREFIX)/libexec/tug/tug-init
	install -D -m 0755 bin/tug-box $(DESTDIR)$(PREFIX)/libexec/tug/tug-box
	install -D -m 0755 bin/tug $(DESTDIR)$(PREFIX)/bin/tug
	ln -sf tug $(DESTDIR)$(PREFIX)/bin/tug-oci

clean:
	rm -rf bin dist
