#!/bin/bash
# Installs the Debian packages that the tests need and this machine lacks.
# Nothing to do is silent and fast. Without apt it names what is missing and
# goes on: the tests that need it will fail by name.
set -euo pipefail

# command package
needs='
gcc gcc
git git
fsck.erofs erofs-utils
mkfs.ext4 e2fsprogs
mkfs.xfs xfsprogs
mkfs.btrfs btrfs-progs
skopeo skopeo
docker-registry docker-registry
debootstrap debootstrap
busybox busybox-static
qemu-system-x86_64 qemu-system-x86
cpio cpio
strace strace
jq jq
zstd zstd
xz xz-utils
getfattr attr
setfacl acl
setcap libcap2-bin
ip iproute2
nft nftables
modprobe kmod
runc runc
podman podman
hyperfine hyperfine
'
PATH=$PATH:/usr/sbin:/sbin
missing=()
while read -r cmd pkg; do
	[ -n "$cmd" ] || continue
	command -v "$cmd" >/dev/null 2>&1 || missing+=("$pkg")
done <<<"$needs"
[ -e /usr/include/seccomp.h ] || missing+=(libseccomp-dev)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing+=(debian-archive-keyring)

[ ${#missing[@]} -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "install-deps: not a Debian system; please install: ${missing[*]}" >&2
	exit 0
fi
echo "install-deps: installing ${missing[*]}"
sudo=
[ "$(id -u)" = 0 ] || sudo=sudo
export DEBIAN_FRONTEND=noninteractive
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" </dev/null; }
apt update
# docker-registry would start a service; policy-rc.d is left alone where there is one.
policy=/usr/sbin/policy-rc.d
made=
if [ ! -e $policy ]; then
	printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
	$sudo chmod 755 $policy
	made=1
fi
trap '[ -z "$made" ] || $sudo rm -f $policy' EXIT
apt install -y --no-install-recommends "${missing[@]}"
