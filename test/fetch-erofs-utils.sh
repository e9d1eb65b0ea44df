#!/bin/bash
# Prints the path of an fsck.erofs that knows 512-byte blocks.
#
# Debian 12 has erofs-utils 1.5, which does not. Then the packages of Debian 13
# and the libraries they need, libc too, are downloaded (verified by apt) and
# unpacked into a cache directory; nothing is installed, and the system's own
# apt configuration and lists are not touched. The mirror is
# TUG_TEST_DEBIAN_MIRROR, else the one that the machine's apt uses.
set -euo pipefail

fits() { # fits FSCK: version 1.7 or newer
	local v
	v=$("$1" -V 2>&1 | grep -oE '[0-9]+\.[0-9]+' | head -n 1) || return 1
	[ "$(printf '%s\n' 1.7 "$v" | sort -V | head -n 1)" = 1.7 ]
}

PATH=$PATH:/usr/sbin:/sbin
if own=$(command -v fsck.erofs) && fits "$own"; then
	echo "$own"
	exit 0
fi

cache=${TUG_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/tug-test}/erofs-utils
fsck=$cache/fsck.erofs
if [ -x "$fsck" ] && fits "$fsck"; then
	echo "$fsck"
	exit 0
fi
mkdir -p "$cache"
exec 9>"$cache/lock"
flock 9 # several test packages may want it at once
if [ -x "$fsck" ] && fits "$fsck"; then
	echo "$fsck"
	exit 0
fi

work=$(mktemp -d "$cache/work-XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{lists/partial,cache/archives/partial,debs,etc,root}
arch=$(dpkg --print-architecture)
suite=trixie
mirror=${TUG_TEST_DEBIAN_MIRROR:-$(find /etc/apt/sources.list* -type f -exec sed -nE 's%^[^#]*(https?://[^ ]+/debian)/?( .*)?$%\1%p' {} + | sed -n 1p)}
mirror=${mirror:-http://deb.debian.org/debian}
echo "deb [arch=$arch signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$work/etc/sources.list"
: >"$work/etc/status" # nothing is installed, as far as this apt knows
apt_opts=(
	-qq
	-o Dir::Etc::SourceList="$work/etc/sources.list"
	-o Dir::Etc::SourceParts=/dev/null
	-o Dir::Etc::Preferences=/dev/null
	-o Dir::Etc::PreferencesParts=/dev/null
	-o Dir::State::Lists="$work/lists"
	-o Dir::State::status="$work/etc/status"
	-o Dir::Cache="$work/cache"
	-o Acquire::Languages=none
	-o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
	-o Acquire::Retries=3
	-o APT::Architecture="$arch"
	-o APT::Architectures="$arch"
	-o APT::Install-Recommends=false
	-o APT::Sandbox::User=
	-o Debug::NoLocking=1
)
apt-get "${apt_opts[@]}" update >&2 </dev/null
# What apt would install for it, from nothing: the whole set of libraries.
mapfile -t debs < <(apt-get "${apt_opts[@]}" --print-uris install erofs-utils </dev/null | sed -n "s/^'\([^']*\)' \([^ ]*\).*/\2/p" | sed 's/_.*//')
[ ${#debs[@]} -gt 0 ] || { echo "fetch-erofs-utils: apt finds no erofs-utils in $suite" >&2; exit 1; }
(cd "$work/debs" && apt-get "${apt_opts[@]}" download "${debs[@]}" >&2 </dev/null)
for deb in "$work"/debs/*.deb; do
	dpkg-deb -x "$deb" "$work/root"
done

rm -rf "$cache/root"
mv "$work/root" "$cache/root"
loader=$(find "$cache/root" -name "ld-linux*.so*" | head -n 1)
libs=$(dirname "$(find "$cache/root" -name 'libc.so.6' | head -n 1)")
cat >"$fsck.new" <<END
#!/bin/sh
exec "$loader" --library-path "$libs:$cache/root/lib/$(basename "$libs")" "$cache/root/usr/bin/fsck.erofs" "\$@"
END
chmod 755 "$fsck.new"
mv "$fsck.new" "$fsck"
# Later runs without sudo must be able to replace it.
[ -z "${SUDO_UID:-}" ] || chown -R "$SUDO_UID:${SUDO_GID:-0}" "$cache"
fits "$fsck" || { echo "fetch-erofs-utils: the fetched fsck.erofs does not run" >&2; exit 1; }
echo "$fsck"
