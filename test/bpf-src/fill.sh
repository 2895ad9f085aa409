#!/bin/sh
# Runs as root in the guest (busybox sh), with bpffs on /sys/fs/bpf: loads types.bpf.o (or steps.bpf.o) and kinds.bpf.o from the
# directory $OBJECTS, fills every map once and ends with nothing running that would change one.
set -e
objects=${OBJECTS:-/include-files}
pins=/sys/fs/bpf
input=/tmp/fill-input
dd if=/dev/zero of=$input bs=64 count=1 2>/dev/null

types=types.bpf.o times=1 cpu_times=1
[ ! -e $objects/steps.bpf.o ] || types=steps.bpf.o times=4096 cpu_times=40
bpftool prog loadall $objects/$types $pins/types pinmaps $pins/types-maps
bpftool prog run pinned $pins/types/fill_all data_in $input repeat $times >/dev/null
for cpu in $(seq 0 $(($(nproc) - 1))); do
  taskset -c $cpu bpftool prog run pinned $pins/types/fill_cpu data_in $input repeat $cpu_times >/dev/null
done

# Maps without BTF: their keys and values are bytes.
bpftool map create $pins/plain_hash type hash key 5 value 13 entries 8 name plain_hash
for n in 1 2 3; do
  bpftool map update pinned $pins/plain_hash key $n 0 0xff 7 8 value $n 2 3 4 5 6 7 8 9 10 11 12 0xfd
done
bpftool map create $pins/plain_again type hash key 5 value 13 entries 8 name plain_hash # of the same name
bpftool map update pinned $pins/plain_again key 9 9 9 9 9 value 0 0 0 0 0 0 0 0 0 0 0 0 0
bpftool map create $pins/plain_array type array key 4 value 6 entries 3 name plain_array
bpftool map update pinned $pins/plain_array key 1 0 0 0 value 1 2 3 4 5 6
bpftool map create $pins/plain_percpu type percpu_array key 4 value 3 entries 2 name plain_percpu

# The other types, as this kernel has them. kinds-fill stays, and with it what it put into them.
if [ -e $objects/kinds.bpf.o ]; then
  bpftool prog loadall $objects/kinds.bpf.o $pins/kinds pinmaps $pins/kinds-maps
  bpftool prog run pinned $pins/kinds/fill_kinds data_in $input >/dev/null
fi
for ops in congestion scheduler; do
  [ ! -e $objects/$ops.bpf.o ] || bpftool struct_ops register $objects/$ops.bpf.o >/dev/null
done
if [ -e $objects/kinds-fill ]; then
  mkdir -p /tmp/capture # capture.sh prints what is in it
  $objects/kinds-fill $pins/kinds $pins/kinds-maps >/tmp/capture/filled.json
fi
rm -f $input
