#!/bin/bash
# Runs every fuzz target in the tree for the given time each.
set -euo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
time=${1:-60s}
grep -rhoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]+' -H . | while IFS=: read -r file name; do
	dir=$(dirname "$file")
	echo "fuzz: $dir ${name#func }"
	# An input that is merely new may cost 5 s of making it smaller, not 60.
	"$go" test -run '^$' -fuzz "^${name#func }\$" -fuzztime "$time" -fuzzminimizetime 5s "$dir" </dev/null
done
