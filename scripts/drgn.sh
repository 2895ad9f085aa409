#!/bin/sh
# Gets what `npm run matrix` asks drgn with, into `drgn` beside ktstr's cache of kernels: the debug info of Debian's stock
# 7.3, and tools/sched_ext/scx_show_state.py of its source. Both packages are unpacked, not installed; 400 MB are left.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'drgn: %s\n' "$*" >&2; }
. scripts/debian.sh
. scripts/sched_ext.sh

debian_packages python3-drgn

image="$(node dist/bin/ktstr.cjs kernel path debian:7.3-cloud)"
release="$(node dist/bin/ktstr.cjs kernel show debian:7.3-cloud | sed -n 's/^release *//p')"
kernels="$(dirname "$(dirname "$image")")"
directory="$(dirname "$kernels")/drgn/$release"
if [ -d "$directory" ]; then
  say "as it is in $directory"
  exit
fi

scratch "$(dirname "$directory")"
backports "$kernels" "linux-image-$release-dbg" linux-source-7.3
mkdir "$work/made"
dpkg --fsys-tarfile "$work"/linux-image-*-dbg_*.deb |
  tar -xO "./usr/lib/debug/lib/modules/$release/vmlinux" >"$work/made/vmlinux"
dpkg --fsys-tarfile "$work"/linux-source-7.3_*.deb | tar -xO ./usr/src/linux-source-7.3.tar.xz |
  tar -xJO linux-source-7.3/tools/sched_ext/scx_show_state.py >"$work/made/scx_show_state.py"
mv -T "$work/made" "$directory" 2>/dev/null || [ -d "$directory" ]
say "made $directory"
