#!/bin/bash
# Everything that `make test` runs, in stages, with one table at the end. A
# failed stage does not stop the later ones. Called by make, after a build.
set -uo pipefail
cd "$(dirname "$0")/.."
go=${GO:-go}
as_root=()
[ "$(id -u)" = 0 ] || as_root=(-exec 'sudo --preserve-env=PATH,HOME,TUG_TEST_CACHE')

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$go" build -o "$work/report" ./test/report || exit 1
names=() times=() counts=() verdicts=()
passed=0 failed=0

stage() { # stage NAME GO-TEST-ARGUMENTS...
	local name=$1 start=$SECONDS p f verdict=ok
	shift
	echo "=== $name"
	"$go" test -json "$@" 2>&1 </dev/null | "$work/report" -counts "$work/counts"
	local status=("${PIPESTATUS[@]}")
	read -r p f <"$work/counts" || p=0 f=1
	if [ "${status[0]}" != 0 ] || [ "${status[1]}" != 0 ] || [ "$p" = 0 ]; then
		verdict=FAILED
		[ "$f" != 0 ] || f=1
	fi
	names+=("$name") times+=($((SECONDS - start))) counts+=("$p") verdicts+=("$verdict")
	passed=$((passed + p)) failed=$((failed + f))
}

units=$("$go" list ./... | grep -v -e /internal/arch -e /test/)
roots=$(grep -rl --include='*_test.go' '^//go:build root' . | grep -v '^./test/' | xargs -r -n1 dirname | sort -u)

stage "unit tests" $units
stage "architecture" -count=1 ./internal/arch
[ -z "$roots" ] || stage "root tests" -count=1 -tags root "${as_root[@]}" -timeout 10m $roots
stage "end to end" -count=1 -tags root "${as_root[@]}" -timeout 25m ./test/e2e
stage "virtual machines" -count=1 -tags vm -timeout 28m ./test/vm

echo
printf '%-18s %8s %8s  %s\n' STAGE PASSED SECONDS RESULT
for i in "${!names[@]}"; do
	printf '%-18s %8s %8s  %s\n' "${names[$i]}" "${counts[$i]}" "${times[$i]}" "${verdicts[$i]}"
done
echo
echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
