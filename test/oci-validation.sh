#!/bin/bash
# Builds the validation programs of opencontainers/runtime-tools from their
# module and runs each with bin/tug-oci, and with runc where it is installed.
# Prints a line per program, and fails when one passes with runc and not with
# tug that is not among those which docs/oci.md says do not.
#
# Needs root, the Go module proxy, and 5 minutes. TUG_TEST_CACHE keeps what is built.
set -euo pipefail
cd "$(dirname "$0")/.."
repo=$PWD
version=v0.9.0
known=" linux_ns_itype linux_ns_path mounts "
cache=${TUG_TEST_CACHE:-$HOME/.cache/tug-test}/runtime-tools-$version
[ -e bin/tug-oci ] || { echo "bin/tug-oci is not there: run make"; exit 1; }

build() {
	local src
	src=$(cd "$(mktemp -d)" && go mod download -json "github.com/opencontainers/runtime-tools@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
	rm -rf "$cache.new"
	cp -r "$src" "$cache.new"
	chmod -R u+w "$cache.new"
	cd "$cache.new"
	# It is older than modules; these are the versions of its time.
	cat >go.mod <<-MOD
		module github.com/opencontainers/runtime-tools

		go 1.16

		require (
			github.com/blang/semver v3.5.1+incompatible
			github.com/hashicorp/go-multierror v1.0.0
			github.com/mndrix/tap-go v0.0.0-20171203230836-629fa407e90b
			github.com/mrunalp/fileutils v0.5.0
			github.com/opencontainers/runtime-spec v1.0.2
			github.com/opencontainers/selinux v1.0.0
			github.com/satori/go.uuid v1.1.0
			github.com/sirupsen/logrus v1.9.0
			github.com/syndtr/gocapability v0.0.0-20200815063812-42c35b437635
			github.com/urfave/cli v1.19.1
			github.com/xeipuuv/gojsonschema v1.2.0
			golang.org/x/sys v0.20.0
		)
	MOD
	CGO_ENABLED=0 go build -mod=mod -o runtimetest ./cmd/runtimetest
	mkdir programs
	go build -mod=mod -o programs ./validation/...
	cd "$repo"
	mv "$cache.new" "$cache"
}

# verdict RUNTIME PROGRAM prints "pass" or what went wrong.
verdict() {
	local out code=0 bad
	out=$(cd "$cache" && RUNTIME=$1 timeout 60 "./programs/$2" 2>/dev/null </dev/null) || code=$?
	bad=$(grep '^not ok' <<<"$out" | grep -vc -e '# SKIP' -e '# TODO' || true)
	if [ "$code" = 0 ] && [ "$bad" = 0 ]; then
		echo pass
	else
		echo "fail(code $code, $bad not ok)"
	fi
}

[ -d "$cache" ] || build
fail=0
passed=0
for p in "$cache"/programs/*; do
	p=$(basename "$p")
	tug=$(verdict "$repo/bin/tug-oci" "$p")
	runc=absent
	[ "$tug" = pass ] || ! command -v runc >/dev/null || runc=$(verdict "$(command -v runc)" "$p")
	echo "$p: tug $tug$([ "$tug" = pass ] || echo ", runc $runc")"
	[ "$tug" != pass ] || passed=$((passed + 1))
	if [ "$tug" != pass ] && [ "$runc" = pass ] && [[ $known != *" $p "* ]]; then
		fail=1
		echo "$p: runc passes, and it is not among the known"
	fi
done
echo "$passed programs pass with tug"
exit $fail
