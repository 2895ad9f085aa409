#!/bin/sh
# Gets what `npm run matrix` judges guests of Debian's stock 7.3 with, into `judges` beside ktstr's cache of kernels: that
# kernel's debug info and tools/sched_ext/scx_show_state.py of its source; and crash, drgn and makedumpfile of sid, which know
# it, with their libraries. Packages are unpacked, not installed; 600 MB are left.
set -eu
cd "$(dirname "$0")/.."

say() { printf 'judges: %s\n' "$*" >&2; }
. scripts/sched_ext.sh

image="$(node dist/bin/ktstr.cjs kernel path debian:7.3-cloud)"
release="$(node dist/bin/ktstr.cjs kernel show debian:7.3-cloud | sed -n 's/^release *//p')"
kernels="$(dirname "$(dirname "$image")")"
directory="$(dirname "$kernels")/judges/$release"
if [ -d "$directory" ]; then
  say "as they are in $directory"
  exit
fi

scratch "$(dirname "$directory")"
packages "$kernels" trixie-backports download "linux-image-$release-dbg" linux-source-7.3
mkdir -p "$work/made/root" "$work/made/bin"
dpkg --fsys-tarfile "$work"/linux-image-*-dbg_*.deb |
  tar -xO "./usr/lib/debug/lib/modules/$release/vmlinux" >"$work/made/vmlinux"
dpkg --fsys-tarfile "$work"/linux-source-7.3_*.deb | tar -xO ./usr/src/linux-source-7.3.tar.xz |
  tar -xJO linux-source-7.3/tools/sched_ext/scx_show_state.py >"$work/made/scx_show_state.py"

mkdir -p "$work/archives/partial"
packages "$kernels" sid -o Dir::Cache::archives="$work/archives" -o Debug::NoLocking=1 \
  --yes --no-install-recommends --download-only install crash makedumpfile python3-drgn >/dev/null
for package in "$work"/archives/*.deb; do dpkg-deb --extract "$package" "$work/made/root"; done
# judge NAME WORD…: a command that runs by the loader and libraries that it was built for, which may be newer than the machine's.
judge() {
  name=$1
  shift
  cat >"$work/made/bin/$name" <<COMMAND
#!/bin/sh
usr="\$(dirname "\$0")/../root/usr"
export PYTHONHOME="\$usr" PYTHONPATH="\$usr/lib/python3/dist-packages"
exec "\$usr/lib64/ld-linux-x86-64.so.2" --library-path "\$usr/lib/x86_64-linux-gnu" $* "\$@"
COMMAND
  chmod +x "$work/made/bin/$name"
}
judge crash '"$usr/bin/crash"'
judge drgn '"$usr/bin/python3"' '"$usr/bin/drgn"'
judge makedumpfile '"$usr/bin/makedumpfile"'
mv -T "$work/made" "$directory" 2>/dev/null || [ -d "$directory" ]
say "made $directory"
