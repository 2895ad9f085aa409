#!/bin/sh
# Runs as root in the guest (busybox sh), with bpffs on /sys/fs/bpf: loads special.bpf.o, or special-6.1.bpf.o, and where it is
# included objects.bpf.o or objects-7.0.bpf.o; special-fill fills their maps and stays.
set -e
objects=/include-files
pins=/sys/fs/bpf
for name in special special-6.1; do
  [ ! -e $objects/$name.bpf.o ] || bpftool prog loadall $objects/$name.bpf.o $pins/special pinmaps $pins/special-maps
done
for name in objects objects-7.0; do
  [ ! -e $objects/$name.bpf.o ] || bpftool prog loadall $objects/$name.bpf.o $pins/objects pinmaps $pins/objects-maps
done
mkdir -p /tmp/capture # capture.sh prints what is in it
$objects/special-fill $pins/special $pins/special-maps $pins/objects $pins/objects-maps >/tmp/capture/filled.json
