#!/bin/sh
# Runs as root in the guest: loads programs.bpf.o, runs some of its programs, attaches them in every way that this kernel
# has, and leaves in /tmp/capture, for capture.sh, what the attaching programs printed.
set -e
objects=/include-files
pins=/sys/fs/bpf/programs
input=/tmp/programs-input
work=/tmp/capture
mkdir -p $work
sysctl -q -w kernel.bpf_stats_enabled=1
dd if=/dev/zero of=$input bs=64 count=1 2>/dev/null
mkdir -p /sys/fs/cgroup/outer/inner

bpftool prog loadall $objects/programs.bpf.o $pins pinmaps $pins-maps
long=$pins/classifier_with_a_name_that_the_kernel_cuts
bpftool prog run pinned $long data_in $input repeat 1000 >/dev/null
for cpu in $(seq 0 $(($(nproc) - 1))); do
  taskset -c $cpu bpftool prog run pinned $pins/xdp_other data_in $input repeat 10 >/dev/null
done

btf=$(bpftool prog show pinned $long -j | sed 's/.*"btf_id":\([0-9]*\).*/\1/')
function=$(bpftool btf dump id $btf | grep "FUNC 'a_subprogram'" | sed 's/^\[\([0-9]*\)\].*/\1/')
$objects/attach $pins /sys/fs/cgroup/outer/inner $function >$work/links-made.json

# As it was done before there were links.
bpftool cgroup attach /sys/fs/cgroup/outer egress pinned $pins/egress multi
bpftool net attach xdpgeneric pinned $pins/xdp_other dev lo
bpftool link list -j >$work/links.json
bpftool cgroup tree -j >$work/cgroups.json
bpftool net list -j >$work/net.json
date +%s >$work/now
cat /proc/uptime >$work/uptime
rm -f $input
