#!/bin/sh
# Runs in the guest after fill.sh: prints what bpftool says of every map, its BTF and the programs, as a gzipped tar in
# base64 between two marker lines. $1, if given, is a file or device to print to instead of stdout.
# $KALLSYMS, if set, adds /proc/kallsyms (7 MB). $LARGEST, if set, leaves out dumps of maps that are longer, in bytes.
# map-ID.json and btf-ID.json hold `map dump -j` and `btf dump -j`; map-ID.error holds the reason of one that failed.
[ -n "$1" ] && exec >"$1"
dmesg -n 1 # no kernel messages between the lines
work=/tmp/capture
mkdir -p $work
bpftool map list -j >$work/maps.json
bpftool prog list -j >$work/progs.json
uname -r >$work/release
nproc >$work/cpus
head -n 28 /proc/cpuinfo >$work/cpuinfo
cat /proc/cmdline >$work/cmdline
cat /proc/iomem >$work/iomem
grep " _text$" /proc/kallsyms >$work/text
[ -n "$KALLSYMS" ] && cat /proc/kallsyms >$work/kallsyms
ids() { # ids FILE FIELD: each number behind "FIELD": once
  grep -o "\"$2\":[0-9]*" $1 | sed 's/.*://' | sort -nu
}
for id in $(ids $work/maps.json id); do
  if ! bpftool map dump -j id $id >$work/map-$id.json 2>$work/map-$id.error; then :; fi
  [ -s $work/map-$id.error ] || rm $work/map-$id.error
  [ $(wc -c <$work/map-$id.json) -le ${LARGEST:-1000000000} ] || rm $work/map-$id.json
done
for id in $(ids $work/maps.json btf_id); do
  # a bpftool that is newer than the kernel may first complain that the kernel takes no question for a name
  bpftool btf dump -j id $id | sed 's/^{"error":"[^"]*"},//' >$work/btf-$id.json
done
echo "==== capture begins"
tar -c -C $work . | gzip | base64
echo "==== capture ends"
rm -r $work
