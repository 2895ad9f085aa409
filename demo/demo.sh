#!/bin/sh
# The main job: boot a stock kernel, let it snapshot its own scheduler with demo.bpf.c, freeze it, print its BPF maps.
set -eu
cd "$(dirname "$0")/.."
set -- dump --kernel debian:6.12-cloud --cpus 2 \
  --include /usr/sbin/bpftool --include demo/demo.bpf.o \
  --exec 'bpftool iter pin /include-files/demo.bpf.o /sys/fs/bpf/demo
          for cpu in 0 1; do taskset -c $cpu cat /sys/fs/bpf/demo; done' \
  --limit "${LIMIT:-8}"
echo "ktstr $*"
exec node dist/bin/ktstr.cjs "$@"
