# The targets are described in docs/building.md; `make` alone builds.
.DEFAULT_GOAL := build
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

GOFLAGS_P ?= -p 2
VERSION := $(shell git describe --always --dirty --tags 2>/dev/null)
LDFLAGS := -s -w -X github.com/naru-project/naru/pkg/version.linked=$(VERSION)
STATE ?= .naru-dev
TOOLS := bin/tools
# Built tools are kept between runs here, by the digest of the tools module.
TOOL_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/naru-tools/$(shell cat deploy/tools/go.mod deploy/tools/go.sum | sha256sum | cut -c1-16)
BUF_VERSION := 1.75.0

PROGRAMS := naru naru-controlplane naru-zoneagent naru-broker naru-dev
PACKAGE_naru := ./controlplane/cmd/naru
PACKAGE_naru-controlplane := ./controlplane/cmd/naru-controlplane
PACKAGE_naru-zoneagent := ./zoneagent/cmd/naru-zoneagent
PACKAGE_naru-broker := ./federation/cmd/naru-broker
PACKAGE_naru-dev := ./deploy/dev/cmd/naru-dev

.PHONY: setup build run test e2e race soak bench sim soak-audit lint generate generate-check clean $(PROGRAMS:%=bin/%)

setup: ## install the Debian packages that running and testing need
	@deploy/setup.sh

build: $(PROGRAMS:%=bin/%) ## static binaries in bin/

$(PROGRAMS:%=bin/%): bin/%:
	@CGO_ENABLED=0 go build $(GOFLAGS_P) -trimpath -ldflags '$(LDFLAGS)' -o $@ $(PACKAGE_$*)

run: setup build ## the reference site on this machine, and the main job before your eyes
	@bin/naru-dev run --state $(STATE)

test: setup build $(TOOLS)/dex ## everything: unit, component and end to end
	@deploy/test.sh ./...

e2e: setup build $(TOOLS)/dex ## end to end only
	@deploy/test.sh ./deploy/e2e/...

race: ## the race detector where it matters
	@go test $(GOFLAGS_P) -race -short ./federation ./federation/internal/... ./federation/hub ./federation/dial ./federation/link ./controlplane/internal/replica/... ./pkg/placement/... ./zoneagent/internal/desk ./zoneagent/internal/members ./zoneagent/internal/schedule/... ./zoneagent/internal/worker/...

soak: ## random lives of requests: ten million by the rules, ten thousand logs, twenty thousand procedures by the API
	@go test $(GOFLAGS_P) ./controlplane/internal/request -run P6 -rapid.checks=10000000 -timeout 24h
	@go test $(GOFLAGS_P) ./controlplane/internal/fsm -run 'P23TheSame|P24Snapshot|P2Duplicated|RandomLogs' -rapid.checks=10000 -timeout 24h
	@go test $(GOFLAGS_P) ./controlplane/internal/service -run P6NobodyGetsPastThePeople -rapid.checks=20000 -timeout 24h

bench: build ## the benchmarks of docs/benchmarks.md; NAME=S1 for one
	@deploy/bench.sh $(NAME)

sim: build ## a large simulated fleet, one zone, no QEMU
	@bin/naru-dev run --state $(STATE) --without-libvirt

soak-audit: ## P8 with a million edits of an export of the audit log; some ten minutes
	@NARU_AUDIT_EDITS=1000000 go test $(GOFLAGS_P) -count=1 -timeout 60m -run P8 ./pkg/audit

lint: $(TOOLS)/staticcheck ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l $$(git ls-files '*.go' | grep -v '^proto/gen/'))" || { gofmt -l $$(git ls-files '*.go' | grep -v '^proto/gen/'); exit 1; }
	@go vet $(GOFLAGS_P) ./...
	@$(TOOLS)/staticcheck ./...

$(TOOLS)/%: deploy/tools/go.mod deploy/tools/go.sum
	@mkdir -p $(TOOL_CACHE) $(TOOLS)
	@cd deploy/tools && for t in $$(go list tool) ./protoexport; do \
	  b=$(TOOL_CACHE)/$${t##*/}; [ -x $$b ] || go build $(GOFLAGS_P) -o $$b $$t; cp $$b $(CURDIR)/$(TOOLS)/; done

$(TOOLS)/dex: deploy/tools/dex/go.mod deploy/tools/dex/go.sum deploy/tools/dex/main.go
	@mkdir -p $(TOOL_CACHE) $(TOOLS)
	@cd deploy/tools/dex && b=$(TOOL_CACHE)/dex-$$(cat go.mod go.sum main.go | sha256sum | cut -c1-16); \
	  [ -x $$b ] || CGO_ENABLED=0 go build $(GOFLAGS_P) -trimpath -ldflags '-s -w' -o $$b .; cp $$b $(CURDIR)/$@

$(TOOLS)/buf:
	@command -v npm >/dev/null || { echo "make generate needs npm, which brings buf; install nodejs and npm, or leave the generated code as it is." >&2; exit 1; }
	@mkdir -p $(TOOL_CACHE)/npm-$(BUF_VERSION) $(TOOLS)
	@[ -x $(TOOL_CACHE)/npm-$(BUF_VERSION)/node_modules/.bin/buf ] || npm install --silent --no-fund --no-audit --prefix $(TOOL_CACHE)/npm-$(BUF_VERSION) @bufbuild/buf@$(BUF_VERSION)
	@ln -sf $(TOOL_CACHE)/npm-$(BUF_VERSION)/node_modules/.bin/buf $@

generate: $(TOOLS)/protoexport $(TOOLS)/buf ## Go, gateway and OpenAPI from proto/
	@rm -rf proto/third_party && $(TOOLS)/protoexport proto/third_party
	@cd proto && ../$(TOOLS)/buf format -w --path naru && ../$(TOOLS)/buf lint && rm -rf gen && ../$(TOOLS)/buf generate
	@go run ./deploy/openapi proto/gen/openapi.yaml pkg/gateway/openapi.json

generate-check: $(TOOLS)/protoexport $(TOOLS)/buf ## fails when generated code is stale or the API breaks proto/baseline.binpb
	@$(MAKE) --no-print-directory generate
	@git diff --exit-code --stat -- proto pkg/gateway/openapi.json && test -z "$$(git status --porcelain -- proto pkg/gateway/openapi.json)" || { echo "generated code is stale: run 'make generate' and commit what it changes" >&2; exit 1; }
	@cd proto && ../$(TOOLS)/buf build -o /tmp/naru-now.$$$$.binpb && ../$(TOOLS)/buf breaking /tmp/naru-now.$$$$.binpb --against baseline.binpb; rc=$$?; rm -f /tmp/naru-now.$$$$.binpb; exit $$rc

clean:
	@rm -rf bin proto/third_party
