#!/bin/sh
# Makes a checkout ready: Debian packages, npm packages, the build, the BPF objects. What is ready already is left alone,
# so a second run takes about a second. Says what it did and why.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'setup: %s\n' "$*" >&2; }
. scripts/debian.sh

# qemu boots guests, x86-64 and arm64 ones; busybox is their user space; bpftool loads BPF objects there and judges our
# answers; clang and libbpf's headers compile those objects; musl-gcc compiles the guests' agent; gcc and those after it
# build kernels. The rest judges our answers in the tests: pahole, cpio, readelf, file, lz4, xz; gnupg signs the packages
# of the tests' own mirror; chromium shows the failure page.
packages="qemu-system-x86 qemu-system-arm busybox-static bpftool clang libbpf-dev linux-libc-dev"
packages="$packages musl-tools gcc make flex bison bc libelf-dev git python3-minimal dwarves cpio binutils file lz4 xz-utils zstd gnupg chromium makedumpfile"

# shellcheck disable=SC2086 # a list of words
debian_packages $packages
if [ -z "$(apt-cache search --names-only '^linux-image-6.12-cloud-amd64$' 2>/dev/null)" ]; then
  say "refreshing apt's lists: they hold no 6.12 kernel"
  as_root apt-get update -qq >&2
fi

if [ node_modules/.package-lock.json -nt package-lock.json ]; then
  say "npm packages: as package-lock.json says"
else
  say "npm ci"
  npm ci --silent --no-audit --no-fund >&2
  touch node_modules/.package-lock.json
fi

node scripts/build.mjs --if-stale

for source in demo/*.bpf.c; do
  object="${source%.c}.o"
  [ "$object" -nt "$source" ] && continue
  say "compiling $source"
  clang -O2 -g -target bpf -I"/usr/include/$(uname -m)-linux-gnu" -c "$source" -o "$object"
done
