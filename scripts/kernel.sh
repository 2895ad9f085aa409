#!/bin/sh
# Makes the kernel and the schedulers of the sched_ext tests: Debian's 6.12 source, built with ktstr's kconfig into its
# cache, and scx_simple and scx_qmap of the same source. What is ready already is left alone, so a second run takes
# seconds; the first takes about ten minutes on two cores. Says what it did and why.
set -eu
cd "$(dirname "$0")/.."
sh scripts/setup.sh

say() { printf 'kernel: %s\n' "$*" >&2; }
. scripts/debian.sh

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
say "building scx_simple and scx_qmap"
mkdir -p "$schedulers"
work="$(mktemp -d "$schedulers/.tmp-XXXXXX")"
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
tree=linux-source-6.12
# the tools alone are not enough: libbpf generates a header by scripts/bpf_doc.py, bpftool compiles kernel/bpf/disasm.c
tar -xf "$source" -C "$work" "$tree/tools" "$tree/scripts" "$tree/kernel/bpf"
mkdir "$work/out"
# LLVM_STRIP would only strip a bpftool that is not kept
make -s -C "$work/$tree/tools/sched_ext" -j "$(nproc)" O="$work/out" VMLINUX_BTF="$entry/vmlinux" \
  CLANG=clang-19 LLVM_STRIP=true scx_simple scx_qmap >"$work/log" 2>&1 || {
  tail -n 30 "$work/log" >&2
  exit 1
}
# complete or not at all; whoever was first wins
mv -T "$work/out/build/bin" "$schedulers/$key" 2>/dev/null || [ -d "$schedulers/$key" ]
say "schedulers: built in $schedulers/$key"
