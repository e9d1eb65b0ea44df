#!/bin/bash
# gofumpt, go vet and staticcheck over every build of the code: plain, root
# tests, and the other architecture. The tools are pinned in tools/go.mod.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
tool() { "$go" tool -modfile=tools/go.mod "$@"; }
fail=0

step() { # step NAME COMMAND...
	local name=$1 out
	shift
	if out=$("$@" 2>&1) && [ -z "$out" ]; then
		echo "lint: $name: ok"
	else
		printf '%s\n' "$out"
		echo "lint: $name: FAILED"
		fail=1
	fi
}

arm64() { GOOS=linux GOARCH=arm64 "$@"; }
sources() { git ls-files -co --exclude-standard '*.go'; }

step gofumpt tool gofumpt -l $(sources)
step vet "$go" vet ./...
step "vet root" "$go" vet -tags root,vm ./...
step "vet arm64" arm64 "$go" vet ./...
step staticcheck tool staticcheck ./...
step "staticcheck root" tool staticcheck -tags root,vm ./...
step shell bash -n .ci/run test/*.sh
exit $fail
