#!/bin/sh
# Makes the kernel and the schedulers of the sched_ext tests: Debian's 6.12 source, built with ktstr's kconfig into its
# cache, and scx_simple and scx_qmap of the same source. What is ready already is left alone, so a second run takes
# seconds; the first takes about ten minutes on two cores. Says what it did and why.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh

say() { printf 'kernel: %s\n' "$*" >&2; }
. scripts/debian.sh
. scripts/sched_ext.sh

# The schedulers want clang 16 or later (tools/sched_ext/README.md).
debian_packages linux-source-6.12 clang-19

source=/usr/src/linux-source-6.12.tar.xz
key="$(node dist/bin/ktstr.cjs kernel build --tarball "$source")"
entry="$(dirname "$(node dist/bin/ktstr.cjs kernel path "$key")")"
say "the kernel is in $entry"

# By the kernel's key, so that another kernel gets schedulers of its own types.
schedulers="$(dirname "$(dirname "$entry")")/schedulers"
if [ -d "$schedulers/$key" ]; then
  say "schedulers: as built in $schedulers/$key"
  exit
fi
scratch "$schedulers"
sched_ext clang-19 "$source" "$entry/bzImage" "$schedulers/$key" scx_simple scx_qmap
