#!/bin/sh
# Runs as root, with a bpffs of its own on /sys/fs/bpf: loads contract.bpf.o and contract-ops.bpf.o from the directory
# $OBJECTS and fills every map once. The pins keep the maps.
set -e
objects=${OBJECTS:-/include-files}
pins=/sys/fs/bpf
input=/tmp/contract-input
dd if=/dev/zero of=$input bs=64 count=1 2>/dev/null
bpftool prog loadall $objects/contract.bpf.o $pins/contract pinmaps $pins/contract-maps
bpftool prog run pinned $pins/contract/fill_contract data_in $input >/dev/null
rm $input
bpftool map update pinned $pins/contract-maps/ct_progs key 2 0 0 0 value pinned $pins/contract/fill_contract

# Maps without BTF, two of one name: their keys and values are bytes.
for n in 1 2; do
  bpftool map create $pins/ct_twin$n type hash key 5 value 3 entries 8 name ct_twin
  bpftool map update pinned $pins/ct_twin$n key $n 0 0xff 7 8 value $n 2 0xfd
done
bpftool map create $pins/ct_plain type array key 4 value 6 entries 2 name ct_plain
bpftool map update pinned $pins/ct_plain key 1 0 0 0 value 1 2 3 4 5 6
bpftool struct_ops register $objects/contract-ops.bpf.o >/dev/null
