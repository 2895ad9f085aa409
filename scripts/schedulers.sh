#!/bin/sh
# Makes what the tests run on Debian's stock kernels: the schedulers of 7.3's tools/sched_ext and the bpftool of 7.3's
# source, in `schedulers/7.3` beside ktstr's cache of kernels. The source is a package of trixie-backports (160 MB), which
# is unpacked and not installed, on any suite. What is ready already is left alone; the first run takes about a minute.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh

say() { printf 'schedulers: %s\n' "$*" >&2; }
. scripts/debian.sh
. scripts/sched_ext.sh

# The verifier of 7.3 refuses qmap_dequeue of scx_qmap as clang 19 compiles it.
debian_packages clang-22

image="$(node dist/bin/ktstr.cjs kernel path debian:7.3-cloud)"
kernels="$(dirname "$(dirname "$image")")"
directory="$(dirname "$kernels")/schedulers/7.3"
if [ -d "$directory" ]; then
  say "as built in $directory"
  exit
fi

scratch "$(dirname "$directory")"
packages "$kernels" trixie-backports download linux-source-7.3
dpkg -x "$work"/linux-source-7.3_*.deb "$work/tree"
sched_ext clang-22 "$work/tree/usr/src/linux-source-7.3.tar.xz" "$image" "$directory" \
  scx_simple scx_qmap scx_flatcg scx_central
