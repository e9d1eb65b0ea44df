#!/bin/sh
# Builds the benchmark program and runs it as root; arguments are its flags.
# It wants bin/tug and bin/tug-init (make build) and Debian's podman, runc and
# busybox-static (test/install-deps.sh).
set -eu
cd "$(dirname "$0")/.."
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
${GO:-go} build -o "$dir/tug-bench" ./bench
if [ "$(id -u)" = 0 ]; then
	"$dir/tug-bench" "$@"
else
	sudo --preserve-env=PATH,HOME,TUG_TEST_CACHE "$dir/tug-bench" "$@"
fi
