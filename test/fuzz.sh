#!/bin/bash
# Runs every fuzz target in the tree for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
time=${1:-20s}
grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' -H . | while IFS=: read -r file name; do
	dir=$(dirname "$file")
	echo "fuzz: $dir ${name#func }"
	"$go" test -run '^$' -fuzz "^${name#func }\$" -fuzztime "$time" "$dir" </dev/null
done
